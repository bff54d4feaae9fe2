import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysr.audio.fbank import Fbank, FbankConfig
from raysr.audio.files import wav_bytes
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import content_hash, load_waveform
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError

CONFIG = FbankConfig()


def computed(utterance: Utterance) -> torch.Tensor:
    return Fbank(CONFIG)(torch.from_numpy(load_waveform(utterance)))


def assert_same_features(cache: FeatureCache, utterance: Utterance) -> None:
    exact = computed(utterance)
    found = cache.get(utterance)
    assert found.dtype == torch.float32
    assert cache.frames(utterance) == len(found) == len(exact)
    # float16 keeps 11 bits: half a unit in the last place of values below 32 is 2 ** -7.
    assert (found - exact).abs().max() <= 2**-7


@pytest.mark.parametrize("workers", [1, 2])
def test_features_are_those_of_the_waveform(tmp_path: Path, shard, workers: int):
    manifest = open_manifest(shard(9, seconds=20 if workers > 1 else 0.5))
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    told: list[tuple[int, int]] = []
    assert cache.ensure(manifest, workers=workers, progress=lambda *now: told.append(now)) == {}
    assert told[0] == (0, 9)
    assert told[-1] == (9, 9)
    for utterance in list(manifest)[:3]:
        assert_same_features(cache, utterance)


def test_a_segment_of_a_long_file_and_a_mix_have_their_own_features(tmp_path: Path, wav):
    path = str(wav("long.wav", 3.0))
    whole = Utterance("whole", path, 3.0)
    part = Utterance("part", path, 0.5, start=1.25)
    mixed = Utterance("mixed", path, 3.0, mix={"seed": 1, "noise": {"snr_db": 10, "colour": "pink"}})
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    assert cache.ensure([whole, part, mixed]) == {}
    assert len({content_hash(u) for u in (whole, part, mixed)}) == 3
    for utterance in (whole, part, mixed):
        assert_same_features(cache, utterance)
    assert not torch.equal(cache.get(whole), cache.get(mixed))


def test_nothing_is_computed_twice(tmp_path: Path, shard):
    manifest = open_manifest(shard(6))
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    cache.ensure(manifest)
    before = {path.name: path.stat().st_mtime_ns for path in cache.folder.glob("*.arrow")}
    renamed = [Utterance("other", u.audio, u.duration, row=u.row, text="new") for u in manifest]
    FeatureCache(tmp_path / "cache", CONFIG).ensure([*manifest, *renamed])
    assert {path.name: path.stat().st_mtime_ns for path in cache.folder.glob("*.arrow")} == before


def test_a_moved_shard_and_a_pickled_cache_find_their_features(tmp_path: Path, shard):
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    cache.ensure(open_manifest(shard(2)))
    moved = (tmp_path / "shards").rename(tmp_path / "moved")
    for utterance in open_manifest(moved):
        assert utterance in pickle.loads(pickle.dumps(cache))


def test_a_changed_file_and_another_configuration_are_computed_anew(tmp_path: Path, wav):
    utterance = Utterance("a", str(wav("a.wav", 0.5, seed=1)), 0.5)
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    cache.ensure([utterance])
    assert utterance not in FeatureCache(tmp_path / "cache", FbankConfig(mel_bins=40))
    wav("a.wav", 0.5, seed=2)
    with pytest.raises(CorpusError, match="utterance a: no features in"):
        cache.get(utterance)
    cache.ensure([utterance])
    assert_same_features(cache, utterance)


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_audio_is_told_and_stops_nothing(tmp_path: Path, wav, workers: int):
    good = [Utterance(f"good{n}", str(wav(f"{n}.wav", 0.5, n)), 100.0) for n in range(2)]
    text = tmp_path / "text.wav"
    text.write_text("not audio at all\n" * 20)
    short = tmp_path / "short.wav"
    short.write_bytes(wav_bytes(np.zeros(1, np.float32)))
    bad = [
        Utterance("gone", str(tmp_path / "gone.wav"), 1.0),
        Utterance("text", str(text), 100.0),
        Utterance("short", str(short), 1.0),
    ]
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    told: dict[str, str] = {}
    errors = cache.ensure([*bad, *good], workers=workers, on_error=told.__setitem__)
    assert errors == told
    assert set(errors) == {"gone", "text", "short"}
    for name, reason in errors.items():
        assert reason.startswith(f"utterance {name}: ")
        assert "\n" not in reason
    assert all(utterance in cache for utterance in good)


