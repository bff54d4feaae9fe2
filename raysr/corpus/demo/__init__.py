"""The corpus that ships with raysr: synthesised meeting talk to try, test and measure every part with."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from raysr.corpus.manifest import Manifest, load_truth, open_manifest
from raysr.errors import CorpusError

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class DemoCorpus:
    """A corpus as ``raysr.corpus.demo.build`` writes it; ``corpus.json`` in its folder describes it."""

    folder: Path

    @property
    def labelled(self) -> Manifest:
        """Clean speech of few voices, with transcripts that hold no open names."""
        return self._part("labelled")

    @property
    def unlabelled(self) -> Manifest:
        """Speech of many other voices without transcripts, most of it with rooms, noise or music."""
        return self._part("unlabelled")

    @cached_property
    def truth(self) -> dict[str, str]:
        """What the unlabelled speech says, id → text: for scoring only."""
        return load_truth(self.folder / "unlabelled")

    @property
    def dev(self) -> dict[str, Manifest]:
        """``clean`` and ``music``: what decoder weights and filters are chosen on."""
        return self._conditions("dev")

    @property
    def tests(self) -> dict[str, Manifest]:
        """``clean`` and ``music``: the same speech; ``engine``: an engine that training never heard."""
        return self._conditions("tests")

    @property
    def open_names(self) -> frozenset[str]:
        """Names of people, places and projects that no labelled transcript holds."""
        return frozenset(self.description["open_names"])

    @cached_property
    def description(self) -> dict[str, Any]:
        """What ``corpus.json`` says: parts with their voices, conditions, open names."""
        try:
            description: dict[str, Any] = json.loads(
                (self.folder / "corpus.json").read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            mend = f"build one with `python -m raysr.corpus.demo.build {self.folder}`"
            raise CorpusError(f"{self.folder}: no demo corpus here; {mend}") from None
        return description

    @cached_property
    def hash(self) -> str:
        """SHA-256 over every file's name and content."""
        total = hashlib.sha256()
        for path in sorted(p for p in self.folder.rglob("*") if p.suffix in {".parquet", ".json", ".jsonl"}):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(self.folder).as_posix()} {content}\n".encode())
        return total.hexdigest()

    def _part(self, name: str) -> Manifest:
        if name not in self.description["parts"]:
            raise CorpusError(f"{self.folder}: corpus.json describes no part '{name}'")
        return open_manifest(self.folder / name)

    def _conditions(self, group: str) -> dict[str, Manifest]:
        conditions = self.description[group]
        return {name: _under(name, self._part(c["shards"]), c["mix"]) for name, c in conditions.items()}


def demo_corpus(folder: Path = DATA) -> DemoCorpus:
    """Return the corpus that ships with raysr, or one that was built in ``folder``."""
    return DemoCorpus(Path(folder))


def _under(name: str, manifest: Manifest, mix: Mapping[str, Any] | None) -> Manifest:
    """Return the utterances under a condition, each with a seed, and so music, of its own."""
    if mix is None:
        return manifest
    return open_manifest(
        [
            replace(
                u,
                id=f"{u.id}-{name}",
                mix={**mix, "seed": zlib.crc32(u.id.encode())},
                tags={**u.tags, "mix": name},
            )
            for u in manifest
        ]
    )
