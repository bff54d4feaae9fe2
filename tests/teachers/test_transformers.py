"""Models of the transformers library with random weights: the library's own texts, with scores that can be checked."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.teachers.base import TEACHERS, TeacherContext
from raysr.text.normalise import normalise

transformers = pytest.importorskip("transformers")
tiny_models = pytest.importorskip("tests.teachers.tiny_models")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("transformers")
    return {
        "masked": tiny_models.save_ctc(folder / "masked", normalised_by_mask=True),
        "unmasked": tiny_models.save_ctc(folder / "unmasked", normalised_by_mask=False),
        "whisper": tiny_models.save_whisper(folder / "whisper"),
    }


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, n).astype(np.float32) for n in (16000, 9001, 40000, 31999)]


def teacher(model: Path, **options: Any) -> Any:
    return TEACHERS.build(Spec(kind="transformers", model=str(model), **options), TeacherContext())


@pytest.mark.parametrize("kind", ["masked", "unmasked", "whisper"])
def test_texts_are_those_of_the_librarys_pipeline(
    kind: str, models: dict[str, Path], waveforms: list[np.ndarray]
) -> None:
    library = transformers.pipeline("automatic-speech-recognition", model=str(models[kind]))
    more = {"generate_kwargs": {"num_beams": 1}} if kind == "whisper" else {}
    outputs = teacher(models[kind], batch=3).transcribe(waveforms)
    for output, wave in zip(outputs, waveforms, strict=True):
        text = normalise(library({"raw": wave, "sampling_rate": 16000}, **more)["text"])
        assert output.text == text != ""
        assert len(output.confidences) == len(output.tokens)
        assert len(output.word_confidences) == len(text.split())


@pytest.mark.parametrize("kind", ["masked", "unmasked", "whisper"])
def test_neither_the_batch_nor_the_order_changes_a_label(
    kind: str, models: dict[str, Path], waveforms: list[np.ndarray]
) -> None:
    together = teacher(models[kind], batch=8).transcribe(waveforms)
    backwards = teacher(models[kind], batch=1).transcribe(waveforms[::-1])[::-1]
    for one, other in zip(together, backwards, strict=True):
        assert (one.text, one.tokens) == (other.text, other.tokens)
        assert one.normalised_score == pytest.approx(other.normalised_score, abs=1e-4)


@pytest.mark.parametrize("kind", ["masked", "unmasked"])
def test_scores_of_ctc_are_those_of_the_best_path(
    kind: str, models: dict[str, Path], waveforms: list[np.ndarray]
) -> None:
    model = transformers.AutoModelForCTC.from_pretrained(models[kind]).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(models[kind])
    for output, wave in zip(teacher(models[kind]).transcribe(waveforms), waveforms, strict=True):
        with torch.inference_mode():
            logits = model(**extractor(wave, sampling_rate=16000, return_tensors="pt")).logits[0]
        path = logits.log_softmax(-1).max(-1).values
        assert output.score == pytest.approx(float(path.sum()), abs=1e-3)
        assert output.normalised_score == pytest.approx(float(path.sum()) / len(output.tokens), abs=1e-4)


def test_scores_of_whisper_are_those_of_forcing_its_own_tokens(
    models: dict[str, Path], waveforms: list[np.ndarray]
) -> None:
    model = transformers.WhisperForConditionalGeneration.from_pretrained(models["whisper"]).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(models["whisper"])
    generation = model.generation_config
    for output, wave in zip(teacher(models["whisper"]).transcribe(waveforms), waveforms, strict=True):
        prompt = [model.config.decoder_start_token_id, generation.no_timestamps_token_id]
        with torch.inference_mode():
            logits = (
                model(
                    extractor(wave, sampling_rate=16000, return_tensors="pt").input_features,
                    decoder_input_ids=torch.tensor([[*prompt, *output.tokens]]),
                )
                .logits[0, len(prompt) - 1 :]
                .clone()
            )
            logits[:, generation.suppress_tokens] = -math.inf
            logits[0, generation.begin_suppress_tokens] = -math.inf
            logprobs = logits.log_softmax(-1)
        forced = [float(logprobs[n, token]) for n, token in enumerate(output.tokens)]
        assert [math.exp(p) for p in forced] == pytest.approx(output.confidences, abs=1e-4)


def test_a_beam_finds_what_is_likelier(models: dict[str, Path], waveforms: list[np.ndarray]) -> None:
    greedy = teacher(models["whisper"], most_tokens=12).transcribe(waveforms)
    beam = teacher(models["whisper"], most_tokens=12, beams=4).transcribe(waveforms)
    assert all(len(output.tokens) <= 12 for output in [*greedy, *beam])
    gains = [b.normalised_score - g.normalised_score for b, g in zip(beam, greedy, strict=True)]
    assert min(gains) > -1e-4
    assert max(gains) > 1e-3


def test_what_is_too_short_is_empty_and_what_is_long_is_read_on(models: dict[str, Path]) -> None:
    minute = np.random.default_rng(3).normal(0, 0.1, 35 * 16000).astype(np.float32)
    for kind in ("masked", "whisper"):
        nothing, click, long = teacher(models[kind]).transcribe(
            [np.zeros(0, np.float32), np.zeros(160, np.float32), minute]
        )
        assert (nothing.text, click.text) == ("", "")
        assert long.text
        assert long.error is None


def test_its_name_and_version_are_those_of_the_weights(models: dict[str, Path]) -> None:
    versions = {kind: teacher(model).version for kind, model in models.items()}
    assert len(set(versions.values())) == 3
    assert teacher(models["masked"]).version == versions["masked"]
    assert teacher(models["masked"]).name == "transformers:masked"


def test_a_model_that_cannot_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "gone"):
        with pytest.raises(
            ConfigError, match=r"teacher 'transformers': model '.*' cannot be loaded"
        ) as caught:
            teacher(name)
        assert "\n" not in str(caught.value)
