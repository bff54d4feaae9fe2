"""onnxruntime as the engine of a stream: an exported step in the place of a model's own encoder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raysr.errors import ConfigError
from raysr.export.installed import check_installed
from raysr.export.onnx_step import FORMAT, cache_tensors
from raysr.model.encoder import Caches


class OnnxStep:
    """A :class:`StreamingStep` that runs an exported file; several threads may share one.

    Args:
        path: of the file.
        threads: of onnxruntime for one call.

    Raises :class:`ConfigError` where onnxruntime is missing or the file is no step that this version reads.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        check_installed(("onnxruntime",))
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ConfigError(f"{path}: onnxruntime cannot load it: {error}") from error
        self.about: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        if self.about.get("raysr.format") != str(FORMAT):
            found = self.about.get("raysr.format", "none")
            raise ConfigError(
                f"{path}: no streaming step of format {FORMAT} (found: {found}); export it again"
            )
        names = list(json.loads(self.about["raysr.caches"]))
        self._outputs = ["out", "valid", *(f"next.{name}" for name in names)]

    def __call__(self, features: Tensor, frames: Tensor, caches: Caches) -> tuple[Tensor, Tensor, Caches]:
        leaves, tree = pytree.tree_flatten(caches)
        tensors = cache_tensors(caches)
        feed = {"features": features.numpy(), "frames": frames.numpy()}
        feed.update(
            (f"cache.{tensor.name}", leaf.numpy())
            for tensor, leaf in zip(tensors, leaves, strict=True)
            if not tensor.empty
        )
        out, valid, *following = self._run(feed)
        given = iter(following)
        # What is empty stays as it is.
        leaves = [leaf if t.empty else next(given) for t, leaf in zip(tensors, leaves, strict=True)]
        return out, valid, pytree.tree_unflatten(leaves, tree)

    def _run(self, feed: Mapping[str, np.ndarray]) -> list[Any]:
        return [torch.from_numpy(array) for array in self._session.run(self._outputs, feed)]
