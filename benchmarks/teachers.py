"""Word error rate and speed of teachers on transcribed audio: what a student that they taught is measured against.

python -m benchmarks.teachers data/speech/held-out --json results/teachers.json
python -m benchmarks.teachers data/speech/train --truth data/speech/train/truth.jsonl --json results/labels.json

A teacher is its kind or, as under `builder.teachers`, its kind and options:
'{kind: pool_model, entries: [runs/demo/pool/cycle-002]}'. A student that hears a stream is
'{kind: benchmarks.teachers:Streamed, entry: runs/demo/pool/cycle-002, chunk: 16}'. Speed is seconds of audio that are
read in one second, in one process; raysr's models have one thread of it.
The best half is that by the teacher's own score, and says what a filter can make of it. Of several teachers the votes
follow, in the order in which they are named.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import Field

from raysr.config import Config as Options
from raysr.config import Spec
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import load_truth, open_manifest
from raysr.errors import RaysrError
from raysr.evaluate.wer import score, total
from raysr.ipl.voting import Vote
from raysr.model.chunking import CHUNKING, Chunking
from raysr.pool import Pool, load_entry
from raysr.stream.events import Final
from raysr.stream.session import Session
from raysr.stream.streaming_model import StreamingModel
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform, build_teacher

BLOCK = 320  # samples: 20 ms
VOTES = [Vote(kind="nearest"), Vote(kind="rover"), Vote(kind="rover", alpha=0.5), Vote(kind="surest")]


class Streamed:
    """A pool entry as teacher that hears its audio as a live stream, a fiftieth of a second at a time."""

    class Config(Options):
        """The entry's folder, and the frames that its encoder sees at once, of the past and beyond."""

        entry: str
        chunk: int = Field(default=CHUNKING.size, ge=1)
        left_chunks: int = Field(default=CHUNKING.left, ge=-1)
        lookahead: int = Field(default=CHUNKING.lookahead, ge=0)

    def __init__(self, config: Config, context: TeacherContext) -> None:
        entry = Pool(Path(config.entry).parent).get(Path(config.entry).name)
        self.name, self.version = f"{entry.name}, streamed", entry.weights_hash[:16]
        self._recogniser = load_entry(entry, context.device)
        self._chunking = Chunking(config.chunk, config.left_chunks, config.lookahead)

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return [TeacherOutput(text=self._hear(waveform)) for waveform in waveforms]

    def _hear(self, waveform: Waveform) -> str:
        session = Session(StreamingModel(self._recogniser, chunking=self._chunking))
        events = [
            e
            for first in range(0, len(waveform), BLOCK)
            for e in session.push(waveform[first : first + BLOCK])
        ]
        finals = [event for event in [*events, *session.finish()] if isinstance(event, Final) and event.text]
        return " ".join(final.text for final in finals)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--truth", type=Path, help="transcripts that are kept apart from the audio")
    parser.add_argument("--teachers", nargs="+", default=["moonshine", "pocketsphinx"])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    truth = load_truth(options.truth) if options.truth else {}
    transcribed = [
        (u, text) for u in open_manifest(options.manifest) if (text := truth.get(u.id, u.text)) is not None
    ]
    if not transcribed:
        raise SystemExit(f"{options.manifest} has no transcripts: name a file of them with --truth")
    utterances, texts = zip(*transcribed, strict=True)
    waveforms = [load_waveform(u) for u in utterances]
    heard = {name: listen(name, waveforms) for name in options.teachers}
    results = {
        name: measure(outputs, texts) | {"times_real_time": sum(u.duration for u in utterances) / seconds}
        for name, (outputs, seconds) in heard.items()
    }
    if len(heard) > 1:
        every = list(zip(*(outputs for outputs, _ in heard.values()), strict=True))
        results |= {label_of(vote): measure([elect(vote, o) for o in every], texts) for vote in VOTES}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def listen(teacher: str, waveforms: Sequence[Waveform]) -> tuple[list[TeacherOutput], float]:
    """Return what a teacher says of each waveform, one at a time, and the seconds that it took."""
    written = yaml.safe_load(teacher)
    spec = Spec(**(written if isinstance(written, dict) else {"kind": written}))
    built = build_teacher(spec, TeacherContext())
    started = time.perf_counter()
    outputs = [output for waveform in waveforms for output in built.transcribe([waveform])]
    return outputs, time.perf_counter() - started


def label_of(vote: Vote) -> str:
    """Return what a vote is called in the table."""
    return f"vote: {vote.kind}" + (f", alpha {vote.alpha:g}" if vote.kind == "rover" else "")


def elect(vote: Vote, outputs: Sequence[TeacherOutput]) -> TeacherOutput:
    """Return the label of an utterance as a run would make it."""
    label = vote.elect([o for o in outputs if o.error is None], len(outputs))
    return label or TeacherOutput(error="no teacher answered")


def measure(outputs: Sequence[TeacherOutput], texts: Sequence[str]) -> dict[str, Any]:
    """Return error counts, of all and of the better scored half; what failed counts as nothing heard."""
    ids = [str(n) for n in range(len(texts))]
    rows = score(ids, texts, [output.text for output in outputs])
    words = total(row.words for row in rows)
    scores = [output.normalised_score for output in outputs]
    half = None
    if all(one is not None for one in scores):
        best = sorted(range(len(rows)), key=lambda n: -(scores[n] or 0.0))[: len(rows) // 2]
        half = total(rows[n].words for n in best).rate
    return {
        "wer": words.rate,
        "best_half_wer": half,
        "errors": words.errors,
        "words": words.reference,
        "utterances": len(texts),
        "failed": sum(output.error is not None for output in outputs),
    }


def as_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results as Markdown."""
    heads = ["teacher", "WER in %", "of its best half", "errors", "of words", "failed", "times real time"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, r in results.items():
        half, speed = r["best_half_wer"], r.get("times_real_time")
        cells = [
            name,
            f"{100 * r['wer']:.1f}",
            "–" if half is None else f"{100 * half:.1f}",
            str(r["errors"]),
            str(r["words"]),
            str(r["failed"]),
            "–" if speed is None else f"{speed:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except RaysrError as error:
        raise SystemExit(f"error: {error}") from None
