"""The phrases of a request: ``text``, or ``text:boost`` for one that is worth more or less than the others."""

import re
from collections.abc import Iterable

from raysr.errors import ConfigError

MOST = 1000
LONGEST = 200
_BOOSTED = re.compile(r"(.*):([-+]?[0-9.]+)", re.DOTALL)


def read_phrases(texts: Iterable[str], boost: float) -> dict[str, float]:
    """Return phrases and their boosts, ``boost`` times the number that comes with them.

    Raises :class:`ConfigError` for a number that cannot be read, and for more or longer phrases than we take.
    """
    found: dict[str, float] = {}
    for text in texts:
        boosted = _BOOSTED.fullmatch(text)
        phrase, times = boosted.groups() if boosted else (text, "1")
        if len(phrase) > LONGEST:
            raise ConfigError(f"phrases: {phrase[:40]!r}… is longer than {LONGEST} characters")
        try:
            found[phrase] = boost * float(times)
        except ValueError:
            raise ConfigError(f"phrases: {times!r} of {text!r} should be a number") from None
        if len(found) > MOST:
            raise ConfigError(f"phrases: a request may hold {MOST}")
    return found
