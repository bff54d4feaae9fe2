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


@pytest.mark.parametrize("features", ["actor", "tasks"])
def test_only_the_culprits_fail(
    features: str,
    ray_cluster: Connection,
    tmp_path: Path,
    make_corpus: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    good = list(open_manifest(make_corpus(tmp_path, "good", 11)))
    poison = {}
    for length in (EXIT, CRASH, HANG, RAISE):
        path = tmp_path / f"{length}.wav"
        write_wav(path, np.full(length, 0.1))
        poison[length] = Utterance(f"poison-{length}", str(path), length / 16000)
    corpus = open_manifest([*good[:3], *poison.values(), *good[3:]])
    options: dict[str, Any] = {"features": features, "block": 5, "retries": 1, "timeout": 1.0}
    rows = {
        row.id: row for row in label("ray", tmp_path / "run", corpus, "test_poison:Poisonable", **options)
    }
    assert len(rows) == 15
    assert {name for name, row in rows.items() if row.failure} == {u.id for u in poison.values()}
    failures = {length: rows[u.id].failure or "" for length, u in poison.items()}
    assert failures[EXIT].endswith("took the process down 2 times: killed, or out of memory")
    assert "took the process down 2 times: Segmentation fault in loudness (test_poison.py:" in failures[CRASH]
    assert "took longer than recogniser.timeout 2 times: in loudness (test_poison.py:" in failures[HANG]
    assert failures[RAISE] == "poisonable: ValueError: it burns"
    assert not list((tmp_path / "run").glob("attempts/**/*.attempts"))
