"""Whisper on CTranslate2: a tiny one with random weights, read in batches as it is read alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.teachers.base import TEACHERS, TeacherContext
from raysr.text.normalise import normalise

faster_whisper = pytest.importorskip("faster_whisper")
tiny_models = pytest.importorskip("tests.teachers.tiny_models")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    saved = tiny_models.save_whisper(folder / "saved")
    return tiny_models.convert_whisper(saved, folder / "tiny.en")


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    lengths = (16000, 9001, 40000, 31999, 16001)
    return [generator.normal(0, 0.02 * n, samples).astype(np.float32) for n, samples in enumerate(lengths, 1)]


def teacher(model: Path, **options: Any) -> Any:
    options = {"most_tokens": 40, "no_speech": None, **options}
    return TEACHERS.build(Spec(kind="whisper", model=str(model), **options), TeacherContext())


def test_a_batch_is_read_as_the_library_reads_each_alone(model: Path, waveforms: list[np.ndarray]) -> None:
    library = faster_whisper.WhisperModel(str(model), cpu_threads=1)
    outputs = teacher(model, batch=3).transcribe(waveforms)
    assert any(output.text for output in outputs)
    assert len({output.normalised_score for output in outputs}) == len(outputs)
    plain: dict[str, Any] = {"language": "en", "temperature": 0.0, "without_timestamps": True}
    plain |= {"max_new_tokens": 40, "no_speech_threshold": None}
    for output, wave in zip(outputs, waveforms, strict=True):
        [alone] = list(library.transcribe(wave, **plain)[0])
        assert output.text == normalise(alone.text)
        assert output.normalised_score == pytest.approx(alone.avg_logprob, abs=1e-3)
        aligned = next(library.transcribe(wave, word_timestamps=True, **plain)[0])
        expected = [w.probability for w in aligned.words for _ in normalise(w.word).split()]
        assert output.confidences == pytest.approx(expected, abs=1e-4)


def test_neither_the_batch_nor_the_order_changes_a_label(model: Path, waveforms: list[np.ndarray]) -> None:
    together = teacher(model, batch=8).transcribe(waveforms)
    backwards = teacher(model, batch=2).transcribe(waveforms[::-1])[::-1]
    for one, other in zip(together, backwards, strict=True):
        assert one.text == other.text
        assert one.normalised_score == pytest.approx(other.normalised_score, abs=1e-3)


def test_what_is_too_short_is_empty_and_what_is_long_is_read_on(model: Path) -> None:
    generator = np.random.default_rng(3)
    minute = generator.normal(0, 0.1, 60 * 16000).astype(np.float32)
    nothing, click, long = teacher(model, word_confidences=False).transcribe(
        [np.zeros(0, np.float32), np.zeros(160, np.float32), minute]
    )
    assert (nothing.text, click.text) == ("", "")
    assert long.normalised_score is not None
    assert long.normalised_score < 0
    assert long.confidences == ()


def test_what_is_likely_no_speech_is_empty(model: Path, waveforms: list[np.ndarray]) -> None:
    heard = teacher(model).transcribe(waveforms)
    doubtful = [n for n, o in enumerate(heard) if o.text and (o.normalised_score or 0) < -1]
    assert doubtful
    judged = teacher(model, no_speech=0.0).transcribe(waveforms)
    for n, (before, after) in enumerate(zip(heard, judged, strict=True)):
        assert after.text == ("" if n in doubtful else before.text)


def test_its_name_and_version_are_those_of_the_weights(model: Path, tmp_path: Path) -> None:
    one = teacher(model)
    assert one.name == "whisper:tiny.en"
    assert one.version == teacher(model).version
    other = tmp_path / "other"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = bytearray((other / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (other / "model.bin").write_bytes(weights)
    assert teacher(other).version != one.version


def test_a_model_that_cannot_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "gone"), "no-such-size"):
        with pytest.raises(ConfigError, match=r"teacher 'whisper': model '.*' cannot be loaded") as caught:
            teacher(Path(name))
        assert "\n" not in str(caught.value)


def test_scores_are_logarithms_per_token(model: Path, waveforms: list[np.ndarray]) -> None:
    for output in teacher(model).transcribe(waveforms):
        assert output.normalised_score is not None
        assert -math.log(2000) * 2 < output.normalised_score < 0
        assert all(0 <= c <= 1 for c in output.confidences)
