"""The endpoint runs its encoder in torch or in onnxruntime, and says the same."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint import Server, messages, pcm16, publish, said

from raysr.errors import ConfigError
from raysr.export.engine import OnnxStep
from raysr.model.chunking import CHUNKING
from raysr.pool import Pool, Recogniser
from raysr.serving.models import ModelWatcher
from raysr.serving.settings import ServingConfig

SAID = "bad cafe, head ache"
WITHOUT_ONNXRUNTIME = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "onnxruntime" else super().find_spec(name, path, target)

sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
from raysr.cli.app import run
raise SystemExit(run(sys.argv[1:]))
"""


def heard(server: Server) -> list[tuple[str, float, float]]:
    with server.listen() as socket:
        socket.send(pcm16(SAID))
        socket.send(json.dumps({"type": "CloseStream"}))
        found = messages(socket)
    return [(said([m]), m["start"], m["duration"]) for m in found if m.get("is_final")]


def test_a_stream_through_onnxruntime_has_the_same_finals(
    start: Callable[..., Server], server: Server
) -> None:
    expected = heard(server)
    assert " ".join(text for text, _, _ in expected).split() == ["bad", "cafe", "head", "ache"]
    assert heard(start(engine="onnx")) == expected


def test_a_replica_exports_the_entry_that_it_takes(tmp_path: Path, recogniser: Recogniser) -> None:
    publish(tmp_path, "one", recogniser, cycle=0)
    watcher = ModelWatcher(str(tmp_path), None, CHUNKING, "onnx-int8")
    assert watcher.poll()
    assert watcher.current is not None
    step = watcher.current.streaming.recogniser.step
    assert isinstance(step, OnnxStep)
    weights = Pool(tmp_path).get("one").weights_hash
    assert (step.about["raysr.entry"], step.about["raysr.weights"]) == ("one", weights)


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="engine"):
        ServingConfig.parse({"pool": str(tmp_path), "engine": "onnx-int4"})


@pytest.mark.parametrize("command", ["serve --pool {pool} engine=onnx", "export {pool} {out}"])
def test_what_is_not_installed_is_named_with_the_mend(pool: Path, tmp_path: Path, command: str) -> None:
    arguments = command.format(pool=pool, out=tmp_path / "out").split()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ONNXRUNTIME, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "ONNX needs onnxruntime: pip install 'raysr[onnx]'" in done.stderr
    assert not list(tmp_path.iterdir())
