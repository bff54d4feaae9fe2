"""An utterance that takes its teacher's process down, or never comes back, is one failed row and costs no other."""

import faulthandler
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ray_recogniser import label

from raysr.audio.encode import write_wav
from raysr.cluster import Connection
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.teachers.base import TeacherOutput

pytestmark = pytest.mark.ray
EXIT, CRASH, HANG, RAISE = 4000, 4800, 5600, 6400  # samples, by which the teacher knows its poison
EXPECTED = {
    EXIT: "took the process down 2 times: killed, or out of memory",
    CRASH: "took the process down 2 times: Segmentation fault in loudness (test_poison.py:",
    HANG: "took longer than recogniser.timeout 2 times: in loudness (test_poison.py:",
    RAISE: "poisonable: ValueError: it burns",
}


class Poisonable:
    """Says how loud an utterance is, unless it has one of four lengths."""

    name, version = "poisonable", "1"

    def __init__(self, config: Any, context: Any) -> None:
        pass

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        return [TeacherOutput(text=self.loudness(w)) for w in waveforms]

    def loudness(self, waveform: np.ndarray) -> str:
        if len(waveform) == EXIT:
            os._exit(1)
        if len(waveform) == CRASH:
            faulthandler._sigsegv()
        while len(waveform) == HANG:
            time.sleep(1)
        if len(waveform) == RAISE:
            raise ValueError("it burns")
        return f"{np.abs(waveform).sum():.0f}"


@pytest.mark.parametrize(("features", "lengths"), [("actor", [EXIT, CRASH, HANG, RAISE]), ("tasks", [EXIT])])
def test_only_the_culprits_fail(
    features: str,
    lengths: list[int],
    ray_cluster: Connection,
    tmp_path: Path,
    make_corpus: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    good = list(open_manifest(make_corpus(tmp_path, "good", 11)))
    poison = [Utterance(f"poison-{n}", str(tmp_path / f"{n}.wav"), n / 16000) for n in lengths]
    for length in lengths:
        write_wav(tmp_path / f"{length}.wav", np.full(length, 0.1))
    corpus = open_manifest([*good[:3], *poison, *good[3:]])
    options: dict[str, Any] = {"features": features, "block": 4, "retries": 1, "timeout": 3.0}
    rows = label("ray", tmp_path / "run", corpus, "test_poison:Poisonable", **options)
    failures = {row.id: row.failure for row in rows if row.failure}
    assert len(rows) == len(corpus)
    assert set(failures) == {u.id for u in poison}
    for length in lengths:
        assert EXPECTED[length] in failures[f"poison-{length}"]
    assert not list((tmp_path / "run").glob("attempts/**/*.attempts"))