class _Poison:
    """Ends the process that unpickles it, as a crash in native code would."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def test_an_utterance_that_crashes_its_worker_is_found_out(tmp_path: Path, wav):
    path = str(wav("a.wav"))
    several = [Utterance("u0", path, 61.0), Utterance("u1", path, 30.0)]
    poisoned = Utterance("crash", path, 31.0, custom={"poison": _Poison()})
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    errors = cache.ensure([several[0], poisoned, several[1]], workers=2)
    assert list(errors) == ["crash"]
    assert "crashed or ran out of memory" in errors["crash"]
    assert all(utterance in cache for utterance in several)


def test_a_damaged_segment_is_computed_again(tmp_path: Path, shard):
    manifest = open_manifest(shard(3))
    FeatureCache(tmp_path / "cache", CONFIG).ensure(manifest)
    (segment,) = (tmp_path / "cache").glob("*/*.arrow")
    segment.write_bytes(segment.read_bytes()[:-100])
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    assert cache.ensure(manifest) == {}
    for utterance in manifest:
        assert_same_features(cache, utterance)


_ENSURE = """
import sys
from raysr.audio.fbank import FbankConfig
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest
cache = FeatureCache(sys.argv[2], FbankConfig())
errors = cache.ensure(open_manifest(sys.argv[1]), workers=2, progress=lambda *now: print(*now, flush=True))
print(len(errors))
"""


def ensure_in_a_process(manifest: Path, cache: Path) -> "subprocess.Popen[str]":
    """Ensure from a script on standard input: it has no file that a worker could import again."""
    process = subprocess.Popen(
        [sys.executable, "-", str(manifest), str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(_ENSURE)
    process.stdin.close()
    return process


def test_two_writers_at_once_share_the_work(tmp_path: Path, shard):
    folder = shard(8, seconds=20)
    processes = [ensure_in_a_process(folder, tmp_path / "cache") for _ in range(2)]
    outputs = [process.stdout.read().split("\n") for process in processes if process.stdout]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(output[0] for output in outputs) == ["0 8", "8 8"]
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    keys = [key for path in cache.folder.glob("*.arrow") for key in _keys(path)]
    assert len(keys) == len(set(keys)) == 8


def _keys(path: Path) -> list[bytes]:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("key").to_pylist()


def test_a_killed_writer_leaves_whole_segments_and_no_process(tmp_path: Path, shard):
    folder = shard(24, seconds=20)
    process = ensure_in_a_process(folder, tmp_path / "cache")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("3 "):
        assert process.poll() is None
    children = _children(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    (cache.folder / ".half.arrow.0.partial").write_bytes(b"half")
    there = [utterance for utterance in open_manifest(folder) if utterance in cache]
    assert 3 <= len(there) < 24
    for utterance in there[:2]:
        assert_same_features(cache, utterance)
    assert cache.ensure(open_manifest(folder)) == {}
    assert all(utterance in cache for utterance in open_manifest(folder))
    assert not list(cache.folder.glob(".*.partial"))
    deadline = time.monotonic() + 60
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(child) for child in children)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_full_disk_is_one_line(tmp_path: Path, shard):
    folder = shard(4, seconds=20)
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n" + _ENSURE
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(f"raysr.errors.CorpusError: disk full while writing to {tmp_path / 'cache'}")
    )
    assert not list((tmp_path / "cache").glob("*/*.partial"))
