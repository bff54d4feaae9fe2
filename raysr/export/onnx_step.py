"""The streaming step of a model as an ONNX graph with its caches as inputs and outputs."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from raysr.errors import ConfigError
from raysr.export.installed import check_installed
from raysr.model.chunking import Chunking
from raysr.model.encoder import Caches
from raysr.model.mask import Chunk
from raysr.model.model import AsrModel

FORMAT = 2
OPSET = 20
FOLDED = 1 << 26
"""The largest constant that is computed at export, in bytes."""


class CacheTensor(NamedTuple):
    """A tensor of a stream's caches: its name, and its shape (S, …) without the slots."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def empty(self) -> bool:
        """Whether it holds nothing at this context, so that the graph does without it."""
        return 0 in self.shape


def cache_tensors(caches: Caches) -> list[CacheTensor]:
    """Return the tensors of caches in the order of their leaves, named by their place: ``0.attention.key``."""
    leaves, _ = pytree.tree_flatten_with_path(caches)
    return [
        CacheTensor(".".join(_step(key) for key in path), tuple(leaf.shape[1:]), leaf.dtype)
        for path, leaf in leaves
    ]


def check_context(model: AsrModel, chunking: Chunking) -> Chunk:
    """Return the context of an export; raise :class:`ConfigError` where the model has no step of fixed shapes."""
    if chunking.size < 0:
        raise ConfigError(
            f"chunk_size: an exported step needs chunks of 1 frame or more (got {chunking.size})"
        )
    if chunking.left < 0:
        raise ConfigError(
            f"left_chunks: an exported step has caches of fixed size, so 0 chunks or more (got {chunking.left})"
        )
    return model.check_chunk(*chunking)


def export_step(
    model: AsrModel, chunking: Chunking, path: Path, about: Mapping[str, str] | None = None
) -> None:
    """Write the step of a model in eval mode over streams cut like this.

    Inputs: ``features`` (S, window, mel_bins) raw fbank, ``frames`` (S,) int64, and a ``cache.…`` for each
    tensor of the caches. Outputs: ``out`` (S, c, D), ``valid`` (S, c) bool, ``log_probs`` (S, c, V) where the
    model has a CTC head, and a ``next.…`` for each cache. They mean what those of :meth:`Encoder.step` do. S is
    free. What a runtime must know beside them is in the file's metadata, with the entries of ``about``.

    Raises :class:`ConfigError` where the packages are missing or the model cannot stream so.
    """
    check_installed()
    chunk = check_context(model, chunking)
    caches = model.encoder.initial_caches(2, chunk)
    tensors = cache_tensors(caches)
    kept = [tensor for tensor in tensors if not tensor.empty]
    leaves = [
        leaf for leaf, tensor in zip(pytree.tree_leaves(caches), tensors, strict=True) if not tensor.empty
    ]
    window = (chunk.width - 1) * model.encoder.hop + model.encoder.window
    features = torch.zeros(2, window, model.config.mel_bins)
    slots = torch.export.Dim("slots", min=1)
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _FlatStep(model, caches, chunk.ahead).eval(),
            (features, torch.full((2,), chunk.width), *leaves),
            input_names=["features", "frames", *(f"cache.{tensor.name}" for tensor in kept)],
            output_names=[
                *("out", "valid", *(["log_probs"] if model.ctc is not None else [])),
                *(f"next.{tensor.name}" for tensor in kept),
            ],
            dynamic_shapes={
                "features": {0: slots},
                "frames": {0: slots},
                **({"caches": tuple({0: slots} for _ in kept)} if kept else {}),
            },
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    _fold(program.model)
    properties = program.model.metadata_props
    properties.update(about or {})
    properties.update(
        {
            "raysr.format": str(FORMAT),
            "raysr.vocabulary": str(model.vocab_size),
            "raysr.chunk": str(chunk.size),
            "raysr.left": str(chunk.left),
            "raysr.lookahead": str(chunk.ahead),
            "raysr.window": str(window),
            "raysr.hop": str(chunk.size * model.encoder.hop),
            "raysr.subsampling": str(model.encoder.hop),
            "raysr.delay": str(model.encoder.delay(chunk)),
            "raysr.caches": json.dumps(
                {t.name: {"shape": t.shape, "dtype": str(t.dtype).removeprefix("torch.")} for t in kept}
            ),
        }
    )
    program.save(path)


class _FlatStep(nn.Module):
    """The step with its caches as a flat list without the empty ones, and with CTC log-probabilities."""

    def __init__(self, model: AsrModel, caches: Caches, ahead: int) -> None:
        super().__init__()
        self.model, self.ahead = model, ahead
        leaves, self.tree = pytree.tree_flatten(caches)
        self.kept = [leaf.numel() > 0 for leaf in leaves]
        self.shapes = [leaf.shape[1:] for leaf in leaves]
        self.dtypes = [leaf.dtype for leaf in leaves]

    def forward(self, features: Tensor, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        given = iter(caches)
        leaves = [
            next(given) if kept else features.new_zeros(features.shape[0], *shape, dtype=dtype)
            for kept, shape, dtype in zip(self.kept, self.shapes, self.dtypes, strict=True)
        ]
        out, valid, following = self.model.encoder.step(
            self.model.normalise(features), frames, pytree.tree_unflatten(leaves, self.tree), self.ahead
        )
        scores = () if self.model.ctc is None else (self.model.ctc_log_probs(out),)
        leaves = pytree.tree_leaves(following)
        return out, valid, *scores, *(leaf for leaf, kept in zip(leaves, self.kept, strict=True) if kept)


def _fold(graph: Any) -> None:
    """Compute what depends on no input: rotary positions, and the weights of an LSTM in ONNX's order of gates."""
    from onnxscript import optimizer

    optimizer.fold_constants(graph, input_size_limit=FOLDED, output_size_limit=FOLDED)
    optimizer.remove_unused_nodes(graph)


def _step(key: Any) -> str:
    return str(key.name if isinstance(key, pytree.GetAttrKey) else key.idx)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings about its own internals from the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
