"""Teachers transcribe real speech, survive odd audio, and answer the same whatever came before."""

import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.evaluate.wer import score, total
from raysr.teachers.base import TEACHERS, Teacher, TeacherContext

moonshine_voice = pytest.importorskip("moonshine_voice")
pytest.importorskip("pocketsphinx")

REFERENCE = "ever tried ever failed no matter try again fail again fail better"
ODD = {"nothing": 0, "one sample": 1, "a hundredth of a second": 160, "a second of silence": 16000}


@pytest.fixture(scope="module")
def beckett() -> np.ndarray:
    """Ten seconds of a person reading, from the teacher's own wheel."""
    path = Path(moonshine_voice.__file__).parent / "assets" / "beckett.wav"
    with wave.open(str(path)) as file:
        assert file.getframerate() == 16000
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


@pytest.fixture(scope="module", params=["pocketsphinx", "moonshine"])
def teacher(request: pytest.FixtureRequest) -> Teacher:
    built: Any = TEACHERS.build(Spec(kind=request.param), TeacherContext())
    return built


def test_speech_is_transcribed_and_normalised(teacher: Teacher, beckett: np.ndarray) -> None:
    [output] = teacher.transcribe([beckett])
    wer = total(s.words for s in score(["a"], [REFERENCE], [output.text])).rate
    assert output.error is None
    assert wer is not None
    # an Irish actor: hard for a small American HMM, easy for the neural model
    assert wer < {"moonshine": 0.35, "pocketsphinx": 1.2}[teacher.name]
    assert output.text == output.text.lower()
    assert "." not in output.text
    if teacher.name == "pocketsphinx":
        assert output.normalised_score is not None
        assert output.normalised_score <= 0
        assert all(0 <= c <= 1 for c in output.confidences)


def test_what_came_before_changes_nothing(teacher: Teacher, beckett: np.ndarray) -> None:
    part = beckett[16000:64000]
    [alone] = teacher.transcribe([part])
    noise = np.random.default_rng(0).normal(0, 0.2, 16000).astype(np.float32)
    assert teacher.transcribe([beckett, noise, part])[2] == alone


@pytest.mark.parametrize("samples", ODD.values(), ids=ODD.keys())
def test_odd_audio_is_no_error(samples: int, teacher: Teacher) -> None:
    [output] = teacher.transcribe([np.zeros(samples, np.float32)])
    assert output.error is None


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'dictionary'"):
        TEACHERS.check(Spec(kind="pocketsphinx", dictionry="x"))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("pocketsphinx", "pocketsphinx", "teachers"),
        ("moonshine", "moonshine_voice", "teachers"),
        ("whisper", "faster_whisper", "whisper"),
        ("transformers", "transformers", "transformers"),
    ],
)
def test_a_missing_package_is_told_with_the_command_that_brings_it(
    kind: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    options = {"model": "any"} if kind in ("whisper", "transformers") else {}
    with pytest.raises(
        ConfigError, match=rf"^teacher '{kind}' needs its package: pip install 'raysr\[{extra}\]'$"
    ):
        TEACHERS.build(Spec(kind=kind, **options), TeacherContext())
