"""Reading for the teachers: what kills or hangs it is found among the pieces of one recording as anywhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raysr.audio.encode import write_wav
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.ipl.labelling.attempts import Attempts
from raysr.ipl.labelling.inputs import Inputs, Needs, Reader

RETRIES = 1
DYING = """
import json, sys
from pathlib import Path
from test_reading import read
print(json.dumps([one.error for one in read(Path(sys.argv[1]), timeout=0.5)]))
"""


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
