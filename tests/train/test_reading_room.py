"""Segments that many write and remove: the bound holds, the longest unused goes first, and no reader is disturbed."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.corpus.segments import SUFFIX, write_segment
from raysr.train.reading.index import SegmentIndex
from raysr.train.reading.room import ABANDONED_S, BoundedFolder


def test_a_mapped_segment_is_read_after_its_removal(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(300, 80)).astype(np.float16)
    write_segment(tmp_path / f"one{SUFFIX}", [b"k" * 16], [features], 80)
    index = SegmentIndex([tmp_path], {b"k" * 16})
    (tmp_path / f"one{SUFFIX}").unlink()
    found = index.find(b"k" * 16)
    assert found is not None
    assert np.array_equal(found, features)
    index.refresh()
    assert index.find(b"k" * 16) is None
    assert np.array_equal(found, features)


def test_an_index_takes_in_what_others_write_and_passes_over_what_is_damaged(tmp_path: Path) -> None:
    index = SegmentIndex([tmp_path], {bytes([n]) * 16 for n in range(3)})
    parts = [np.full((n + 1, 80), n, np.float16) for n in range(4)]
    for n in range(4):
        write_segment(tmp_path / f"{n}{SUFFIX}", [bytes([n]) * 16], [parts[n]], 80)
    damaged = tmp_path / f"1{SUFFIX}"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    index.refresh()
    found = [index.find(bytes([n]) * 16) for n in range(4)]
    assert [None if f is None else f.tolist() for f in found] == [
        parts[0].tolist(),
        None,
        parts[2].tolist(),
        None,
    ]
    used = [index.used(tmp_path / f"{n}{SUFFIX}") for n in range(5)]
    assert used == [1, 0, 1, 0, 1]


class Write(NamedTuple):
    """One segment: how many frames it has, whether it is needed by whoever comes later, and when it was used."""

    frames: int
    needed: bool
    used: int


WRITES = st.lists(
    st.builds(Write, st.integers(1, 200), st.booleans(), st.integers(1, 10**6)),
    max_size=12,
    unique_by=lambda w: w.used,
)


@given(writes=WRITES, max_bytes=st.integers(2_000, 80_000))
def test_the_bound_holds_and_the_longest_unused_goes_first(
    writes: list[Write], max_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("bounded")
    folder = BoundedFolder(root, max_bytes)
    there: dict[Path, tuple[int, Write]] = {}
    for n, write in enumerate(writes):
        path = root / "recipe" / f"{n}{SUFFIX}"
        features = np.zeros((write.frames, 80), np.float16)
        published = folder.publish(path, [bytes(16)], [features], 80, partial(is_needless, there))
        if published:
            os.utime(path, (write.used, write.used))
            size = path.stat().st_size
        else:
            size = _size(write.frames, root)
        expected = published_by(there, path, size, write, max_bytes)
        assert published == (path in expected)
        there = expected
        assert set(root.glob(f"*/*{SUFFIX}")) == set(there)
        assert sum(size for size, _ in there.values()) <= max_bytes
        assert not list(root.glob("*/.*"))


def is_needless(there: dict[Path, tuple[int, Write]], path: Path) -> bool:
    return not there[path][1].needed


def _size(frames: int, root: Path) -> int:
    write_segment(root / "probe" / "one", [bytes(16)], [np.zeros((frames, 80), np.float16)], 80)
    size = (root / "probe" / "one").stat().st_size
    (root / "probe" / "one").unlink()
    return size


def published_by(
    there: dict[Path, tuple[int, Write]], path: Path, size: int, write: Write, max_bytes: int
) -> dict[Path, tuple[int, Write]]:
    """Return what a folder holds after a write, told step by step."""
    needed = sum(s for s, w in there.values() if w.needed)
    if needed + size > max_bytes:
        return there
    left = dict(there)
    while sum(s for s, _ in left.values()) + size > max_bytes:
        del left[min((p for p in left if not left[p][1].needed), key=lambda p: left[p][1].used)]
    return left | {path: (size, write)}


def test_writers_at_once_fill_it_exactly(tmp_path: Path) -> None:
    size = _size(50, tmp_path)
    folder = BoundedFolder(tmp_path, 20 * size + size // 2)
    features = [np.zeros((50, 80), np.float16)]

    def publish(n: int) -> bool:
        path = tmp_path / "recipe" / f"{n}{SUFFIX}"
        return folder.publish(path, [bytes(16)], features, 80, lambda _: False)

    (tmp_path / "other").mkdir()
    for n in range(1000):  # looking through them takes a while, in which others could come in between
        (tmp_path / "other" / f"{n}{SUFFIX}").touch()
    with ThreadPoolExecutor(8) as executor:
        assert sum(executor.map(publish, range(40))) == 20
    assert len(list(tmp_path.glob(f"recipe/*{SUFFIX}"))) == 20


def test_unfinished_segments_of_the_dead_are_removed_after_an_hour(tmp_path: Path) -> None:
    young, old = (tmp_path / "recipe" / f".{name}{SUFFIX}.0.partial" for name in ("young", "old"))
    young.parent.mkdir()
    for path, age in ((young, 0.0), (old, ABANDONED_S + 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    features = [np.zeros((10, 80), np.float16)]
    BoundedFolder(tmp_path, 10**9).publish(
        young.with_name(f"a{SUFFIX}"), [bytes(16)], features, 80, lambda _: False
    )
    assert young.exists()
    assert not old.exists()
