"""A filter of what comes twice."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from raysr.config import Config as Options
from raysr.corpus.recordings import copies
from raysr.ipl.context import CycleContext
from raysr.ipl.predictions import Prediction
from raysr.ipl.strata import grouped


class Duplicate:
    """Keeps one utterance of each audio, the first by id; and, when asked, no text too often of one speaker.

    Looks for the audio of utterances of like length, which is read once and then known by its hash.
    """

    class Config(Options):
        """What counts as coming twice.

        Attributes:
            audio: segments of one recording that overlap, and copies of it under other names.
            same_text: how often a speaker (of whom nothing is known: everybody) may say the same; None is no limit.
        """

        audio: bool = True
        same_text: int | None = Field(default=None, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config, self.context = config, context

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        known = self.context.utterances()
        reasons: dict[str, str] = {}
        if self.config.audio:
            here = [known[p.id] for p in predictions if p.id in known]
            reasons = {
                one: f"the same audio as '{other}'" for one, other in copies(here, self.context.digests)
            }
        if self.config.same_text is None:
            return reasons
        said = grouped(
            ((known[p.id].speaker or "" if p.id in known else "", p.label.text), p.id)
            for p in sorted(predictions, key=lambda p: p.id)
            if p.label and p.id not in reasons
        )
        for (_, text), names in said.items():
            for number, name in enumerate(names[self.config.same_text :], start=self.config.same_text + 1):
                reasons[name] = f"'{text}' for the {number}th time, {self.config.same_text} allowed"
        return reasons
