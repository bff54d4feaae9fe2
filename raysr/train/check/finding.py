"""What a check has found."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        name: of the check.
        said: what was measured, with its units.
        numbers: the same, for programs.
        faults: what should have been otherwise; none where all is well.
    """

    name: str
    said: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        mark = "ok" if self.passed else "FAILED"
        return f"{mark:<7} {self.name}: {'; '.join([*filter(None, [self.said]), *self.faults])}"

    def dump(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "name": self.name,
            "ok": self.passed,
            "said": self.said,
            "faults": list(self.faults),
            **self.numbers,
        }


def faults(**found: bool) -> list[str]:
    """Return the names of what is found, as words."""
    return [name.replace("_", " ") for name, is_there in found.items() if is_there]


def largest(values: Iterable[float]) -> float:
    """Return the largest value, or NaN where there is one, which ``max`` may pass over."""
    return float(torch.tensor(list(values), dtype=torch.float64).max())
