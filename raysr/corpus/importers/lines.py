"""Lines of a corpus's files, each read for itself: a bad one is a problem with its number, never the end."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from raysr.corpus import places
from raysr.corpus.importers.report import Problem

_LONGEST_LINE = 16 << 20


def text_lines(path: str | Path) -> Iterator[tuple[str, str | Problem]]:
    """Yield ``(file:line, text or what is wrong with it)`` of a file in UTF-8, gzipped or not; not the blank ones.

    Raises:
        CorpusError: there is no such file, or it cannot be opened.
    """
    place = str(path)
    name = place.rpartition("/")[2]
    with places.open_binary(place) as raw:
        file = gzip.GzipFile(fileobj=raw) if place.endswith(".gz") else raw
        number = 0
        while True:
            number += 1
            where = f"{name}:{number}"
            try:
                line = _read_line(file)
            except (EOFError, zlib.error, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                yield where, Problem("unreadable line", where, f"the file cannot be read on: {reason}")
                return
            if not line:
                return
            if len(line) > _LONGEST_LINE:
                limit = f"is longer than {_LONGEST_LINE >> 20} MB: a line describes one utterance"
                yield where, Problem("unreadable line", where, limit)
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError:
                yield where, Problem("not UTF-8", where, "not UTF-8 text: save the file as UTF-8")
                continue
            if text.strip():
                yield where, text


def json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    """Yield ``(file:line, object or what is wrong with it)`` of a JSONL file, gzipped or not.

    NaN and numbers too large for a float are read as null, as they can mean nothing else.
    """
    for where, line in text_lines(path):
        if isinstance(line, Problem):
            yield where, line
            continue
        try:
            value = json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
            if "\\u" in line:
                json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
        except json.JSONDecodeError as error:
            reason = f"not JSON ({error.msg} at character {error.colno})"
        except UnicodeEncodeError:
            reason = "holds half a character (a lone surrogate): write it in UTF-8"
        except (ValueError, RecursionError):
            reason = "not JSON of a sensible depth and size"
        else:
            if isinstance(value, dict):
                yield where, value
                continue
            reason = f"a line is one JSON object, not a {type(value).__name__}"
        yield where, Problem("unreadable line", where, reason)


def number(record: dict[str, Any], key: str) -> float | None:
    """Return a number of seconds ≥ 0, None where it is missing; raise ValueError with what is wrong."""
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(f"'{key}' is a number of seconds, not {_short(value)}")
    return float(value)


def whole(record: dict[str, Any], key: str) -> int | None:
    """Return a whole number ≥ 0, None where it is missing; raise ValueError with what is wrong."""
    value = record.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1e9):
        raise ValueError(f"'{key}' is a whole number, not {_short(value)}")
    return value


def string(record: dict[str, Any], key: str) -> str | None:
    """Return a string, None where it is missing; raise ValueError with what is wrong."""
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"'{key}' is a string, not {_short(value)}")
    return value


def label(record: dict[str, Any], key: str) -> str | None:
    """Return a label, which may be written as a number, as a string; None where it is missing or empty."""
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return string(record, key) or None


def _read_line(file: BinaryIO | gzip.GzipFile) -> bytes:
    """Return a line; of one that is too long only so much as shows it."""
    line = file.readline(_LONGEST_LINE + 1)
    if len(line) > _LONGEST_LINE:
        while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
            continue
    return line


def _finite(literal: str) -> float | None:
    value = float(literal)
    return value if math.isfinite(value) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
