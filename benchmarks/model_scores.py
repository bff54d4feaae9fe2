"""What a trained model of a comparison is worth: word errors in every context, latency and size."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

from benchmarks.joined import JoinedCorpus
from benchmarks.training import Trained
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.recognise import recognise
from raysr.errors import ConfigError
from raysr.evaluate.wer import score
from raysr.ipl.config import RunConfig
from raysr.ipl.lm import train_lm
from raysr.ipl.tuning import TuningConfig, tune
from raysr.model.model import AsrModel
from raysr.pool import EntryConfig, Recogniser
from raysr.stream.defaults import LEFT_CHUNKS
from raysr.text.normalise import normalise
from raysr.text.tokeniser import Tokeniser


class Context(NamedTuple):
    """What a frame attends to: chunks of ``size`` frames and ``left`` chunks before them, -1 being all there is."""

    size: int = -1
    left: int = -1

    def __str__(self) -> str:
        if self.size < 0:
            return "whole"
        return f"chunk{self.size}" + ("" if self.left < 0 else f" left{self.left}")


SIZES = (1, 4, 8, 16)
WHOLE, STREAM = Context(), Context(16, LEFT_CHUNKS)
CONTEXTS = (WHOLE, *(Context(size, left) for size in SIZES[1:] for left in (LEFT_CHUNKS, -1)))
BEAM_CONTEXTS = (WHOLE, STREAM)
Texts = Sequence[str]


class Scorer:
    """Recognises sets of utterances and counts their word errors."""

    def __init__(self, recogniser: Recogniser, cache: FeatureCache) -> None:
        self.recogniser, self.cache = recogniser, cache

    def texts(
        self,
        utterances: Sequence[Utterance],
        config: DecodeConfig,
        context: Context = WHOLE,
        lm: bool = True,
        **options: Any,
    ) -> list[str]:
        """Return what is recognised; ``options`` are further ones of :func:`recognise`."""
        r = self.recogniser
        features = [self.cache.get(u) for u in utterances]
        model = r.lm if lm else None
        found = recognise(
            r.model, r.tokeniser, features, config, model, context.size, context.left, **options
        )
        return [self._text(nbest) for nbest in found]

    def errors(self, utterances: Sequence[Utterance], *args: Any, **options: Any) -> list[int]:
        """Return word errors, utterance by utterance; takes what :meth:`texts` takes."""
        return word_errors(utterances, self.texts(utterances, *args, **options))

    def _text(self, nbest: Sequence[Hypothesis]) -> str:
        return self.recogniser.tokeniser.decode(list(nbest[0].tokens)) if nbest else ""


def word_errors(utterances: Sequence[Utterance], texts: Texts) -> list[int]:
    """Return the word errors of every utterance."""
    rows = score([u.id for u in utterances], [u.text or "" for u in utterances], texts)
    return [row.words.errors for row in rows]


def words(utterances: Iterable[Utterance]) -> list[int]:
    """Return the words of every utterance's reference."""
    return [len(normalise(u.text or "").split()) for u in utterances]


def load(trained: Trained, config: RunConfig, texts: Texts) -> Recogniser:
    """Return the trained model with the recipe's language model of ``texts``, and the recipe's decoding."""
    tokeniser = Tokeniser.load(trained.tokeniser)
    model = AsrModel(config.model, tokeniser.vocab_size)
    model.load_state_dict(load_file(trained.weights))
    lm = train_lm(config.lm, tokeniser, texts, [])
    entry = EntryConfig(model=config.model, fbank=config.features, decode=config.decode)
    return Recogniser(model.eval(), tokeniser, lm, entry)


def tuned(
    recogniser: Recogniser, config: RunConfig, dev: Sequence[Utterance], cache: FeatureCache
) -> DecodeConfig:
    """Return the decoding with LM weight and length bonus chosen on ``dev``, as the recipe's trainer does."""
    r = recogniser
    tuning = TuningConfig.model_validate(config.trainer.options["tuning"])
    return tune(r.model, r.tokeniser, r.lm, dev, cache, r.config.decode, tuning)[0]


def score_contexts(
    recogniser: Recogniser, config: RunConfig, corpus: JoinedCorpus, cache: Path
) -> dict[str, Any]:
    """Return parameters, latency, and errors by method, context and set, utterance by utterance."""
    features = FeatureCache(cache, config.features)
    scorer = Scorer(recogniser, features)
    beam = tuned(recogniser, config, [u for part in corpus.dev.values() for u in part], features)
    greedy = beam.model_copy(update={"method": "greedy"})
    errors: dict[str, dict[str, Any]] = {"greedy": {}, "beam": {}}
    for method, decode, contexts in (("greedy", greedy, CONTEXTS), ("beam", beam, BEAM_CONTEXTS)):
        for context in filter(lambda c: computes(recogniser.model, c), contexts):
            errors[method][str(context)] = {
                name: scorer.errors(part, decode, context) for name, part in corpus.tests.items()
            }
    return {
        "parameters": sum(p.numel() for p in recogniser.model.parameters()),
        "latency_ms": latencies(recogniser.model),
        "lm_weight": beam.lm_weight,
        "length_bonus": beam.length_bonus,
        "words": {name: words(part) for name, part in corpus.tests.items()},
        "errors": errors,
    }


def computes(model: AsrModel, context: Context) -> bool:
    """Return whether the model can be asked for a context."""
    try:
        model.check_chunk(context.size, context.left)
    except ConfigError:
        return False
    return True


def latencies(model: AsrModel) -> Mapping[str, Mapping[str, float]]:
    """Return the worst and mean algorithmic latency of every chunk size that the model can be asked for."""
    found = {size: model.latency(size) for size in SIZES if computes(model, Context(size))}
    return {
        f"chunk{size}": {"worst": latency.worst_ms, "mean": latency.mean_ms}
        for size, latency in found.items()
        if math.isfinite(latency.worst_ms)
    }
