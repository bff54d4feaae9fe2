"""Reading for the teachers: what kills or hangs it is found among the pieces of one recording as anywhere else."""

import errno
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raysr.audio.encode import wav_bytes, write_wav
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.ipl.labelling import block_rows, inputs
from raysr.ipl.labelling.attempts import Attempts
from raysr.ipl.labelling.inputs import Inputs, Needs, Reader
from raysr.ipl.labelling.labeller import Labelling
from raysr.ipl.labelling.ray_recogniser import ReadTask

RETRIES = 1
DYING = """
import json, sys
from pathlib import Path
from test_reading import read
print(json.dumps([one.error for one in read(Path(sys.argv[1]), timeout=0.5)]))
"""


class Unsteady(MemoryFileSystem):
    """A store whose connection is reset some times before it answers."""

    protocol, store = "unsteady", {}
    resets = 0

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        if Unsteady.resets:
            Unsteady.resets -= 1
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return super()._open(*args, **kwargs)


def read(folder: Path, timeout: float | None) -> list[Inputs]:
    """Read the pieces of the folder as a block, with its attempts beside it."""
    pieces = list(open_manifest(folder / "pieces.jsonl"))
    reader = Reader(Needs(True, ()), FeatureCache(folder / "cache"), longest=60.0, retries=0)
    with Attempts(folder / "attempts", RETRIES, timeout).at([u.id for u in pieces]) as attempt:
        return reader(pieces, attempt)


@pytest.fixture
def pieces(tmp_path: Path) -> list[Utterance]:
    """Three pieces of one recording; what is mixed into the middle one is a pipe that nobody writes to."""
    write_wav(tmp_path / "recording.wav", np.full(48000, 0.1))
    os.mkfifo(tmp_path / "pipe.wav")
    noise = {"noise": {"snr_db": 10.0, "file": str(tmp_path / "pipe.wav")}}
    audio = str(tmp_path / "recording.wav")
    made = [
        Utterance(f"piece-{n}", audio, 1.0, start=float(n), mix=noise if n == 1 else None) for n in range(3)
    ]
    write_jsonl(tmp_path / "pieces.jsonl", made)
    return made


def test_one_of_several_pieces_of_a_recording_is_given_up_alone(
    tmp_path: Path, pieces: list[Utterance]
) -> None:
    command = [sys.executable, "-c", DYING, str(tmp_path)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ends = [
        subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, timeout=60)
        for _ in range(RETRIES + 2)
    ]
    assert [end.returncode for end in ends] == [1, 1, 0]
    first, second, third = json.loads(ends[-1].stdout)
    assert (first, third) == (None, None)
    assert second.startswith("reading the audio took longer than recogniser.timeout 2 times: in ")


@pytest.mark.parametrize(("resets", "error"), [(2, None), (3, "Connection reset by peer")])
def test_a_store_that_does_not_answer_is_asked_again(
    tmp_path: Path, resets: int, error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PAUSE_S", 0.01)
    fsspec.register_implementation("unsteady", Unsteady, clobber=True)
    Unsteady().pipe("unsteady://a.wav", wav_bytes(np.full(8000, 0.1)))
    Unsteady.resets = resets
    reader = Reader(Needs(True, ()), FeatureCache(tmp_path / "cache"), longest=60.0, retries=2)
    with Attempts(tmp_path / "attempts", 2, None).at(["a"]) as attempt:
        (found,) = reader([Utterance("a", "unsteady://a.wav", 0.5)], attempt)
    assert (found.waveform is None) == (error is not None)
    assert (error or "") in (found.error or "")
    assert Unsteady.resets == 0


def test_what_is_not_there_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PAUSE_S", 60.0)
    (tmp_path / "text.wav").write_text("not audio")
    names = ["missing.wav", "text.wav", ".", "x" * 300 + ".wav"]
    utterances = [Utterance(name, str(tmp_path / name), 0.5) for name in names]
    reader = Reader(Needs(True, ()), FeatureCache(tmp_path / "cache"), longest=60.0, retries=2)
    started = time.monotonic()
    with Attempts(tmp_path / "attempts", 2, None).at(names) as attempt:
        assert all(one.error for one in reader(utterances, attempt))
    assert time.monotonic() - started < 30


def test_a_task_of_the_same_worker_finds_the_index_of_the_cache_there(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.full(8000, 0.1))
    utterance = Utterance("a", str(tmp_path / "a.wav"), 0.5)
    cache = FeatureCache(tmp_path / "cache")
    assert cache.ensure([utterance]) == {}
    labelling = Labelling([], 0, tmp_path / "predictions", cache, longest=60.0)
    task = pickle.dumps(ReadTask(labelling, Needs(False, (cache.config,))))
    block_rows.write_todo(tmp_path / "todo.parquet", [[utterance]])
    todo = pq.read_table(tmp_path / "todo.parquet")
    first = pickle.loads(task)(todo)
    for segment in cache.folder.glob("*.arrow"):
        segment.unlink()
    changed = tmp_path.joinpath("a.wav").stat()
    (tmp_path / "a.wav").write_bytes(bytes(changed.st_size))  # nothing that could be decoded
    os.utime(tmp_path / "a.wav", ns=(changed.st_atime_ns, changed.st_mtime_ns))
    assert pickle.loads(task)(todo).equals(first)
    assert block_rows.inputs(first)[0].error is None
