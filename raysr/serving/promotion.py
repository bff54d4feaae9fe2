"""Which of the pool's entries are good enough to be served: the promotion rule."""

from collections.abc import Sequence

from pydantic import Field

from raysr.config import Config
from raysr.pool import TOKENISER, Entry


class PromotionConfig(Config):
    """When an entry is too much worse than another one to be served; what was pinned always is."""

    metric: str = "dev_wer"
    """What entries are judged by, of their metrics; less is better. One that does not tell it is served."""
    worse: float = Field(default=0.1, ge=0)
    """By what share the metric may lie above that of the best entry with the same tokens."""

    def objection(self, entry: Entry, entries: Sequence[Entry]) -> str | None:
        """Return why an entry should not be served while these are there, or None."""
        own = self._of(entry)
        rivals = [(value, other) for other in entries if (value := self._of(other)) is not None]
        alike = [(v, e.name) for v, e in rivals if e.files.get(TOKENISER) == entry.files.get(TOKENISER)]
        if own is None or not alike:
            return None
        best, name = min(alike)
        if own <= best * (1 + self.worse):
            return None
        return (
            f"its {self.metric} of {own:.4g} is more than {self.worse:.0%} above the {best:.4g} of {name}; "
            f"pin it to serve it, or change promotion.worse"
        )

    def _of(self, entry: Entry) -> float | None:
        value = entry.metrics.get(self.metric)
        return float(value) if isinstance(value, int | float) and entry.unfit is None else None
