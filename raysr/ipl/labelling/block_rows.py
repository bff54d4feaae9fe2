"""A block on its way through Ray Data: one row of Arrow, as utterances, as inputs, as a report."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from raysr.audio.fbank import FbankConfig
from raysr.corpus.disk import replacing
from raysr.corpus.records import from_record, to_record
from raysr.corpus.utterance import Utterance
from raysr.ipl.labelling.inputs import Inputs
from raysr.ipl.labelling.labeller import BlockReport

_BLOCKS = pa.schema([("utterances", pa.list_(pa.string()))])
_FEATURES = pa.struct([("fbank", pa.string()), ("bins", pa.int32()), ("values", pa.large_binary())])
_INPUT = pa.struct(
    [
        ("utterance", pa.string()),
        ("error", pa.string()),
        ("kind", pa.string()),
        ("waveform", pa.large_binary()),
        ("features", pa.list_(_FEATURES)),
    ]
)
_INPUTS = pa.schema([("inputs", pa.list_(_INPUT))])
_ROWS_AT_ONCE = 256


def write_todo(path: Path, blocks: Iterable[list[Utterance]]) -> None:
    """Write blocks, one a row, holding a few at a time."""
    with replacing(path) as file, pq.ParquetWriter(file, _BLOCKS) as writer:
        rows: list[list[str]] = []
        for block in blocks:
            rows.append([_line(utterance) for utterance in block])
            if len(rows) == _ROWS_AT_ONCE:
                writer.write_table(pa.table({"utterances": rows}, _BLOCKS))
                rows = []
        writer.write_table(pa.table({"utterances": rows}, _BLOCKS))


def utterances(row: pa.Table) -> list[Utterance]:
    """Return the utterances of a row of :func:`write_todo`."""
    return [_utterance(line) for line in row["utterances"][0].as_py()]


def inputs_row(inputs: Iterable[Inputs]) -> pa.Table:
    """Return inputs as one row; samples and features as their bytes."""
    values = [
        {
            "utterance": _line(one.utterance),
            "error": one.error,
            "kind": one.kind,
            "waveform": None if one.waveform is None else one.waveform.astype("<f4").tobytes(),
            "features": [
                {
                    "fbank": json.dumps(fbank.dump()),
                    "bins": values.shape[1],
                    "values": values.numpy().tobytes(),
                }
                for fbank, values in one.features.items()
            ],
        }
        for one in inputs
    ]
    return pa.table({"inputs": [values]}, _INPUTS)


def has_inputs(row: pa.Table) -> bool:
    return "inputs" in row.column_names


def inputs(row: pa.Table) -> list[Inputs]:
    """Return the inputs of a row of :func:`inputs_row`."""
    return [_inputs(one) for one in row["inputs"][0]]


def report_row(report: BlockReport, latency: float) -> pa.Table:
    """Return a report, and the seconds that its block took, as one row."""
    return pa.table(
        {
            "utterances": [report.utterances],
            "seconds": [report.seconds],
            "failures": [json.dumps(dict(report.failures))],
            "latency": [latency],
        }
    )


def read_report(row: Mapping[str, Any]) -> tuple[BlockReport, float]:
    """Return what :func:`report_row` was given."""
    report = BlockReport(row["utterances"], row["seconds"], json.loads(row["failures"]))
    return report, row["latency"]


def _line(utterance: Utterance) -> str:
    return json.dumps(to_record(utterance, "/") | {"audio_filepath": utterance.audio})


def _utterance(line: str) -> Utterance:
    return from_record(json.loads(line), "/", "todo")


def _inputs(value: pa.StructScalar) -> Inputs:
    waveform = value["waveform"].as_buffer()
    return Inputs(
        _utterance(value["utterance"].as_py()),
        value["error"].as_py(),
        value["kind"].as_py(),
        None if waveform is None else np.frombuffer(waveform, "<f4").copy(),
        {_fbank(one): _values(one) for one in value["features"]},
    )


def _fbank(value: pa.StructScalar) -> FbankConfig:
    return FbankConfig.parse(json.loads(value["fbank"].as_py()))


def _values(value: pa.StructScalar) -> torch.Tensor:
    values = np.frombuffer(value["values"].as_buffer(), np.float32).copy()
    return torch.from_numpy(values.reshape(-1, value["bins"].as_py()))  # (T, mel_bins)
