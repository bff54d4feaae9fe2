"""Filters that judge every label by itself."""

from collections.abc import Callable, Sequence

from raysr.ipl.predictions import Prediction
from raysr.teachers.base import TeacherOutput


def each(
    predictions: Sequence[Prediction], reason: Callable[[Prediction, TeacherOutput], str | None]
) -> dict[str, str]:
    """Return the reasons of the predictions whose label ``reason`` objects to."""
    found = {p.id: reason(p, p.label) for p in predictions if p.label is not None}
    return {name: why for name, why in found.items() if why is not None}
