"""Labelling on Ray: the same predictions as in one process, and each once though an actor dies."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raysr import cluster
from raysr.audio.fbank import FbankConfig
from raysr.cluster import Connection
from raysr.config import Spec
from raysr.corpus.manifest import Manifest, open_manifest
from raysr.errors import RunError
from raysr.ipl.labelling import ray_recogniser
from raysr.ipl.plugins import RECOGNISERS
from raysr.ipl.predictions import Prediction
from raysr.ipl.progress import Progress
from raysr.pool import Pool
from raysr.teachers.base import TeacherOutput

pytestmark = pytest.mark.ray
FLAG = Path(tempfile.gettempdir()) / f"raysr-test-flag-{os.getuid()}"


class Loudness:
    """Says how loud an utterance is; the first one to see the flag file removes it and dies."""

    name, version = "loudness", "1"

    def __init__(self, config: Any, context: Any) -> None:
        pass

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        if FLAG.exists():
            FLAG.unlink()
            os._exit(1)
        return [TeacherOutput(text=f"{np.abs(w).sum():.0f}") for w in waveforms]


class Remote:
    """Takes its time, and says so."""

    name, version = "remote", "1"

    @classmethod
    def patience(cls, config: Any) -> float:
        return 60.0

    def __init__(self, config: Any, context: Any) -> None:
        pass

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        time.sleep(4 * len(waveforms))
        return [TeacherOutput(text="at last") for _ in waveforms]


def label(
    kind: str,
    folder: Path,
    corpus: Manifest,
    teacher: str = "test_ray_recogniser:Loudness",
    **options: Any,
) -> list[Prediction]:
    context = SimpleNamespace(
        cycle=0,
        folder=folder,
        cache=folder / "cache",
        features=FbankConfig(),
        progress=Progress(quiet=True),
        pool=Pool(folder.parents[1] / "pool"),
    )
    recogniser = RECOGNISERS.build(Spec(kind=kind, **{"block": 4} | options), context)
    return list(recogniser(corpus, [Spec(kind=teacher)]))


def test_an_actor_that_dies_costs_and_doubles_nothing(
    ray_cluster: Connection, tmp_path: Path, make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    corpus = open_manifest(make_corpus(tmp_path, "many", 18))
    FLAG.unlink(missing_ok=True)
    here = label("local", tmp_path / "local", corpus)
    FLAG.touch()
    there = label("ray", tmp_path / "ray", corpus)
    assert not FLAG.exists()
    assert there == here
    assert len(list((tmp_path / "ray" / "predictions").glob("*.parquet"))) == 5
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "ray" / "predictions").iterdir()}
    assert label("ray", tmp_path / "ray", corpus) == here
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "ray" / "predictions").iterdir()}


def test_a_teacher_that_takes_its_time_is_not_ended_before_its_patience(
    ray_cluster: Connection, tmp_path: Path, make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    corpus = open_manifest(make_corpus(tmp_path, "few", 2))
    rows = label("ray", tmp_path / "ray", corpus, "test_ray_recogniser:Remote", timeout=2.0, retries=0)
    assert [row.failure for row in rows] == [None, None]


def test_a_cluster_without_room_is_told_in_one_line(
    ray_cluster: Connection, tmp_path: Path, make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "NO_PROGRESS_S", 3)
    monkeypatch.setattr(ray_recogniser, "START_UP_S", 1.0)
    corpus = open_manifest(make_corpus(tmp_path, "few", 3))
    with pytest.raises(
        RunError, match=r"^labelling failed: no block came to its end .*; start again to go on"
    ):
        label("ray", tmp_path / "ray", corpus, timeout=0.01, actors={"cpus": 1000})
