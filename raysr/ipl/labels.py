"""What a cycle's labels are like, whoever made them: the measures by which a collapse shows before WER does.

Everything is read from the decisions, over all labels and not only those that filters kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from rapidfuzz.distance.Levenshtein import distance

from raysr.corpus.utterance import Utterance
from raysr.evaluate.wer import score, total
from raysr.ipl.decisions import Decision
from raysr.ipl.loops import commonest_run
from raysr.text.normalise import normalise

PRIOR_UTTERANCES = 5000
LOOP_WORDS, LOOP_TIMES = 2, 3
Measures = dict[str, Any]


def measure_labels(
    decisions: Sequence[Decision],
    before: Sequence[Decision] = (),
    prior: float | None = None,
    canary: Iterable[tuple[str, str]] = (),
) -> Measures:
    """Return the measures of a cycle's labels; what cannot be measured is None.

    Args:
        decisions: of the cycle.
        before: of the cycle before it that labelled.
        prior: characters a second of transcribed speech.
        canary: reference and label of held-out transcribed utterances that the same teachers labelled.

    Returns:
        ``labels``, how many there are; the shares ``empty_rate``, ``loop_rate`` and ``kept_share``;
        ``characters_per_s`` and ``labelled_characters_per_s``, blanks not counted; ``drift``, the share of characters
        that are not those of the cycle before; ``canary_label_wer``.
    """
    texts = {d.id: d.text for d in decisions if d.text is not None}
    seconds = sum(d.duration for d in decisions if d.text is not None)
    pairs = list(canary)
    return {
        "labels": len(texts),
        "empty_rate": _share(not text.strip() for text in texts.values()),
        "loop_rate": _share(commonest_run(text, LOOP_WORDS)[1] > LOOP_TIMES for text in texts.values()),
        "kept_share": _share(d.status == "kept" for d in decisions),
        "characters_per_s": sum(map(_letters, texts.values())) / seconds if seconds else None,
        "labelled_characters_per_s": prior,
        "drift": _drift(texts, {d.id: d.text for d in before if d.text is not None}),
        "canary_label_wer": _wer(pairs) if pairs else None,
    }


def characters_per_second(transcribed: Iterable[Utterance]) -> float | None:
    """Return the rate of the first few thousand transcripts, as labels are written, without blanks."""
    spoken = [u for u in islice(transcribed, PRIOR_UTTERANCES) if u.text]
    seconds = sum(u.duration for u in spoken)
    return sum(_letters(normalise(u.text or "")) for u in spoken) / seconds if seconds else None


def _drift(texts: Mapping[str, str], before: Mapping[str, str]) -> float | None:
    both = texts.keys() & before.keys()
    if not both:
        return None
    changed = sum(distance(texts[name], before[name]) for name in both)
    return changed / max(1, sum(max(len(texts[name]), len(before[name])) for name in both))


def _wer(pairs: Sequence[tuple[str, str]]) -> float | None:
    names = [str(number) for number in range(len(pairs))]
    rows = score(names, [reference for reference, _ in pairs], [label for _, label in pairs])
    return total(row.words for row in rows).rate


def _letters(text: str) -> int:
    return len(text) - text.count(" ")


def _share(holds: Iterable[bool]) -> float | None:
    found = list(holds)
    return sum(found) / len(found) if found else None
