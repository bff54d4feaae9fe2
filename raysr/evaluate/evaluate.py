"""Score a recogniser on named test sets: greedy, and with the language model.

Pure functions of a loaded pool entry: parts may be scored anywhere, in any order, and added up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.errors import CorpusError
from raysr.evaluate.wer import ErrorCounts, Score, score, total
from raysr.pool import Entry, Recogniser, load_entry

Method = Literal["greedy", "lm"]
METHODS: tuple[Method, ...] = ("greedy", "lm")


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
    for utterance in utterances:
        if utterance.text is None:
            raise CorpusError(f"utterance '{utterance.id}' has no transcript to score against")
    features = [cache.get(utterance) for utterance in utterances]
    config = decoding(recogniser.config.decode, method)
    lm = recogniser.lm if method == "lm" else None
    nbest = recognise(recogniser.model, recogniser.tokeniser, features, config, lm)
    texts = [recogniser.tokeniser.decode(list(best[0].tokens)) if best else "" for best in nbest]
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
