"""Recognised texts as JSON lines: written to be compared with later, or made elsewhere and scored here."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raysr.corpus.disk import replacing
from raysr.decode.words import Word
from raysr.errors import CorpusError
from raysr.evaluate.evaluate import Recognised
from raysr.evaluate.outcome import Outcome

GIVEN = "given"
"""The method of texts whose file does not name it."""
Key = tuple[str | None, str]
"""A set's name, None where the file does not say, and a method."""
WORDS = (
    'a word should look like {"text": "what", "start": 0.1, "end": 0.4, "confidence": 0.93}, seconds and a share '
    "between 0 and 1; leave out words without them"
)
SHOULD = 'a line should look like {"id": "utterance-1", "text": "what was recognised"}'


def write_hypotheses(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write what was recognised, one utterance a line.

    Raises:
        CorpusError: the disk is full.
    """
    with replacing(path) as file:
        for outcome in outcomes:
            for one, row in zip(outcome.recognised, outcome.rows, strict=True):
                line = {"id": one.id, "set": outcome.name, "method": outcome.method, "text": one.text}
                told = line | {"reference": row.reference, "errors": row.words.errors}
                if one.words:
                    told["words"] = [_word(word) for word in one.words]
                file.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")


class Hypotheses:
    """Texts by set, method and utterance, read from a file.

    A line has ``id`` and ``text`` (or ``hypothesis``, as in a run's ``scores.jsonl``); it may have ``set``, ``method``
    and ``words`` (each with ``text``, ``start``, ``end`` and ``confidence``).
    """

    def __init__(self, path: Path, texts: Mapping[Key, Mapping[str, Recognised]]) -> None:
        self._path, self._texts = path, texts

    @classmethod
    def read(cls, path: Path) -> "Hypotheses":
        """Read a file.

        Raises:
            CorpusError: names the file and the line that is none, or whose utterance was there before.
        """
        texts: dict[Key, dict[str, Recognised]] = {}
        for number, row in _rows(path):
            try:
                one, key = _recognised(row), (_name(row.get("set")), _name(row.get("method")) or GIVEN)
            except (KeyError, TypeError):
                raise CorpusError(f"{path}, line {number}: {SHOULD}") from None
            except ValueError:
                raise CorpusError(f"{path}, line {number}: {WORDS}") from None
            part = texts.setdefault(key, {})
            if one.id in part:
                raise CorpusError(f"{path}, line {number}: utterance '{one.id}' is there twice")
            part[one.id] = one
        if not texts:
            raise CorpusError(f"{path} holds no texts: {SHOULD}")
        return cls(path, texts)

    @property
    def name(self) -> str:
        """That of the file."""
        return self._path.name

    def methods(self, name: str) -> list[str]:
        """Return those that a set was recognised by; texts that name no set are of any.

        Raises:
            CorpusError: there are none of this set.
        """
        found = list(dict.fromkeys(method for of, method in self._texts if of in (name, None)))
        if not found:
            sets = ", ".join(dict.fromkeys(str(of) for of, _ in self._texts))
            raise CorpusError(f"{self._path} has no texts of set '{name}'; it has those of {sets}")
        return found

    def of(self, name: str, method: str, ids: Iterable[str]) -> list[Recognised]:
        """Return the texts of a set's utterances by a method.

        Raises:
            CorpusError: names an utterance without one; score what a recogniser failed on as an empty text.
        """
        found = self._texts.get((name, method)) or self._texts.get((None, method)) or {}
        wanted = list(ids)
        missing = [identifier for identifier in wanted if identifier not in found]
        if missing:
            raise CorpusError(
                f"{self._path} lacks {len(missing)} of {len(wanted)} utterances of set '{name}' by method '{method}', "
                f"the first '{missing[0]}'; what a recogniser failed on counts as an empty text"
            )
        return [found[identifier] for identifier in wanted]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError
                    yield number, row
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: not UTF-8 text; {SHOULD}") from None
    except ValueError:
        raise CorpusError(f"{path}, line {number}: {SHOULD}") from None
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from None


def _recognised(row: Mapping[str, Any]) -> Recognised:
    text = row["text"] if "text" in row else row["hypothesis"]
    if not isinstance(row["id"], str) or not isinstance(text, str):
        raise TypeError
    return Recognised(row["id"], text, tuple(_heard(word) for word in row.get("words", ())))


def _heard(word: Any) -> Word:
    """Return a word; ValueError for what is none."""
    try:
        found = Word(
            _name(word["text"]) or "", *(float(word[name]) for name in ("start", "end", "confidence"))
        )
    except (KeyError, TypeError):
        raise ValueError from None
    if not (math.isfinite(found.start) and math.isfinite(found.end) and 0 <= found.confidence <= 1):
        raise ValueError
    return found


def _name(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value


def _word(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 4),
    }
