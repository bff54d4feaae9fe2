"""Score a recogniser on named test sets: greedy, and with the language model.

Pure functions of a loaded pool entry: parts may be scored anywhere, in any order, and added up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.decode.words import Word, best_words
from raysr.errors import CorpusError
from raysr.evaluate.wer import ErrorCounts, Score, score, total
from raysr.model.model import FRAME_SHIFT_MS
from raysr.pool import Entry, Recogniser, load_entry

Method = Literal["greedy", "lm"]
METHODS: tuple[Method, ...] = ("greedy", "lm")


@dataclass(frozen=True, slots=True)
class Recognised:
    """What was made of an utterance: its text, and its words with times and confidences where they are known."""

    id: str
    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """Scored utterances of one set by one method; those of several parts add up."""

    rows: tuple[Score, ...] = ()

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(self.rows + other.rows)

    @property
    def words(self) -> ErrorCounts:
        return total(row.words for row in self.rows)

    @property
    def characters(self) -> ErrorCounts:
        return total(row.characters for row in self.rows)

    @property
    def wer(self) -> float | None:
        return self.words.rate


def score_entry(
    entry: Entry,
    sets: Mapping[str, Sequence[Utterance]],
    cache: FeatureCache,
    methods: Sequence[Method] = METHODS,
    device: str = "cpu",
) -> dict[str, dict[str, float | None]]:
    """Return ``{method: {set: WER}}``, WER as a fraction, of one pool entry on every set."""
    recogniser = load_entry(entry, device=device)
    return {
        method: {
            name: score_part(recogniser, utterances, cache, method).wer for name, utterances in sets.items()
        }
        for method in methods
    }


def score_part(
    recogniser: Recogniser, utterances: Sequence[Utterance], cache: FeatureCache, method: Method
) -> Scores:
    """Recognise and score utterances whose features are in ``cache``; raises CorpusError without a text."""
    check_texts(utterances)
    return scored(utterances, recognise_part(recogniser, utterances, cache, method, words=False))


def recognise_part(
    recogniser: Recogniser,
    utterances: Sequence[Utterance],
    cache: FeatureCache,
    method: Method,
    words: bool = True,
) -> list[Recognised]:
    """Recognise utterances whose features are in ``cache``; ``words`` adds theirs, with times and confidences."""
    config = decoding(recogniser.config.decode, method)
    lm = recogniser.lm if method == "lm" else None
    tokeniser, features = recogniser.tokeniser, [cache.get(utterance) for utterance in utterances]
    found = recognise(recogniser.model, tokeniser, features, config, lm)
    frame_seconds = recogniser.model.encoder.hop * FRAME_SHIFT_MS / 1000
    return [
        Recognised(
            utterance.id,
            tokeniser.decode(list(nbest[0].tokens)) if nbest else "",
            best_words(tokeniser, nbest, frame_seconds, 0.0, config.calibration) if nbest and words else (),
        )
        for utterance, nbest in zip(utterances, found, strict=True)
    ]


def check_texts(utterances: Iterable[Utterance]) -> None:
    """Raise a CorpusError that names an utterance without a transcript."""
    for utterance in utterances:
        if utterance.text is None:
            raise CorpusError(f"utterance '{utterance.id}' has no transcript to score against")


def scored(utterances: Sequence[Utterance], recognised: Sequence[Recognised]) -> Scores:
    """Score what was recognised of utterances, each of its own; raises CorpusError for one without a text."""
    check_texts(utterances)
    texts = [one.text for one in recognised]
    return Scores(tuple(score([u.id for u in utterances], [u.text or "" for u in utterances], texts)))


def decoding(config: DecodeConfig, method: Method) -> DecodeConfig:
    """Return the entry's decoding made greedy, or with its beam and the weights chosen on dev."""
    if (method == "greedy") == (config.method == "greedy"):
        return config
    chosen = "greedy" if method == "greedy" else "beam"
    return config.model_copy(update={"method": chosen, "calibration": None})


def label_wer(decisions: Iterable[Any], truth: Mapping[str, str]) -> float | None:
    """Return the WER of the kept pseudo-labels against the hidden truth; None where either is missing."""
    return label_counts(decisions, truth).get("kept", ErrorCounts()).rate


def label_counts(decisions: Iterable[Any], truth: Mapping[str, str]) -> dict[str, ErrorCounts]:
    """Count word errors of pseudo-labels by the status of their decision (kept, filtered).

    A decision has ``id``, ``status`` and ``text``, as attributes or as keys of a mapping.
    """
    texts: dict[str, list[tuple[str, str]]] = {}
    for decision in decisions:
        row = decision if isinstance(decision, Mapping) else _attributes(decision)
        if row["text"] is not None and row["id"] in truth:
            texts.setdefault(str(row["status"]), []).append((row["id"], row["text"]))
    return {
        status: total(
            row.words
            for row in score([i for i, _ in rows], [truth[i] for i, _ in rows], [t for _, t in rows])
        )
        for status, rows in texts.items()
    }


def _attributes(decision: Any) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in ("id", "status", "text")}
