"""Pool entries as files for onnxruntime, and as the engine of a replica."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from raysr.corpus.workers import WorkerDied, run_in_workers
from raysr.errors import PoolError
from raysr.export.engine import OnnxStep
from raysr.export.installed import check_installed
from raysr.export.onnx_step import check_context, export_step
from raysr.export.quantise import quantise
from raysr.model.chunking import Chunking
from raysr.pool import TOKENISER, Entry, Pool, load_entry

STEP, STEP_INT8 = "step.onnx", "step.int8.onnx"
OnnxEngine = Literal["onnx", "onnx-int8"]


def export_entry(entry: Entry, folder: Path, chunking: Chunking, int8: bool = False) -> list[Path]:
    """Write the entry's step, with ``int8`` also that with int8 weights, and its tokeniser; return the files.

    Raises:
        ConfigError: its model has no step of this context, or packages are missing.
        PoolError: the entry cannot be loaded.
    """
    check_installed()
    recogniser = load_entry(entry)
    check_context(recogniser.model, chunking)
    about = {
        "raysr.entry": entry.name,
        "raysr.weights": entry.weights_hash,
        "raysr.fbank": json.dumps(recogniser.config.fbank.dump()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".export-") as partial:
        files = [Path(partial) / STEP]
        export_step(recogniser.model, chunking, files[0], about)
        if int8:
            files.append(Path(partial) / STEP_INT8)
            quantise(files[0], files[1])
        files.append(Path(shutil.copy(entry.tokeniser, Path(partial) / TOKENISER)))
        return [file.replace(folder / file.name) for file in files]


def load_step(entry: Entry, chunking: Chunking, engine: OnnxEngine) -> OnnxStep:
    """Return the entry's step in onnxruntime.

    It is exported in a process of its own: that takes seconds of Python, in which streams would wait.
    Raises what :func:`export_entry` does.
    """
    with TemporaryDirectory() as folder:
        task = _Task(entry.path, Path(folder), chunking, engine == "onnx-int8")
        for _, answer in run_in_workers(_export, [task], 1):
            if isinstance(answer, WorkerDied):
                raise PoolError(f"pool entry {entry.path}: its export to ONNX was killed, perhaps for memory")
        return OnnxStep(Path(folder) / (STEP_INT8 if task.int8 else STEP))


class _Task(NamedTuple):
    entry: Path
    folder: Path
    chunking: Chunking
    int8: bool


def _export(task: _Task) -> None:
    entry = Pool(task.entry.parent).get(task.entry.name)
    export_entry(entry, task.folder, task.chunking, task.int8)
