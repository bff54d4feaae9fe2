"""Manifests of an import that leaves the audio where it lies: JSONL, written in parts that a kill cannot tear."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Self

from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance

MANIFEST = "manifest.jsonl"
_PARTS = "part-*.jsonl"


class ReferenceWriter:
    """Adds utterances to the ``manifest.jsonl`` of ``folder``, part by part; takes the place of a shard writer.

    A context: the parts become one with the manifest when it ends well, and stay for the next run when not.
    """

    def __init__(self, folder: Path, rows_per_part: int = 1024) -> None:
        self._folder = folder
        self._rows_per_part = rows_per_part
        self._rows: list[Utterance] = []
        numbers = [int(path.stem.partition("-")[2]) for path in _parts(folder)]
        self._number = max(numbers, default=-1) + 1

    def add(self, utterance: Utterance, audio: bytes = b"") -> None:
        """Append an utterance that says itself where its audio is."""
        self._rows.append(utterance)
        if len(self._rows) >= self._rows_per_part:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            return
        if self._rows:
            self._flush()
        if _parts(self._folder):
            write_jsonl(self._folder / MANIFEST, read_references(self._folder))
            _remove(self._folder)

    def _flush(self) -> None:
        write_jsonl(self._folder / f"part-{self._number:05d}.jsonl", self._rows)
        self._number += 1
        self._rows = []


def read_references(folder: Path) -> Iterator[Utterance]:
    """Yield what the manifest of ``folder`` and its parts hold."""
    whole = folder / MANIFEST
    return chain.from_iterable(
        open_manifest(path) for path in [*([whole] if whole.exists() else []), *_parts(folder)]
    )


def settle(folder: Path) -> None:
    """Remove the parts that a run which was killed had made one with the manifest, but not removed."""
    parts = _parts(folder)
    if parts and (folder / MANIFEST).exists():
        last = [utterance.id for utterance in open_manifest(parts[-1])][-1]
        if any(utterance.id == last for utterance in open_manifest(folder / MANIFEST)):
            _remove(folder)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(_PARTS))


def _remove(folder: Path) -> None:
    for path in _parts(folder):
        path.unlink()
