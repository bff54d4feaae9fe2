"""The same from the device as from a CPU, and the same from a stream as from a whole utterance."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from raysr.decode.events import Event, Final
from raysr.decode.recognise import DecodeConfig, recognise, recognise_masked
from raysr.decode.segments import SegmentDecoder
from raysr.model.chunking import CHUNKING, Chunking
from raysr.model.config import AttentionConfig, ModelConfig
from raysr.model.model import AsrModel, Losses
from raysr.model.streaming import Streamer
from raysr.train.batch import Batch
from raysr.train.check.bench import Bench
from raysr.train.check.finding import Finding, faults, largest

METHODS = ("greedy", "beam", "rescore")
LOSSES_APART = 1e-4
GRADIENTS_APART = 1e-3
STREAM_APART = 1e-3
"""Relative to the largest; kernels sum in other orders for other shapes."""
PUSHED = (1, 7, 160, 33, 4)
"""Frames that come at a time, in turn."""
STREAMING: dict[str, ModelConfig] = {
    kind: ModelConfig.parse(
        {
            "encoder": {
                "kind": kind,
                "dim": 32,
                "layers": 2,
                "heads": 2,
                "feed_forward": 64,
                "attention": AttentionConfig(kind=attention).model_dump(),
            }
        }
    )
    for kind, attention in (("transformer", "flow"), ("lstm", "dynamic"))
}
"""Encoders that stream in other ways than the student's."""


def check_cpu(bench: Bench) -> Iterator[Finding]:
    """Compare losses and gradients of a fresh student, and what one that has learned hears, with those on a CPU."""
    with full_float32():
        yield same_losses(bench, bench.fresh(), bench.fresh().to(bench.device))
        yield same_texts(bench, bench.student, copy.deepcopy(bench.student).to(bench.device))


def same_losses(bench: Bench, here: AsrModel, there: AsrModel) -> Finding:
    """Say how far the losses and gradients of two models are apart."""
    ours, ours_of = _losses(here, bench.batch)
    theirs, theirs_of = _losses(there, bench.batch)
    apart = largest(abs(b / a - 1) for a, b in zip(ours, theirs, strict=True))
    gradients = float((theirs_of - ours_of).norm() / ours_of.norm())
    said = f"losses {apart:.1e} apart, gradients {gradients:.1e}"
    found = faults(
        losses_differ=not apart <= LOSSES_APART,
        gradients_differ=not gradients <= GRADIENTS_APART,
    )
    return Finding("losses, CPU = device", said, {"losses_apart": apart, "gradients_apart": gradients}, found)


def same_texts(bench: Bench, here: AsrModel, there: AsrModel) -> Finding:
    """Say how many transcripts of two models are the same, by every method."""
    texts = {method: (_texts(bench, here, method), _texts(bench, there, method)) for method in METHODS}
    same = {method: sum(a == b for a, b in zip(*pair, strict=True)) for method, pair in texts.items()}
    heard, _ = texts["greedy"]
    right, count = sum(a == u.text for a, u in zip(heard, bench.by_heart, strict=True)), len(heard)
    told = ", ".join(f"{number} of {count} by {method}" for method, number in same.items())
    found = faults(
        transcripts_differ=any(number < count for number in same.values()),
        nothing_was_learned=not any(heard),
    )
    numbers = {"same": same, "utterances": count, "right": right}
    return Finding("transcripts, CPU = device", f"the same {told}; {right} are right", numbers, found)


def check_streaming(bench: Bench) -> Iterator[Finding]:
    """Encode streams chunk by chunk on the device, and the same utterances whole under a mask of chunks."""
    with full_float32():
        student = copy.deepcopy(bench.student).to(bench.device)
        yield streamed(bench, "student", student, CHUNKING, texts=True)
        for kind, config in STREAMING.items():
            model = bench.fresh(config).to(bench.device).eval()
            yield streamed(bench, kind, model, Chunking(size=8, left=4, lookahead=0), texts=False)


