"""Reading what a transcription endpoint answered: nothing in it is believed to be of the type that it should be."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from raysr.teachers.base import TeacherOutput
from raysr.teachers.scores import confidences_of, weighted_mean, words_of
from raysr.text.normalise import normalise


class Answer(NamedTuple):
    """A transcript, and the model that made it where the endpoint says so."""

    output: TeacherOutput
    model: str | None


def read_answer(body: bytes) -> Answer:
    """Return what is in a ``json`` or ``verbose_json`` answer; raise ValueError for what is no transcription."""
    try:
        answer = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
        raise ValueError("an answer without a text")
    model = answer.get("model")
    return Answer(_output(answer), model if isinstance(model, str) else None)


def _output(answer: Mapping[str, Any]) -> TeacherOutput:
    text = normalise(answer["text"])
    tokens = [(t["token"], t["logprob"]) for t in _items(answer, "logprobs", token=str, logprob=float)]
    segments = list(_items(answer, "segments", avg_logprob=float))
    words = words_of(tokens) or list(_words(answer))
    return TeacherOutput(
        text=text,
        normalised_score=weighted_mean(
            [(logprob, 1.0) for _, logprob in tokens]
            or [(segment["avg_logprob"], _length(segment)) for segment in segments]
        ),
        confidences=confidences_of(text, words),
    )


def _words(answer: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield words with probabilities, which servers of Whisper give at the top or within their segments."""
    for part in (answer, *_items(answer, "segments")):
        for word in _items(part, "words", word=str):
            for key in ("probability", "confidence", "score"):
                if _is(word.get(key), float):
                    yield word["word"], float(word[key])
                    break


def _length(segment: Mapping[str, Any]) -> float:
    """Return the number of a segment's tokens, or of its characters where it has none."""
    tokens = segment.get("tokens")
    return float(len(tokens) if isinstance(tokens, list) else len(str(segment.get("text", ""))))


def _items(part: Mapping[str, Any], key: str, **types: type) -> Iterator[dict[str, Any]]:
    """Yield the mappings in the list ``part[key]`` that have all of ``types``."""
    found = part.get(key)
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and all(_is(item.get(name), kind) for name, kind in types.items()):
            yield item


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind)
