"""Who was it? What a dead process leaves behind says so, however it died."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from raysr.errors import CorpusError
from raysr.ipl.labelling.attempts import Attempt, Attempts

NAMES = ["a", "b", "c"]
DYING = """
import ctypes, faulthandler, os, signal, sys, time
from pathlib import Path
from raysr.ipl.labelling.attempts import Attempts

def hang_with_the_lock():
    ctypes.PyDLL(None).sleep(600)  # a library that never gives Python's lock back

with Attempts(Path(sys.argv[1]), 2, float(sys.argv[2])).at(["a", "b", "c"]) as attempt:
    attempt.step(["a", "b", "c"], "reading")
    attempt.step(sys.argv[3].split(), "transcribing")
    {last}
"""


def die(folder: Path, last: str, names: str = "b", timeout: float = 60.0) -> None:
    command = [sys.executable, "-c", DYING.format(last=last), str(folder), str(timeout), names]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0


def deaths(folder: Path, retries: int = 2) -> Attempt:
    with Attempts(folder, retries, None).at(NAMES) as attempt:
        return attempt


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("os._exit(1)", "killed, or out of memory"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed, or out of memory"),
        ("faulthandler._sigsegv()", "Segmentation fault in <module> (<string>:12)"),
        ("attempt.lost('CUDA error')", "CUDA error"),
    ],
)
def test_a_death_is_known_by_its_step(tmp_path: Path, last: str, reason: str) -> None:
    die(tmp_path, last)
    (death,) = deaths(tmp_path).deaths
    assert (death.names, death.doing, death.timed_out) == ({"b"}, "transcribing", False)
    assert death.reason == reason


def test_a_library_that_holds_the_lock_for_ever_is_ended(tmp_path: Path) -> None:
    die(tmp_path, "hang_with_the_lock()", timeout=0.3)
    (death,) = deaths(tmp_path).deaths
    assert death.timed_out
    assert death.reason == "in hang_with_the_lock (<string>:7)"


def test_a_block_that_comes_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    assert deaths(tmp_path).deaths == []
    with suppress(KeyError), Attempts(tmp_path, 2, 60.0).at(NAMES) as attempt:
        attempt.step(NAMES, "transcribing")
        raise KeyError("an error is no death")
    assert list(tmp_path.iterdir()) == []
    assert deaths(tmp_path).deaths == []


def test_one_death_is_no_proof_and_a_second_one_is(tmp_path: Path) -> None:
    die(tmp_path, "os._exit(1)", "a b c")
    die_again = Attempts(tmp_path, 2, None)
    with die_again.at(NAMES) as attempt:
        assert not attempt.one_by_one
    die(tmp_path, "os._exit(1)", "a b c")
    die(tmp_path, "os._exit(1)", "a b c")
    with die_again.at(NAMES) as attempt:
        assert attempt.one_by_one
        assert attempt.given_up("transcribing") == {}


def test_what_takes_too_long_together_is_tried_alone_at_once(tmp_path: Path) -> None:
    die(tmp_path, "time.sleep(60)", "a b c", timeout=0.1)
    assert deaths(tmp_path).one_by_one


def test_it_is_given_up_when_it_has_died_alone_and_often_enough(tmp_path: Path) -> None:
    for names in ("a b c", "a b c", "b"):
        die(tmp_path, "os._exit(1)", names)
    (name, given_up), *others = deaths(tmp_path, retries=2).given_up("transcribing").items()
    assert (name, given_up.kind, others) == ("b", "death", [])
    assert given_up.reason == "transcribing took the process down 3 times: killed, or out of memory"


def test_a_torn_line_is_no_death(tmp_path: Path) -> None:
    die(tmp_path, "os._exit(1)")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    assert deaths(tmp_path).deaths == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="cannot write to"):
        deaths(tmp_path / "file" / "folder")
