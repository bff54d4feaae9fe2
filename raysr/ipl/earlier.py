"""What the cycles before one have left behind: their predictions and decisions."""

import json
from collections.abc import Collection
from pathlib import Path

from raysr.errors import RunError
from raysr.ipl.decisions import Decision, read_decisions
from raysr.ipl.predictions import Prediction, Predictions
from raysr.ipl.voting import Vote


def labelled(folder: Path) -> Predictions | None:
    """Return the predictions of the cycle in ``folder``; None until all of them are there.

    Raises:
        RunError: they are not where they were written.
    """
    path = folder / "predictions.json"
    if not path.exists():
        return None
    made = json.loads(path.read_text())
    place = folder / made["folder"]
    if made["utterances"] and not place.is_dir():
        raise RunError(f"{path}: there are no predictions in {place}: put them back, or remove this file")
    return Predictions(place, Vote.parse(made.get("vote"), str(path)))


class Earlier:
    """The finished labelling of the cycles before ``cycle``; ``folder`` holds the cycles' folders."""

    def __init__(self, folder: Path, cycle: int) -> None:
        self._folder, self._cycle = folder, cycle

    def cycles(self) -> list[int]:
        """Return the cycles whose labelling is finished, the newest first."""
        return [c for c in reversed(range(self._cycle)) if labelled(self._of(c)) is not None]

    def predictions(self, cycle: int) -> Predictions:
        """Return the predictions of a cycle; none where it has not labelled."""
        return labelled(self._of(cycle)) or Predictions(self._of(cycle) / "predictions")

    def decisions(self, cycle: int) -> list[Decision]:
        """Return the decisions of a cycle; none where it has made none."""
        path = self._of(cycle) / "decisions.parquet"
        return read_decisions(path) if path.exists() else []

    def last(self, count: int = 1, ids: Collection[str] | None = None) -> dict[str, list[Prediction]]:
        """Return the last ``count`` labellings of each utterance, the newest first, of ``ids`` or of all.

        A labelling that failed is none, and one that was carried over to later cycles is the same one.
        """
        found: dict[str, list[Prediction]] = {}
        for cycle in self.cycles():
            for prediction in self.predictions(cycle):
                if prediction.failure is not None or (ids is not None and prediction.id not in ids):
                    continue
                known = found.setdefault(prediction.id, [])
                if len(known) < count and all(p.cycle != prediction.cycle for p in known):
                    known.append(prediction)
        return found

    def _of(self, cycle: int) -> Path:
        return self._folder / f"{cycle:03d}"
