"""Whatever goes wrong with one utterance is in its row, and costs no other."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysr.config import Spec
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError
from raysr.ipl.labelling.labeller import Labeller, Labelling
from raysr.ipl.predictions import Predictions
from raysr.teachers.base import TeacherOutput

LOUD = 0.25


class Fussy:
    """Refuses a whole batch because of one loud utterance in it."""

    name, version = "fussy", "1"

    def __init__(self, config: Any, context: Any) -> None:
        pass

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        if any(np.abs(w).max() > LOUD for w in waveforms):
            raise ValueError("too loud")
        return [TeacherOutput(text="fine") for _ in waveforms]


class Forgetful(Fussy):
    """Answers for the first only."""

    name = "forgetful"

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        return [TeacherOutput(text="fine")]


@pytest.fixture
def utterances(tmp_path: Path, make_corpus: Callable[..., Path]) -> list[Utterance]:
    """Three of tones (loud), one of silence, one missing, one that is text, one of three hours."""
    tones = list(open_manifest(make_corpus(tmp_path, "tones", 3)))
    (tmp_path / "text.wav").write_text("not audio")
    quiet = tmp_path / "quiet.raw"
    import wave

    with wave.open(str(quiet.with_suffix(".wav")), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    return [
        *tones,
        Utterance("quiet", str(tmp_path / "quiet.wav"), 0.5),
        Utterance("missing", str(tmp_path / "missing.wav"), 1.0),
        Utterance("text", str(tmp_path / "text.wav"), 1.0),
        Utterance("hours", str(tmp_path / "quiet.wav"), 3 * 3600.0),
    ]


def label(teachers: list[type], utterances: list[Utterance], folder: Path) -> dict[str, Any]:
    specs = [Spec(kind=f"{teacher.__module__}:{teacher.__qualname__}") for teacher in teachers]
    labelling = Labelling(specs, 0, folder / "out", FeatureCache(folder / "cache"), longest=60.0)
    report = Labeller(labelling, device="cpu")(utterances)
    rows = {row.id: row for row in Predictions(folder / "out")}
    assert set(rows) == {u.id for u in utterances}
    assert report.utterances == len(utterances)
    assert sum(report.failures.values()) == sum(row.failure is not None for row in rows.values())
    return rows


def test_one_bad_utterance_costs_no_other(utterances: list[Utterance], tmp_path: Path) -> None:
    rows = label([Fussy], utterances, tmp_path)
    assert rows["quiet"].label.text == "fine"
    assert rows["quiet"].failure is None
    assert rows["tones-0"].failure == "fussy: ValueError: too loud"
    assert "missing.wav" in rows["missing"].failure
    assert "a text file, not audio" in rows["text"].failure
    assert "10800 s long: cut it" in rows["hours"].failure
    assert all("\n" not in (row.failure or "") for row in rows.values())


def test_another_teacher_steps_in_for_one_that_failed(utterances: list[Utterance], tmp_path: Path) -> None:
    rows = label([Fussy, Forgetful], utterances, tmp_path)
    assert rows["tones-0"].label.text == "fine"
    assert [h.teacher for h in rows["tones-0"].hypotheses] == ["fussy", "forgetful"]
    assert rows["missing"].hypotheses == ()


class Missing(Fussy):
    """Cannot be loaded."""

    def __init__(self, config: Any, context: Any) -> None:
        raise ConfigError("teacher 'missing' needs its package: pip install missing")


def test_who_labelled_is_written_beside_what_was_said(utterances: list[Utterance], tmp_path: Path) -> None:
    label([Fussy, Forgetful], utterances, tmp_path)
    written = json.loads((tmp_path / "out" / "teachers.json").read_text())
    assert [(one["teacher"], one["version"]) for one in written] == [("fussy", "1"), ("forgetful", "1")]
    assert [one["settings"]["kind"].rpartition(":")[2] for one in written] == ["Fussy", "Forgetful"]


def test_a_teacher_that_cannot_load_ends_it_before_anything_is_labelled(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^teacher 'missing' needs its package: pip install missing$"):
        label([Fussy, Missing], utterances, tmp_path)
    assert not (tmp_path / "out").exists()


class Broken(Fussy):
    """Its library raises whatever it likes."""

    def __init__(self, config: Any, context: Any) -> None:
        raise RuntimeError("CUDA error:\n out of memory")


def test_whatever_a_library_raises_while_it_loads_is_one_line(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"Broken' cannot be loaded \(RuntimeError: CUDA error: out of memory\)$"
    ):
        label([Broken], utterances, tmp_path)
