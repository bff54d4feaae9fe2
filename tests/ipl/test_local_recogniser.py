"""Labelling in one process: a crash ends the run, and the starts after it find out who it was."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from raysr.audio.encode import write_wav
from raysr.audio.fbank import FbankConfig
from raysr.config import Spec
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.ipl.labelling.recogniser import LocalRecogniser, RecogniserConfig
from raysr.ipl.predictions import Predictions
from raysr.ipl.progress import Progress
from raysr.teachers.base import TeacherOutput

POISON, RETRIES = 4000, 2  # samples, by which the teacher knows it
SOUND = 40


class Deadly:
    """Ends its process at the poison."""

    name, version = "deadly", "1"

    def __init__(self, config: Any, context: Any) -> None:
        pass

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        if any(len(w) == POISON for w in waveforms):
            os._exit(1)
        return [TeacherOutput(text="fine") for _ in waveforms]


class Broken(Deadly):
    """Loses its GPU at the poison, and answers nothing from then on."""

    name, lost = "broken", False

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        self.lost = self.lost or any(len(w) == POISON for w in waveforms)
        if self.lost:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return [TeacherOutput(text="fine") for _ in waveforms]


def label(folder: Path, teacher: str) -> Predictions:
    context: Any = SimpleNamespace(
        cycle=0, folder=folder, cache=folder / "cache", features=FbankConfig(), progress=Progress(quiet=True)
    )
    recogniser = LocalRecogniser(RecogniserConfig(block=4, retries=RETRIES), context)
    return recogniser(open_manifest(folder / "corpus.jsonl"), [Spec(kind=f"test_local_recogniser:{teacher}")])


def start(folder: Path, teacher: str) -> subprocess.CompletedProcess[str]:
    """Label the folder's corpus in a process of its own."""
    told = f"import sys, pathlib, test_local_recogniser as t; t.label(pathlib.Path(sys.argv[1]), '{teacher}')"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", told, str(folder)]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def write_corpus(folder: Path) -> None:
    """Write sound utterances of many lengths and, among them, one that is poison."""
    lengths = np.random.default_rng(5).permutation([POISON, *range(2050, 2050 + 100 * SOUND, 100)])
    for n, length in enumerate(lengths):
        write_wav(folder / f"{n}.wav", np.full(length, 0.1))
    utterances = [
        Utterance(f"u{n}", str(folder / f"{n}.wav"), int(length) / 16000) for n, length in enumerate(lengths)
    ]
    write_jsonl(folder / "corpus.jsonl", utterances)


def test_a_poison_is_found_in_as_many_starts_as_it_has_tries(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    starts = 1
    while start(tmp_path, "Deadly").returncode:
        starts += 1
        assert starts <= RETRIES + 2
    rows = list(Predictions(tmp_path / "predictions"))
    assert len(rows) == SOUND + 1
    (failed,) = (row for row in rows if row.failure)
    assert failed.duration == POISON / 16000
    assert "transcribing it took the process down 3 times" in (failed.failure or "")
    assert not (tmp_path / "attempts").exists()


def test_a_lost_gpu_ends_the_run_and_costs_no_sound_utterance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    write_corpus(tmp_path)
    for _ in range(RETRIES + 1):
        with pytest.raises(
            RunError, match=r"the GPU is lost .*illegal memory access.*; start again to go on"
        ):
            label(tmp_path, "Broken")
        assert all(row.failure is None for row in Predictions(tmp_path / "predictions"))
    (failed,) = (row for row in label(tmp_path, "Broken") if row.failure)
    assert failed.duration == POISON / 16000
    assert "3 times: AcceleratorError: CUDA error: an illegal memory access" in (failed.failure or "")
