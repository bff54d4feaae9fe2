"""The streaming step in torch and in onnxruntime, with float32 and with int8 weights: time on one core, and words.

pip install -e '.[onnx]'
python -m benchmarks.onnx_step --json results/onnx_step.json

A step is the encoder and the CTC head over one chunk of every stream of a batch; chunks are written with their
look-ahead, in frames. The engines take turns at the same real windows; times are CPU time of one thread, the median
over the rounds, and a ratio is the median of the rounds' ratios. Words are counted on the demo's tests, each utterance
a stream, encoded by every engine and searched alike. The large model is untrained: it has speed only. `int8_vs_fp32`
sums up the step of one stream that is cut as the endpoint cuts it: how many times as fast int8 is, and the most that it
costs in any WER, in points.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.long_stream import newest, trained_pool
from benchmarks.model_scores import word_errors, words
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.greedy import greedy
from raysr.decode.prefix_beam import PrefixBeam
from raysr.export.engine import OnnxStep
from raysr.export.onnx_step import export_step
from raysr.export.quantise import quantise
from raysr.model.chunking import CHUNKING, Chunking
from raysr.model.config import EncoderConfig, ModelConfig
from raysr.model.encoder import Caches
from raysr.model.model import AsrModel
from raysr.model.streaming import EncoderStep, Streamer, StreamingStep
from raysr.pool import Recogniser

CUTS = {"8+8": CHUNKING, "16": Chunking(16, 4, 0)}
SLOTS = (1, 8, 32)
SETS = ("clean", "music")
ENGINES = ("torch", "fp32", "int8")
RATIOS = {
    "fp32_vs_torch": ("torch", "fp32"),
    "int8_vs_torch": ("torch", "int8"),
    "int8_vs_fp32": ("fp32", "int8"),
}
LARGE = EncoderConfig(dim=256, layers=12, feed_forward=1024)
Engines = Mapping[str, StreamingStep]
Tests = Mapping[str, Sequence[Utterance]]


class TorchStep(EncoderStep):
    """The model's own step, with the CTC head that an exported one has in its graph."""

    def forward(self, features: Tensor, frames: Tensor, caches: Caches) -> tuple[Tensor, Tensor, Caches]:
        out, valid, following = super().forward(features, frames, caches)
        self.model.ctc_log_probs(out)
        return out, valid, following


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--pool", type=Path, help="whose newest entry is measured; one is trained otherwise")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/ipl"), help="for its training")
    parser.add_argument("--utterances", type=int, help="of each test; all by default")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    recogniser = newest(options.pool or trained_pool(options.work))
    tests = {name: list(demo_corpus().tests[name])[: options.utterances] for name in SETS}
    with TemporaryDirectory() as folder:
        results = measure(recogniser, tests, Path(folder), options.rounds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def measure(recogniser: Recogniser, tests: Tests, folder: Path, rounds: int) -> dict[str, Any]:
    """Return times and word error rates of the trained model, times of the large one, and the verdict."""
    cache = FeatureCache(folder / "features", recogniser.config.fbank)
    cache.ensure([utterance for part in tests.values() for utterance in part])
    features = {name: [cache.get(u) for u in part] for name, part in tests.items()}
    model = recogniser.model
    trained: dict[str, Any] = {"parameters": parameters(model)}
    for cut, chunking in CUTS.items():
        engines = engines_of(model, chunking, folder)
        trained[cut] = {
            "step": speed(model, engines, chunking, features["clean"], rounds),
            "wer": {
                name: {
                    engine: wers(part, heard(recogniser, step, chunking, features[name]))
                    for engine, step in engines.items()
                }
                for name, part in tests.items()
            },
        }
    torch.manual_seed(0)
    large = AsrModel(ModelConfig(encoder=LARGE), model.vocab_size).eval()
    cut, chunking = next(iter(CUTS.items()))
    steps = speed(large, engines_of(large, chunking, folder), chunking, features["clean"], rounds)
    return {
        "trained": trained,
        "large": {"parameters": parameters(large), cut: {"step": steps}},
        "int8_vs_fp32": verdict(trained[cut]),
    }


def engines_of(model: AsrModel, chunking: Chunking, folder: Path) -> Engines:
    """Export the model's step and return every engine of it."""
    export_step(model, chunking, folder / "step.onnx")
    quantise(folder / "step.onnx", folder / "step.int8.onnx")
    return {
        "torch": TorchStep(model, model.check_chunk(*chunking)),
        "fp32": OnnxStep(folder / "step.onnx"),
        "int8": OnnxStep(folder / "step.int8.onnx"),
    }


@torch.inference_mode()
def speed(
    model: AsrModel, engines: Engines, chunking: Chunking, features: Sequence[Tensor], rounds: int
) -> dict[str, Any]:
    """Return the milliseconds of a step and the ratios, by slots."""
    chunk = model.check_chunk(*chunking)
    window = (chunk.width - 1) * model.encoder.hop + model.encoder.window
    windows = torch.cat(list(features)).unfold(0, window, window).transpose(1, 2)  # (N, window, mel_bins)
    found = {}
    for slots in SLOTS:
        caches = dict.fromkeys(engines, model.encoder.initial_caches(slots, chunk))
        frames = torch.full((slots,), chunk.width)
        taken: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(chunk.left + rounds):
            chosen = (torch.arange(slots) + number * slots) % len(windows)
            heard = windows[chosen].contiguous()
            for name, step in engines.items():
                started = time.process_time()
                _, _, caches[name] = step(heard, frames, caches[name])
                taken[name].append(time.process_time() - started)
        settled = {name: times[chunk.left :] for name, times in taken.items()}
        found[str(slots)] = {
            "ms": {name: round(1000 * statistics.median(times), 3) for name, times in settled.items()},
            **{
                ratio: round(
                    statistics.median(a / b for a, b in zip(settled[slow], settled[fast], strict=True)), 2
                )
                for ratio, (slow, fast) in RATIOS.items()
            },
        }
    return found


def heard(
    recogniser: Recogniser, step: StreamingStep, chunking: Chunking, features: Sequence[Tensor]
) -> dict[str, list[str]]:
    """Return the texts of utterances that are streamed through ``step``, greedy and by the prefix beam."""
    r = recogniser
    streamer = Streamer(r.model, *chunking, slots=max(SLOTS), step=step)
    found: dict[str, list[str]] = {"greedy": [], "beam": []}
    for first in range(0, len(features), max(SLOTS)):
        outs = encode(streamer, features[first : first + max(SLOTS)])
        lengths = torch.tensor([len(out) for out in outs])
        with torch.inference_mode():
            log_probs = r.model.ctc_log_probs(pad_sequence(outs, batch_first=True))
            beam = PrefixBeam(r.config.decode, r.lm).decode(log_probs, lengths, 1)
        found["greedy"] += [r.tokeniser.decode(best.tokens) for best in greedy(log_probs, lengths)]
        found["beam"] += [r.tokeniser.decode(best.tokens) for best, *_ in beam]
    return found


def encode(streamer: Streamer, features: Sequence[Tensor]) -> list[Tensor]:
    """Stream utterances side by side and return the encoder frames (T', D) of each."""
    slots = {streamer.join(): number for number in range(len(features))}
    outs: list[list[Tensor]] = [[] for _ in features]
    for slot, number in slots.items():
        streamer.push(slot, features[number])
    while ready := streamer.step():
        for slot, out in ready.items():
            outs[slots[slot]].append(out)
    for slot, number in slots.items():
        outs[number].append(streamer.finish(slot))
        streamer.leave(slot)
    return [torch.cat(out) for out in outs]


def wers(utterances: Sequence[Utterance], texts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the word error rate in per cent of every search."""
    count = sum(words(utterances))
    return {
        search: round(100 * sum(word_errors(utterances, found)) / count, 2) for search, found in texts.items()
    }


def verdict(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the speed of int8 over float32 in a single stream, and the largest loss in any WER, in points."""
    losses = [
        engines["int8"][search] - engines["fp32"][search]
        for engines in measured["wer"].values()
        for search in engines["fp32"]
    ]
    return {"speedup": measured["step"]["1"]["int8_vs_fp32"], "wer_delta": round(max(losses), 2)}


def parameters(model: AsrModel) -> int:
    """Return the parameters of what a step computes."""
    return sum(
        p.numel() for part in (model.encoder, model.ctc) if part is not None for p in part.parameters()
    )


def as_table(results: Mapping[str, Any]) -> str:
    """Return steps and word error rates as Markdown."""
    lines = [
        "| Model | Chunk | Streams | torch, ms | onnx | int8 | torch / onnx | torch / int8 | onnx / int8 |",
        "|---" * 9 + "|",
    ]
    for model, cut in product(("trained", "large"), CUTS):
        steps = results[model].get(cut, {}).get("step", {})
        lines += [
            f"| {model} | {cut} | {slots} {_cells(step['ms'], ENGINES)} {_cells(step, RATIOS)} |"
            for slots, step in steps.items()
        ]
    lines += ["", "| WER % | Chunk | torch | onnx | onnx-int8 |", "|---" * 5 + "|"]
    for cut, name, search in product(CUTS, SETS, ("greedy", "beam")):
        engines = results["trained"][cut]["wer"][name]
        lines.append(
            f"| {name}, {search} | {cut} | {' | '.join(f'{engines[e][search]:.2f}' for e in ENGINES)} |"
        )
    return "\n".join([*lines, "", f"int8 against float32: {dict(results['int8_vs_fp32'])}"])


def _cells(row: Mapping[str, float], columns: Iterable[str]) -> str:
    return "".join(f"| {row[column]:.2f} " for column in columns).rstrip()


if __name__ == "__main__":
    main()
