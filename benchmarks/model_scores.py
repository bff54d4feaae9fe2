"""What a trained model of a comparison is worth: word errors in every context, latency and size."""

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
from raysr.model.chunking import CHUNKING
from raysr.model.model import AsrModel
from raysr.pool import EntryConfig, Recogniser
from raysr.text.normalise import normalise
from raysr.text.tokeniser import Tokeniser


class Context(NamedTuple):
    """Chunks of ``size`` frames that see ``left`` chunks before and ``ahead`` frames after; -1 is all there is."""

    size: int = -1
    left: int = -1
    ahead: int = 0

    def __str__(self) -> str:
        if self.size < 0:
            return "whole"
        return f"chunk{self.size}" + (f"+{self.ahead}" if self.ahead else "")


PAST = 64  # frames, of chunks of any size
WHOLE, CHUNK16 = Context(), Context(16, PAST // 16)
STREAM = Context(*CHUNKING)
AHEAD = [Context(4, PAST // 4, 4), STREAM, CHUNK16._replace(ahead=CHUNKING.lookahead)]
CHUNKS = [Context(4, PAST // 4), Context(8, PAST // 8), CHUNK16, *AHEAD]
CONTEXTS = (WHOLE, *CHUNKS)
BEAM_CONTEXTS = (WHOLE, CHUNK16, *AHEAD[1:])
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
        found = recognise(r.model, r.tokeniser, features, config, model, *context, **options)
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
    """Return whether the model can be asked for a context, all of it."""
    try:
        return model.check_chunk(*context).ahead == context.ahead
    except ConfigError:
        return False


def latencies(model: AsrModel) -> Mapping[str, Mapping[str, float]]:
    """Return the worst and mean algorithmic latency of every context that the model can be asked for in a stream."""
    asked = [context for context in (Context(1, PAST), *CHUNKS) if computes(model, context)]
    found = {str(context): model.latency(context.size, context.ahead) for context in asked}
    return {name: {"worst": latency.worst_ms, "mean": latency.mean_ms} for name, latency in found.items()}