def streamed(bench: Bench, name: str, model: AsrModel, chunking: Chunking, texts: bool) -> Finding:
    """Say how far a model's streams are from its whole utterances, and whether they have the same ``texts``."""
    features = bench.features
    outs = _streams(Streamer(model, *chunking, slots=len(features)), features)
    lengths = torch.tensor([len(f) for f in features], device=bench.device)
    with torch.inference_mode():
        padded = pad_sequence(features, batch_first=True).to(bench.device)
        whole = model.encode(padded, lengths, *chunking)
    scale = float(whole.out.abs().max())
    frames = [len(out) == int(length) for out, length in zip(outs, whole.lengths, strict=True)]
    apart = largest(
        float((out - row[: len(out)]).abs().max()) / scale for out, row in zip(outs, whole.out, strict=True)
    )
    pairs = [_both_texts(bench, model, *of, chunking) for of in zip(features, outs, strict=True) if texts]
    same = sum(live == masked for live, masked in pairs)
    said = f"{len(outs)} streams {apart:.1e} from whole utterances"
    said += f", {same} of {len(outs)} transcripts the same" if texts else ""
    found = faults(
        frames_are_missing=not all(frames),
        encoder_frames_differ=not apart <= STREAM_APART,
        transcripts_differ=same < len(pairs),
        nothing_was_recognised=texts and not any(live for live, _ in pairs),
    )
    numbers = {"apart": apart, "streams": len(outs), **({"same": same} if texts else {})}
    return Finding(f"streaming ({name})", said, numbers, found)


@contextmanager
def full_float32() -> Iterator[None]:
    """Have convolutions in float32 where torch would take TensorFloat-32, whose numbers have ten bits."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        yield


def _losses(model: AsrModel, batch: Batch) -> tuple[list[float], Tensor]:
    """Return the losses of a model, and all its gradients on the CPU, (N,)."""
    model.zero_grad(set_to_none=True)
    context = torch.Generator().manual_seed(0)
    losses: Losses = model(*batch.to(next(model.parameters()).device).tensors, context)
    losses.total.backward()
    gradients = nn.utils.parameters_to_vector([p.grad for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return [loss.item() for loss in losses[:3]], gradients.cpu()


def _texts(bench: Bench, model: AsrModel, method: str) -> list[str]:
    found = recognise(model, bench.tokeniser, bench.features, DecodeConfig.parse({"method": method}))
    return [bench.tokeniser.decode(list(nbest[0].tokens)) for nbest in found]


def _streams(streamer: Streamer, features: Sequence[Tensor]) -> list[Tensor]:
    """Return the encoder frames (T', D) of streams that go on at the same time, each pushed bit by bit."""
    slots = [streamer.join() for _ in features]
    outs: dict[int, list[Tensor]] = {slot: [] for slot in slots}
    pushed, turn = [0] * len(slots), 0
    while any(count < len(f) for count, f in zip(pushed, features, strict=True)):
        for number, slot in enumerate(slots):
            more = PUSHED[(turn + number) % len(PUSHED)]
            streamer.push(slot, features[number][pushed[number] : pushed[number] + more])
            pushed[number] += more
        for slot, out in streamer.step().items():
            outs[slot].append(out)
        turn += 1
    while ready := streamer.step():
        for slot, out in ready.items():
            outs[slot].append(out)
    return [torch.cat([*outs[slot], streamer.finish(slot)]) for slot in slots]


def _both_texts(
    bench: Bench, model: AsrModel, features: Tensor, out: Tensor, chunking: Chunking
) -> tuple[list[str], list[str]]:
    """Return the texts of a stream's encoder frames (T', D), and of the whole utterance (T, mel_bins)."""
    config = DecodeConfig()
    decoder = SegmentDecoder(model, config, None, bench.tokeniser)
    live = [*decoder.push(out), *decoder.finish()]
    return _finals(live), _finals(recognise_masked(model, bench.tokeniser, None, features, *chunking, config))


def _finals(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]
