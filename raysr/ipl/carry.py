"""Labels of earlier cycles, kept: the cache of slimIPL (Likhomanenko et al. 2021, arXiv:2010.11524) by cycles."""

from collections.abc import Sequence

from raysr.config import Spec
from raysr.corpus.manifest import Manifest
from raysr.ipl.context import CycleContext
from raysr.ipl.draws import draw
from raysr.ipl.plugins import Recogniser
from raysr.ipl.predictions import Predictions

BLOCK = 1024


class Carrying:
    """A recogniser that labels anew a share of what earlier cycles have labelled, and carries the rest over.

    What is carried over is the row of the last cycle that labelled the utterance, with that cycle's number and its
    teachers; an utterance whose labelling failed, or that is new, is always labelled.

    Args:
        recogniser: labels what has no row yet in the cycle's ``predictions``.
        relabel: the share that gets fresh labels, drawn anew in every cycle.
        context: of the cycle.
    """

    def __init__(self, recogniser: Recogniser, relabel: float, context: CycleContext) -> None:
        self.recogniser, self.relabel, self.context = recogniser, relabel, context

    def __call__(self, selected: Manifest, teachers: Sequence[Spec]) -> Predictions:
        if self.relabel < 1:
            self._carry(selected)
        return self.recogniser(selected, teachers)

    def _carry(self, selected: Manifest) -> None:
        c = self.context
        here, salt = Predictions(c.folder / "predictions"), f"{c.seed}/{c.cycle}/relabel"
        here.discard_broken()
        done = here.ids()
        staying = {u.id for u in selected if u.id not in done and draw(salt, u.id) >= self.relabel}
        rows = [last for last, *_ in c.earlier.last(1, staying).values()]
        for first in range(0, len(rows), BLOCK):
            here.write(rows[first : first + BLOCK])
        if rows:
            c.progress.say(f"  {len(rows)} of {len(selected)} utterances keep the labels of earlier cycles")
