"""Which utterances are of the same recording: in one file, or in copies of it under other names, in shards or not.

Copies are known by the hash of their encoded bytes. Hashing reads audio, so it is asked for only where lengths leave
the question open, and what was hashed is remembered in a file.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from raysr.audio.files import probe
from raysr.corpus import places, shards
from raysr.corpus.load import encoded
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError

OVERLAP_S = 0.05
"""Segments of one recording that share no more than this are different audio: cuts are rounded."""
TICK_S = 0.01
"""Durations of copies differ by no more than this: manifests round them."""
BLOCK = 1 << 20
RECORDING_S = "recording_s"
"""The key in ``custom`` of a piece under which it has the length of its whole recording, in seconds."""


class Digests:
    """Hashes of encoded audio, kept in a JSONL file for as long as the audio does not change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, tuple[int, str]] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def of(self, utterance: Utterance) -> tuple[int, str] | None:
        """Return the size in bytes and the SHA-256 of an utterance's recording; None where it cannot be read."""
        try:
            key = json.dumps([utterance.audio, utterance.row, *places.version(utterance.audio)])
            found = self._known.get(key) or _hashed(utterance)
        except Exception:  # damaged shards may raise anything
            return None
        if key not in self._known:
            self._remember(key, *found)
        return found

    def _remember(self, key: str, size: int, digest: str) -> None:
        self._known[key] = size, digest
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, size, digest]) + "\n")

    def _read(self, line: str) -> None:
        try:
            key, size, digest = json.loads(line)
        except (ValueError, TypeError):
            return  # torn by a crash: hashed again
        self._known[key] = size, digest


class HeldOut:
    """The utterances of sets that nothing may be trained on, to be looked for in other corpora.

    Args:
        sets: name → utterances.
        digests: of this machine's audio.
    """

    def __init__(self, sets: Mapping[str, Iterable[Utterance]], digests: Digests) -> None:
        self._digests = digests
        self._places: dict[str, list[tuple[str, Utterance]]] = {}
        for name, utterances in sets.items():
            for utterance in utterances:
                self._places.setdefault(_place(utterance), []).append((name, utterance))
        self._content: dict[str, list[str]] | None = None
        self._sizes: set[int] = set()

    def holds(self, utterance: Utterance) -> str | None:
        """Return which held-out utterance has audio of this one; None when none has."""
        place = _place(utterance)
        found = self._overlapping(place, utterance)
        if found:
            return "{}: the same recording as '{}'".format(*found)
        if place not in self._places and not self._may_be_copied(utterance):
            return None
        hashed = self._digests.of(utterance)
        for other in self._contents().get(hashed[1], ()) if hashed else ():
            found = self._overlapping(other, utterance)
            if found:
                return "{}: a copy of '{}'".format(*found)
        return None

    def _overlapping(self, place: str, utterance: Utterance) -> tuple[str, str] | None:
        for name, held in self._places.get(place, ()):
            if overlap(held, utterance):
                return name, held.id
        return None

    def _may_be_copied(self, utterance: Utterance) -> bool:
        """Tell by its length whether a recording can be one of ours: a file's in bytes, a row's in seconds.

        A piece of a recording whose length nobody tells can be of any.
        """
        if utterance.row is None and not places.is_uri(utterance.audio):
            try:
                self._contents()
                return places.version(utterance.audio)[0] in self._sizes
            except CorpusError:
                return False
        whole = utterance.custom.get(RECORDING_S)
        if not isinstance(whole, int | float):
            if utterance.start:
                return True
            whole = utterance.duration
        tick = _tick(whole)
        return not self._ticks.isdisjoint((tick - 1, tick, tick + 1))

    @cached_property
    def _ticks(self) -> set[int]:
        """The lengths of all held-out recordings: as they say themselves, since what is held out may be a part."""
        lengths = {held.duration for held_here in self._places.values() for _, held in held_here}
        for (_, held), *_ in self._places.values():
            with suppress(Exception):  # damaged audio has the length that its manifest says
                lengths.add(probe(encoded(held), name=held.audio).duration or held.duration)
        return {_tick(seconds) for seconds in lengths}

    def _contents(self) -> dict[str, list[str]]:
        """Return the places of every held-out recording by its hash."""
        if self._content is None:
            self._content = {}
            for place, held in self._places.items():
                hashed = self._digests.of(held[0][1])
                if hashed:
                    self._sizes.add(hashed[0])
                    self._content.setdefault(hashed[1], []).append(place)
        return self._content


def copies(utterances: Iterable[Utterance], digests: Digests) -> Iterator[tuple[str, str]]:
    """Yield (id, id of the one that stays) of utterances whose audio an earlier one has; earlier is a smaller id.

    One recording under two mixes is two.
    """
    placed = [(u, _place(u)) for u in sorted(utterances, key=lambda u: u.id)]
    ticks: dict[int, set[str]] = {}
    for u, place in placed:
        ticks.setdefault(_tick(u.duration), set()).add(place)
    staying: dict[str, list[Utterance]] = {}  # by place, and by hash where one was needed
    for u, place in placed:
        near = (ticks.get(_tick(u.duration) + step, set()) for step in (-1, 0, 1))
        alone = all(others <= {place} for others in near)
        hashed = None if alone else digests.of(u)
        groups = [staying.setdefault(name, []) for name in ([place, hashed[1]] if hashed else [place])]
        known = next((o for group in groups for o in group if o.mix == u.mix and overlap(o, u)), None)
        if known is not None:
            yield u.id, known.id
            continue
        for group in groups:
            group.append(u)


def overlap(one: Utterance, other: Utterance) -> bool:
    """Tell whether two segments of one recording share audio."""
    shared = min(one.start + one.duration, other.start + other.duration) - max(one.start, other.start)
    return shared > min(OVERLAP_S, 0.5 * one.duration, 0.5 * other.duration)


def _place(utterance: Utterance) -> str:
    """Return where a recording lies, links followed; a row of a shard that raysr wrote wherever the shard lies."""
    audio = utterance.audio if places.is_uri(utterance.audio) else os.path.realpath(utterance.audio)
    if utterance.row is None:
        return audio
    try:
        return f"{shards.fingerprint(audio) or audio}#{utterance.row}"
    except CorpusError:
        return f"{audio}#{utterance.row}"


def _tick(seconds: float) -> int:
    return round(seconds / TICK_S)


def _hashed(utterance: Utterance) -> tuple[int, str]:
    """Return size and SHA-256 of the encoded audio; files are read in blocks, since recordings may be hours long."""
    if utterance.row is not None:
        audio = shards.read_audio(utterance.audio, utterance.row)
        return len(audio), hashlib.sha256(audio).hexdigest()
    size, digest = 0, hashlib.sha256()
    with places.open_binary(utterance.audio) as file:
        while block := file.read(BLOCK):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()
