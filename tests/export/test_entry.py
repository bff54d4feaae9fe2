"""A pool entry as files, and every engine of a session on a trained model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from toy_language import RATE, sentences, spoken, sung

from raysr.audio.fbank import Fbank
from raysr.decode.greedy import greedy
from raysr.errors import ConfigError, PoolError
from raysr.export.engine import OnnxStep
from raysr.export.entry import export_entry, load_step
from raysr.model.chunking import Chunking
from raysr.model.streaming import Streamer, StreamingStep
from raysr.pool import Entry, Pool, Recogniser
from raysr.stream.events import Final, transcript
from raysr.stream.session import Session
from raysr.stream.streaming_model import StreamingModel
from raysr.text.tokeniser import Tokeniser

CUT = Chunking(12, 4, 3)


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory, recogniser: Recogniser) -> Entry:
    parts = recogniser.model, recogniser.tokeniser, recogniser.lm
    return Pool(tmp_path_factory.mktemp("pool")).publish("tones", *parts, {}, recogniser.config)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, entry: Entry) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "new"
    files = export_entry(entry, folder, CUT, int8=True)
    assert sorted(folder.iterdir()) == sorted(files)
    return folder


def finals(recogniser: Recogniser, samples: np.ndarray) -> list[Final]:
    session = Session(StreamingModel(recogniser, chunking=CUT))
    events = [event for piece in np.array_split(samples, 31) for event in session.push(piece)]
    return [event for event in [*events, *session.finish()] if isinstance(event, Final)]


def test_a_session_says_the_same_through_onnxruntime(recogniser: Recogniser, exported: Path) -> None:
    through = replace(recogniser, step=OnnxStep(exported / "step.onnx"))
    for seed, text in enumerate(("bad cafe, head ache, beg bad", "gab", "")):
        samples = sung(text, seed=seed)
        ours, theirs = finals(recogniser, samples), finals(through, samples)
        assert [(f.text, f.start, f.end, f.cause) for f in theirs] == [
            (f.text, f.start, f.end, f.cause) for f in ours
        ]
        for expected, found in zip(ours, theirs, strict=True):
            assert [(w.text, w.start, w.end) for w in found.words] == [
                (w.text, w.start, w.end) for w in expected.words
            ]
            assert found.confidence == pytest.approx(expected.confidence, abs=1e-4)


def log_probs(recogniser: Recogniser, samples: np.ndarray, step: StreamingStep | None) -> torch.Tensor:
    streamer = Streamer(recogniser.model, *CUT, step=step)
    slot, outs = streamer.join(), []
    streamer.push(slot, Fbank(recogniser.config.fbank)(torch.from_numpy(samples)))
    while ready := streamer.step():
        outs.append(ready[slot])
    with torch.no_grad():
        return recogniser.model.ctc_log_probs(torch.cat([*outs, streamer.finish(slot)])[None])


def test_greedy_texts_are_the_same_in_float_and_nearly_in_int8(
    recogniser: Recogniser, exported: Path
) -> None:
    float32, int8 = (OnnxStep(exported / name) for name in ("step.onnx", "step.int8.onnx"))
    errors = 0
    for seed, text in enumerate(sentences(20, seed=9)):
        samples = sung(text, seed=seed)
        expected, same, near = (log_probs(recogniser, samples, step) for step in (None, float32, int8))
        lengths = torch.tensor([expected.shape[1]])
        texts = [recogniser.tokeniser.decode(greedy(s, lengths)[0].tokens) for s in (expected, same, near)]
        assert texts[1] == texts[0]
        errors += texts[2] != texts[0]
        torch.testing.assert_close(same, expected, atol=1e-3, rtol=0)
        probabilities = torch.stack((near.exp().flatten(), expected.exp().flatten()))
        assert torch.corrcoef(probabilities)[0, 1] > 0.99
    assert errors <= 2


def test_int8_hears_what_was_sung(recogniser: Recogniser, exported: Path) -> None:
    through = replace(recogniser, step=OnnxStep(exported / "step.int8.onnx"))
    text = "bad cafe, head ache, beg bad"
    assert transcript(list(finals(through, sung(text, RATE, seed=7)))) == spoken(text)


def test_an_export_tells_where_it_comes_from(entry: Entry, exported: Path) -> None:
    for name in ("step.onnx", "step.int8.onnx"):
        session = onnxruntime.InferenceSession(exported / name, providers=["CPUExecutionProvider"])
        about: dict[str, Any] = session.get_modelmeta().custom_metadata_map
        assert (about["raysr.entry"], about["raysr.weights"]) == ("tones", entry.weights_hash)
        told = [about[f"raysr.{key}"] for key in ("chunk", "left", "lookahead")]
        assert told == [str(value) for value in CUT]
        assert json.loads(about["raysr.fbank"])["mel_bins"] == session.get_inputs()[0].shape[2]
    vocabulary = Tokeniser.load(exported / "tokenizer.model").vocab_size
    assert about["raysr.vocabulary"] == str(vocabulary)


def test_int8_weighs_a_quarter(entry: Entry, exported: Path) -> None:
    weights = sum(w.numel() for w in load_file(entry.weights).values() if w.ndim == 2)
    sizes = [(exported / name).stat().st_size for name in ("step.onnx", "step.int8.onnx")]
    assert sizes[0] - sizes[1] > weights


def test_a_replica_loads_its_step_from_a_process_of_its_own(
    recogniser: Recogniser, entry: Entry, exported: Path
) -> None:
    samples = sung("head ache", seed=3)
    expected = log_probs(recogniser, samples, OnnxStep(exported / "step.int8.onnx"))
    assert log_probs(recogniser, samples, load_step(entry, CUT, "onnx-int8")).equal(expected)


def test_its_errors_come_from_there_too(entry: Entry) -> None:
    with pytest.raises(ConfigError, match="caches of fixed size"):
        load_step(entry, CUT._replace(left=-1), "onnx")
    absent = replace(entry, path=entry.path.with_name("absent"))
    with pytest.raises(PoolError, match="no entry 'absent'"):
        load_step(absent, CUT, "onnx")
