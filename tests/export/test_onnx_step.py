"""A step exported to ONNX encodes streams as torch does, for every encoder that streams."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.errors import ConfigError
from raysr.export.engine import OnnxStep
from raysr.export.onnx_step import FORMAT, export_step
from raysr.export.quantise import quantise
from raysr.model.chunking import Chunking
from raysr.model.config import EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.model.streaming import Streamer

CASES: dict[str, tuple[dict[str, Any], Chunking]] = {
    "conformer": ({}, Chunking(5, 3, 0)),
    "conformer-ahead": ({}, Chunking(5, 3, 2)),
    "conformer-no-left": ({"attention": {"kind": "chunk"}}, Chunking(3, 0, 0)),
    "conformer-flow": ({"attention": {"kind": "flow", "right_chunks": 2}}, Chunking(4, 1, 0)),
    "conformer-left": ({"attention": {"kind": "left"}}, Chunking(1, 7, 0)),
    "conformer-rate-6": ({"subsampling": 6, "kernel": 1}, Chunking(2, 2, 0)),
    "transformer": ({"kind": "transformer"}, Chunking(4, 2, 0)),
    "transformer-ahead": ({"kind": "transformer"}, Chunking(4, 0, 5)),
    "transformer-flow": ({"kind": "transformer", "attention": {"kind": "flow"}}, Chunking(3, 0, 0)),
    "lstm": ({"kind": "lstm"}, Chunking(4, 0, 0)),
}
Exported = tuple[AsrModel, Chunking, Path]


def model_of(encoder: dict[str, Any], ctc_weight: float = 1.0) -> AsrModel:
    torch.manual_seed(0)
    sizes = {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24, "kernel": 5, "subsampling_channels": 4}
    config = ModelConfig(mel_bins=32, encoder=EncoderConfig(**(sizes | encoder)), ctc_weight=ctc_weight)
    model = AsrModel(config, 7)
    model.set_cmvn(torch.linspace(-1, 1, 32), torch.linspace(0.5, 2, 32))
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def export(name: str) -> Exported:
        encoder, chunking = CASES[name]
        model = model_of(encoder)
        export_step(model, chunking, folder / f"{name}.onnx", {"raysr.entry": name})
        return model, chunking, folder / f"{name}.onnx"

    return export


def features_of(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, 32, generator=torch.Generator().manual_seed(seed))


def live(streamer: Streamer, utterances: list[Tensor], random: Random) -> list[Tensor]:
    """Push utterances in random pieces, three slots at a time, and return what comes out of each."""
    outs: list[list[Tensor]] = [[] for _ in utterances]
    waiting, playing = list(range(len(utterances))), dict[int, tuple[int, int]]()  # slot: utterance, pushed
    while waiting or playing:
        if waiting and len(playing) < 3 and random.random() < 0.5:
            playing[streamer.join()] = waiting.pop(), 0
        for slot, (number, pushed) in list(playing.items()):
            more = random.randint(0, 60)
            streamer.push(slot, utterances[number][pushed : pushed + more])
            playing[slot] = number, pushed + more
        for slot, out in streamer.step().items():
            outs[playing[slot][0]].append(out)
        for slot, (number, pushed) in list(playing.items()):
            if pushed >= len(utterances[number]):
                outs[number].append(streamer.finish(slot))
                streamer.leave(slot)
                del playing[slot]
    return [torch.cat(out) for out in outs]


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=5),
    random=st.randoms(use_true_random=True),
    seed=st.integers(0, 99),
)
def test_streams_of_onnxruntime_equal_those_of_torch(
    exported: Callable[[str], Exported], name: str, lengths: list[int], random: Random, seed: int
) -> None:
    model, chunking, path = exported(name)
    utterances = [features_of(length, seed + number) for number, length in enumerate(lengths)]
    order, step = random.getstate(), OnnxStep(path)
    ours = live(Streamer(model, *chunking, slots=3), utterances, random)
    random.setstate(order)
    theirs = live(Streamer(model, *chunking, slots=3, step=step), utterances, random)
    for utterance, expected, found in zip(utterances, ours, theirs, strict=True):
        assert len(found) == model.output_frames(len(utterance))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["conformer", "transformer", "lstm"])
def test_int8_is_near_float(exported: Callable[[str], Exported], name: str, tmp_path: Path) -> None:
    model, chunking, path = exported(name)
    quantise(path, tmp_path / "int8.onnx")
    features = [features_of(400, seed) for seed in range(3)]
    outs = []
    for step in (None, OnnxStep(tmp_path / "int8.onnx")):
        streamer = Streamer(model, *chunking, slots=3, step=step)
        outs.append(model.ctc_log_probs(torch.cat(live(streamer, features, Random(0)))))
    ours, theirs = (out.detach().flatten() for out in outs)
    assert not ours.equal(theirs)
    assert torch.corrcoef(torch.stack((ours, theirs)))[0, 1] > 0.99


def names(values: Any) -> list[str]:
    return [value.name for value in values]


@pytest.mark.parametrize("name", CASES)
def test_a_file_tells_a_runtime_all_it_needs(exported: Callable[[str], Exported], name: str) -> None:
    """The loop of a runtime that knows the file alone, next to the masked full forward."""
    model, chunking, path = exported(name)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    layout = json.loads(about["raysr.caches"])
    chunk, ahead, window, hop, delay = (
        int(about[f"raysr.{key}"]) for key in ("chunk", "lookahead", "window", "hop", "delay")
    )
    assert names(session.get_inputs()) == ["features", "frames", *(f"cache.{name}" for name in layout)]
    assert names(session.get_outputs())[:3] == ["out", "valid", "log_probs"]
    assert not [shape for shape in layout.values() if 0 in shape["shape"]]
    caches = {f"cache.{k}": np.zeros((1, *v["shape"]), v["dtype"]) for k, v in layout.items()}
    chunks = 12 + delay // chunk
    features = features_of((chunks - 1) * hop + window)
    found = []
    for first in range(0, chunks * hop, hop):
        feed = {
            "features": features[None, first : first + window].numpy(),
            "frames": np.array([chunk + ahead]),
        }
        answers = session.run(None, feed | caches)
        given = dict(zip(names(session.get_outputs()), answers, strict=True))
        found.append(given["log_probs"][given["valid"]])
        caches = {key: given[key.replace("cache.", "next.", 1)] for key in caches}
    scores = torch.from_numpy(np.concatenate(found))
    with torch.no_grad():
        out = model.encode(features[None], torch.tensor([len(features)]), *chunking).out
        expected = model.ctc_log_probs(out)[0, : len(scores)]
    assert len(scores) == 12 * chunk
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


def test_a_model_without_ctc_has_no_log_probabilities(tmp_path: Path) -> None:
    model = model_of({"heads": 4}, ctc_weight=0.0)
    export_step(model, Chunking(4, 1, 0), tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx", providers=["CPUExecutionProvider"])
    assert "log_probs" not in names(session.get_outputs())
    features, step = features_of(150), OnnxStep(tmp_path / "step.onnx")
    found, expected = (
        live(Streamer(model, 4, 1, slots=3, step=engine), [features], Random(0))[0] for engine in (step, None)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("encoder", "chunking", "told"),
    [
        ({"kind": "blstm", "layers": 3}, (16, 4, 0), "reads whole utterances"),
        ({"attention": {"kind": "full"}}, (16, 4, 0), "knows full context only"),
        ({}, (16, -1, 0), "caches of fixed size"),
        ({}, (-1, 4, 0), "chunks of 1 frame or more"),
        ({}, (0, 4, 0), "0 is no chunk"),
        ({}, (16, 4, -1), "lookahead: .*0 or more"),
    ],
)
def test_what_has_no_step_is_refused(
    tmp_path: Path, encoder: dict[str, Any], chunking: tuple[int, int, int], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        export_step(model_of(encoder), Chunking(*chunking), tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_no_step_of_ours_is_refused(tmp_path: Path, foreign: bytes) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="cannot load"):
        OnnxStep(tmp_path / "noise.onnx")
    (tmp_path / "foreign.onnx").write_bytes(foreign)
    with pytest.raises(ConfigError, match=f"no streaming step of format {FORMAT}"):
        OnnxStep(tmp_path / "foreign.onnx")


@pytest.fixture
def foreign() -> bytes:
    """A model that does nothing, of another maker."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "foreign", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()
