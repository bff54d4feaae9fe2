"""Filters by agreement: what two readings of the same audio have in common is seldom wrong."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from raysr.config import Config as Options
from raysr.ipl.context import CycleContext
from raysr.ipl.filters.each import each
from raysr.ipl.filters.quantities import QUANTITIES, lm
from raysr.ipl.predictions import Prediction
from raysr.teachers.base import TeacherOutput


class Agreement:
    """Keeps what two readings agree on: the label and another teacher's, or the CTC and attention heads' of one."""

    class Config(Options):
        """``max_wer``: largest word error rate between the two readings, in percent of the label's words.

        ``heads`` needs teachers that decode with both (``decode.method``: ``rescore`` or ``joint``).
        """

        between: Literal["teachers", "heads"] = "teachers"
        max_wer: float = Field(default=20.0, ge=0)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        between = self.config.between

        def reason(prediction: Prediction, _: TeacherOutput) -> str | None:
            agreement = QUANTITIES[between](prediction)
            if agreement is None:
                return f"no second reading to agree with ({between})"
            wer = 100 * (1 - agreement)
            return f"{between} disagree: {wer:.0f}% of the words" if wer > self.config.max_wer else None

        return each(predictions, reason)


class LmAgreement:
    """Keeps labels that the language model did not make: CTC alone reads nearly the same.

    After the noisy student recipe of WeNet, which keeps up to 10% of the characters.
    """

    class Config(Options):
        """``max_cer``: largest character error rate between label and reading, in percent of the label's characters."""

        max_cer: float = Field(default=10.0, ge=0)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        def reason(prediction: Prediction, _: TeacherOutput) -> str | None:
            agreement = lm(prediction)
            if agreement is None:
                return "no reading without a language model to agree with"
            cer = 100 * (1 - agreement)
            if cer <= self.config.max_cer:
                return None
            return (
                f"{cer:.0f}% of the characters are the language model's, more than {self.config.max_cer:g}%"
            )

        return each(predictions, reason)
