"""What the attention decoder adds to CTC: rescoring, attention alone and one-pass joint decoding, with and without LM.

Every method has its weights chosen on dev, from a grid of its own, and is then scored on the tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.joined import JoinedCorpus
from benchmarks.model_scores import Scorer, words
from raysr.corpus.features import FeatureCache
from raysr.decode.decode_config import DecodeConfig
from raysr.ipl.config import RunConfig
from raysr.pool import Recogniser

CTC_BEAM, TOKEN_BEAM = 32, 16  # hypotheses after each frame, all rescored; hypotheses after each token
Grid = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Method:
    """A way to decode.

    Attributes:
        method: as in :class:`DecodeConfig`.
        lm: whether the language model takes part.
        grid: what is tried on dev, all with all.
    """

    method: str
    lm: bool = False
    grid: Grid = field(default_factory=dict)


ATTENTION: Grid = {"attention_weight": (0.3, 0.5, 0.7), "reverse_weight": (0.0, 0.3, 0.5)}
LM: Grid = {"lm_weight": (1.2, 1.6, 2.0), "length_bonus": (0.5, 1.5)}
METHODS: Mapping[str, Method] = {
    "greedy": Method("greedy"),
    "prefix_beam": Method("beam"),
    "rescoring": Method("rescore", grid=ATTENTION),
    "attention": Method("attention", grid={"length_bonus": (0.0, 0.5, 1.0)}),
    "joint": Method("joint", grid={"joint_ctc_weight": (0.3, 0.5, 0.7)}),
    "prefix_beam_lm": Method("beam", True, LM),
    "rescoring_lm": Method("rescore", True, {**LM, "attention_weight": (0.3, 0.6)}),
    "joint_lm": Method("joint", True, {"lm_weight": (0.4, 0.8), "joint_ctc_weight": (0.3, 0.6)}),
}


def score_methods(
    recogniser: Recogniser, config: RunConfig, corpus: JoinedCorpus, cache: Path
) -> dict[str, Any]:
    """Return for every method the weights chosen and the errors on the tests, utterance by utterance."""
    scorer = Scorer(recogniser, FeatureCache(cache, config.features))
    plain = recogniser.config.decode.model_copy(
        update={"lm_weight": 0.0, "length_bonus": 0.0, "batch_size": 16}
    )
    dev = [u for part in corpus.dev.values() for u in part]
    found = {}
    for name, method in METHODS.items():
        tried = [_with(plain, method, values) for values in product(*method.grid.values())]
        decode = tried[0]
        if len(tried) > 1:
            decode = min(tried, key=lambda c: sum(scorer.errors(dev, c, lm=method.lm)))
        found[name] = {
            "weights": {key: getattr(decode, key) for key in method.grid},
            "errors": {
                test: scorer.errors(part, decode, lm=method.lm) for test, part in corpus.tests.items()
            },
        }
        print(f"second pass: {name} {found[name]['weights']}", flush=True)
    return {"words": {name: words(part) for name, part in corpus.tests.items()}, "methods": found}


def _with(plain: DecodeConfig, method: Method, values: Sequence[float]) -> DecodeConfig:
    """Return ``plain`` with the method and a point of its grid; attention and CTC share what there is."""
    beam = TOKEN_BEAM if method.method in ("attention", "joint") else CTC_BEAM
    chosen: dict[str, Any] = {"beam": beam, "nbest": beam, **dict(zip(method.grid, values, strict=True))}
    if "attention_weight" in chosen:
        chosen["ctc_weight"] = 1 - chosen["attention_weight"]
    return plain.model_copy(update={"method": method.method, **chosen})
