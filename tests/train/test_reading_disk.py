"""The cache that fills on the fly: equal to the stream, shared by processes that may die, and bounded."""

import multiprocessing
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from raysr.audio.fbank import FbankConfig
from raysr.corpus.features import FeatureCache
from raysr.corpus.segments import SUFFIX, Segment
from raysr.corpus.utterance import Utterance
from raysr.train.reading.disk import ON_THE_FLY, OnDisk
from raysr.train.reading.stream import Streamed
from tests.train.noise import CONFIG, Counting, files, read, rows

PLENTY = 10**9
FRAME_BYTES = 2 * 80


def on_disk(
    folder: Path,
    utterances: Sequence[Utterance],
    max_bytes: int = PLENTY,
    segment_bytes: int = 1,
    warn: Callable[[str], None] = pytest.fail,
) -> tuple[OnDisk, Counting]:
    counting = Counting()
    return OnDisk(counting, folder / "cache", utterances, max_bytes, warn, segment_bytes), counting


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / ON_THE_FLY).glob(f"*/[!.]*{SUFFIX}"))


def held(folder: Path) -> int:
    """Return the bytes of all that is published."""
    return sum(path.stat().st_size for path in segments(folder))


@pytest.mark.parametrize("segment_bytes", [1, 20_000, PLENTY])
def test_each_is_computed_once_and_found_by_every_later_reader(tmp_path: Path, segment_bytes: int) -> None:
    utterances = [*files(tmp_path / "files", 5), *rows(tmp_path / "shards", 3)]
    expected = read(Streamed(CONFIG), utterances)
    cache, counting = on_disk(tmp_path, utterances, segment_bytes=segment_bytes)
    with cache:
        for _ in range(3):
            assert all(map(torch.equal, read(cache, utterances), expected))
    assert set(counting.computed.values()) == {1}
    later, nothing = on_disk(tmp_path, utterances)
    plain = FeatureCache(tmp_path / "cache" / ON_THE_FLY, CONFIG)
    for reader in (later, plain):
        assert all(map(torch.equal, read(reader, utterances), expected))
    assert not nothing.computed
    assert FeatureCache(tmp_path / "cache", CONFIG).ensure(utterances) == {}
    assert len(segments(tmp_path)) == {1: 8, 20_000: 2, PLENTY: 1}[segment_bytes]


@pytest.mark.parametrize("segment_bytes", [1, 10_000])
def test_threads_share_a_reader(tmp_path: Path, segment_bytes: int) -> None:
    utterances = files(tmp_path / "files", 20, 0.1)
    expected = read(Streamed(CONFIG), utterances)
    cache, _ = on_disk(tmp_path, utterances, segment_bytes=segment_bytes)
    with cache, ThreadPoolExecutor(6) as executor:
        for _ in range(3):
            assert all(map(torch.equal, executor.map(cache.get, utterances), expected))
    later, counting = on_disk(tmp_path, utterances)
    assert all(map(torch.equal, read(later, utterances), expected))
    assert not counting.computed


def test_what_was_ensured_is_read_and_neither_counted_nor_removed(tmp_path: Path) -> None:
    utterances = files(tmp_path / "files", 8)
    ensured = FeatureCache(tmp_path / "cache", CONFIG)
    ensured.ensure(utterances[:4])
    (before,) = ensured.folder.glob(f"*{SUFFIX}")
    told: list[str] = []
    cache, counting = on_disk(tmp_path, utterances, max_bytes=30 * FRAME_BYTES, warn=told.append)
    with cache:
        read(cache, utterances)
    assert set(counting.computed) == {"u4", "u5", "u6", "u7"}
    assert held(tmp_path) <= 30 * FRAME_BYTES
    assert before.exists()
    assert all(utterance in ensured for utterance in utterances[:4])


def test_cached_features_outlive_their_audio_and_changed_audio_is_computed_anew(tmp_path: Path) -> None:
    gone, changed = files(tmp_path / "files", 2)
    cache, counting = on_disk(tmp_path, [gone, changed])
    old = cache.get(gone)
    Path(gone.audio).unlink()
    Path(changed.audio).write_bytes(Path(files(tmp_path / "other", 5, 0.5)[4].audio).read_bytes())
    for _ in range(2):
        assert torch.equal(cache.get(gone), old)
        assert torch.equal(cache.get(changed), Streamed(CONFIG).get(changed))
    assert counting.computed == {"u0": 1, "u1": 2}
    again, _ = on_disk(tmp_path, [changed])
    assert torch.equal(again.get(changed), Streamed(CONFIG).get(changed))


def test_where_all_is_needed_a_full_folder_stays_as_it_is(tmp_path: Path) -> None:
    utterances = files(tmp_path / "files", 10)
    max_bytes = 25_000  # four or five segments of one utterance
    told: list[str] = []
    cache, counting = on_disk(tmp_path, utterances, max_bytes, warn=told.append)
    with cache:
        read(cache, utterances)
        kept = segments(tmp_path)
        assert 2 <= len(kept) < 10
        assert held(tmp_path) <= max_bytes
        for seed in range(3):
            read(cache, random.Random(seed).sample(utterances, 10))
    assert segments(tmp_path) == kept
    assert told == [
        f"{tmp_path / 'cache' / ON_THE_FLY} is full of what this corpus needs: raise reading.disk_gb"
    ]
    assert sorted(counting.computed.values()) == [1] * len(kept) + [4] * (10 - len(kept))


