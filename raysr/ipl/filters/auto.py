"""A filter that sets its threshold by itself: where the canary's labels are good enough.

After alternative pseudo-labelling (Zhu et al. 2023, arXiv:2308.06547), which sets the threshold of confidence by the
errors of labelled data. Errors are smoothed to fall as the quantity rises by isotonic regression (Barlow et al. 1972).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.evaluate.wer import score
from raysr.ipl.canary import Judged
from raysr.ipl.context import CycleContext
from raysr.ipl.filters.quantities import QUANTITIES, Name
from raysr.ipl.predictions import Prediction
from raysr.ipl.strata import grouped

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """The least value kept; ``why`` is the end of every reason. A value of None means that the canary cannot say."""

    value: float | None
    why: str


class Auto:
    """Keeps labels above the threshold that suits the canary best; labels without the quantity are dropped.

    Where the canary cannot say (too few labels on it, or none good enough) the best ``otherwise`` of them are kept.
    Scores have a threshold for each teacher and version, by what the canary has of it.
    """

    class Config(Options):
        """What is ranked by, and what is good.

        Attributes:
            by: ``score`` (length-normalised), ``confidence`` or ``min_confidence``, or agreement between ``heads``,
                ``teachers``, or with and without language model (``lm``).
            goal: ``wer`` keeps as much as has at most ``max_wer`` on the canary; ``f_score`` finds the best balance
                between keeping all labels with at most ``max_wer`` and keeping no others.
            max_wer: word error rate, in percent.
            beta: of the F-score: how many times as much recall counts as precision.
            least: canary utterances below which no threshold is believed, that are judged or that it would keep.
            otherwise: share kept where the canary cannot say.
        """

        by: Name = "score"
        goal: Literal["wer", "f_score"] = "wer"
        max_wer: float = Field(default=10.0, ge=0)
        beta: float = Field(default=1.0, gt=0)
        least: int = Field(default=30, ge=2)
        otherwise: float = Field(default=0.5, gt=0, le=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        if not context.canary_size or not len(context.dev):
            raise ConfigError(
                "filter auto judges by held-out transcribed audio: name data.dev and leave run.canary above 0, "
                "or take the filter score"
            )
        self.config, self.context = config, context

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        canary = self.context.canary
        if self.config.by != "score":
            return self._among(predictions, canary)
        reasons: dict[str, str] = {}
        for scale, rows in grouped((p.scale, p) for p in predictions).items():
            # what the canary has none of, such as labels carried over, is judged by all of it
            own = [j for j in canary if j.prediction.scale == scale]
            reasons |= self._among(rows, own or canary)
        return reasons

    def _among(self, predictions: Sequence[Prediction], canary: Sequence[Judged]) -> dict[str, str]:
        """Return the reasons against labels whose quantity is on the scale of the canary's."""
        by, measure = self.config.by, QUANTITIES[self.config.by]
        values = {p.id: measure(p) for p in predictions}
        known = sorted(
            ((v, name) for name, v in values.items() if v is not None), key=lambda m: (-m[0], m[1])
        )
        reasons = {name: f"no {by} to rank by" for name, v in values.items() if v is None}
        found = threshold(canary, self.config)
        if found.value is None:
            dropped = known[round(self.config.otherwise * len(known)) :]
            return reasons | {
                n: f"{by} {v:.3f} below the best {self.config.otherwise:.0%}; {found.why}" for v, n in dropped
            }
        return reasons | {
            n: f"{by} {v:.3f} below {found.value:.3f}; {found.why}" for v, n in known if v < found.value
        }


def threshold(canary: Sequence[Judged], config: Auto.Config) -> Threshold:
    """Choose the threshold of ``config`` on a canary; pure, and the same whatever its order."""
    measure = QUANTITIES[config.by]
    judged = [(value, j) for j in canary if (value := measure(j.prediction)) is not None]
    if len(judged) < config.least:
        return Threshold(None, f"the canary has {len(judged)} such labels, {config.least} are needed")
    labels = [j.prediction.label for _, j in judged]
    counts = score(
        [j.prediction.id for _, j in judged], [j.reference for _, j in judged], [h.text for h in labels if h]
    )
    values = np.array([value for value, _ in judged])
    errors = np.array([row.words.errors for row in counts], dtype=np.float64)
    words = np.array([max(1, row.words.reference) for row in counts], dtype=np.float64)
    if config.goal == "wer":
        return _by_wer(values, errors, words, config)
    good = (100 * errors <= config.max_wer * words).astype(np.float64)
    return _by_f_score(values, good, config)


def _by_wer(values: Floats, errors: Floats, words: Floats, config: Auto.Config) -> Threshold:
    levels, rates, weights = smoothed(values, errors / words, words)
    kept = np.array([(values >= level).sum() for level in levels])
    wer = 100 * np.cumsum(rates * weights) / np.cumsum(weights)
    possible = np.flatnonzero((wer <= config.max_wer + 1e-9) & (kept >= config.least))
    if not len(possible):
        best = wer[np.flatnonzero(kept >= config.least)[0]]
        return Threshold(
            None, f"the best {config.least} of the canary have {best:.1f}% WER, not {config.max_wer:g}%"
        )
    at = possible[-1]
    return Threshold(
        float(levels[at]),
        f"above it {kept[at] / len(values):.0%} of {len(values)} canary labels have {wer[at]:.1f}% WER",
    )


def _by_f_score(values: Floats, good: Floats, config: Auto.Config) -> Threshold:
    if not good.any():
        return Threshold(None, f"no label of the canary has {config.max_wer:g}% WER or less")
    levels, rates, weights = smoothed(values, good, np.ones_like(good), falling=False)
    kept, right = np.cumsum(weights), np.cumsum(rates * weights)
    precision, recall = right / kept, right / right[-1]
    square = config.beta**2
    f_score = (1 + square) * precision * recall / np.maximum(square * precision + recall, 1e-12)
    possible = np.flatnonzero(kept >= config.least)
    at = possible[np.argmax(f_score[possible])]
    return Threshold(
        float(levels[at]),
        f"there the F-score of labels with {config.max_wer:g}% WER or less is {f_score[at]:.2f} on the canary "
        f"(precision {precision[at]:.0%}, recall {recall[at]:.0%})",
    )


def smoothed(
    values: Floats, rates: Floats, weights: Floats, falling: bool = True
) -> tuple[Floats, Floats, Floats]:
    """Return the distinct values from the largest down, with the rates there and their weights.

    Rates are the nearest ones, by weighted squares, that fall as values rise (or rise, unless ``falling``): pool
    adjacent violators.
    """
    levels, place = np.unique(-values, return_inverse=True)
    weight = np.bincount(place, weights).astype(np.float64)
    mean = np.bincount(place, weights * rates) / weight
    sign = 1.0 if falling else -1.0
    blocks: list[tuple[float, float, int]] = []  # rate, weight, levels
    for rate, mass in zip((sign * mean).tolist(), weight.tolist(), strict=True):
        blocks.append((rate, mass, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (r1, w1, n1), (r2, w2, n2) = blocks[-2:]
            blocks[-2:] = [((r1 * w1 + r2 * w2) / (w1 + w2), w1 + w2, n1 + n2)]
    fitted = np.concatenate([np.full(n, sign * rate) for rate, _, n in blocks])
    return np.negative(levels), fitted, weight