def test_another_corpus_takes_the_room_of_what_it_does_not_need(tmp_path: Path) -> None:
    old, new = files(tmp_path / "old", 4), rows(tmp_path / "new", 8)
    other_bins = OnDisk(Streamed(FbankConfig(mel_bins=40)), tmp_path / "cache", old, PLENTY, pytest.fail, 1)
    other_bins.get(old[0])
    cache, _ = on_disk(tmp_path, old)
    written = []
    for utterance in old:
        before = set(segments(tmp_path))
        cache.get(utterance)
        written += set(segments(tmp_path)) - before
    max_bytes = held(tmp_path)
    told: list[str] = []
    other, _ = on_disk(tmp_path, [*new, old[2]], max_bytes, warn=told.append)
    read(other, new)
    assert len(told) == 1
    assert held(tmp_path) <= max_bytes
    assert set(segments(tmp_path)) & {*before, *written} == {written[2]}


def test_a_segment_of_which_little_is_needed_makes_room_for_what_is_needed(tmp_path: Path) -> None:
    utterances = files(tmp_path / "files", 12)
    cache, _ = on_disk(tmp_path, utterances, segment_bytes=PLENTY)
    with cache:
        read(cache, utterances)
    (mixed,) = segments(tmp_path)
    corpus = [*utterances[:3], *rows(tmp_path / "new", 4)]
    cache, counting = on_disk(tmp_path, corpus, held(tmp_path))
    read(cache, corpus)
    assert counting.computed == {f"r{n}": 1 for n in range(4)}
    assert not mixed.exists()
    for _ in range(2):
        read(cache, corpus)
    assert counting.computed == {u.id: 1 for u in corpus}


def test_a_full_disk_ends_the_writing_and_not_the_training(tmp_path: Path) -> None:
    script = f"""
import resource, pickle, sys
from pathlib import Path
import torch
from raysr.train.reading.disk import OnDisk
from raysr.train.reading.stream import Streamed
from tests.train.noise import CONFIG
utterances = pickle.loads(Path(sys.argv[1]).read_bytes())
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
with OnDisk(Streamed(CONFIG), sys.argv[2], utterances, {PLENTY}, print, 1) as cache:
    for utterance in 2 * utterances:
        assert torch.equal(cache.get(utterance), Streamed(CONFIG).get(utterance))
"""
    (tmp_path / "utterances").write_bytes(pickle.dumps(files(tmp_path / "files", 3)))
    command = [sys.executable, "-c", script, str(tmp_path / "utterances"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"disk full while writing to {tmp_path / 'cache' / ON_THE_FLY}")
    assert not list((tmp_path / "cache").rglob("*.partial"))


def visit(folder: Path, utterances: list[Utterance], max_bytes: int, seed: int, progress: Connection) -> None:
    """Read everything twice in a random order and compare it with the stream."""
    torch.set_num_threads(1)
    with OnDisk(Streamed(CONFIG), folder / "cache", utterances, max_bytes, print, 8_000) as cache:
        for n, utterance in enumerate(random.Random(seed).sample(2 * utterances, 2 * len(utterances))):
            progress.send(n)
            assert torch.equal(cache.get(utterance), Streamed(CONFIG).get(utterance))


@pytest.mark.parametrize("max_bytes", [PLENTY, 60_000])
def test_processes_fill_it_at_once_and_one_is_killed(tmp_path: Path, max_bytes: int) -> None:
    utterances = files(tmp_path / "files", 40, 0.1)
    multiprocessing.set_forkserver_preload(["torch", "numpy"])
    context = multiprocessing.get_context("forkserver")
    pipes = [context.Pipe(duplex=False) for _ in range(3)]
    processes = [
        context.Process(target=visit, args=(tmp_path, utterances, max_bytes, seed, pipes[seed][1]))
        for seed in range(3)
    ]
    for process in processes:
        process.start()
    while pipes[0][0].recv() < 20:
        assert held(tmp_path) <= max_bytes
    processes[0].kill()
    while any(process.is_alive() for process in processes):
        assert held(tmp_path) <= max_bytes
        time.sleep(0.01)
    assert [process.exitcode for process in processes] == [-9, 0, 0]
    assert held(tmp_path) <= max_bytes
    for path in segments(tmp_path):
        Segment(path)
    cache, counting = on_disk(tmp_path, utterances, max_bytes, warn=print)
    assert all(map(torch.equal, read(cache, utterances), read(Streamed(CONFIG), utterances)))
    if max_bytes == PLENTY:
        assert not counting.computed, "two processes have read everything to the end"
    else:
        assert 0 < len(counting.computed) < 40
