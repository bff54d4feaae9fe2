"""Word error rate and speed of teachers on transcribed audio: what a student that they taught is measured against.

python -m benchmarks.teachers data/speech/held-out --json results/teachers.json
python -m benchmarks.teachers data/speech/train --truth data/speech/train/truth.jsonl --json results/labels.json

A teacher is its kind or, as under `builder.teachers`, its kind and options:
'{kind: pool_model, entries: [runs/demo/pool/cycle-002]}'. Speed is seconds of audio read in one second, in one process.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from raysr.config import Spec
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import load_truth, open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import RaysrError
from raysr.evaluate.wer import score, total
from raysr.teachers.base import TeacherContext, Waveform, build_teacher


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--truth", type=Path, help="transcripts that are kept apart from the audio")
    parser.add_argument("--teachers", nargs="+", default=["moonshine", "pocketsphinx"])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    options = parser.parse_args()
    truth = load_truth(options.truth) if options.truth else {}
    transcribed = [
        (u, text) for u in open_manifest(options.manifest) if (text := truth.get(u.id, u.text)) is not None
    ]
    if not transcribed:
        raise SystemExit(f"{options.manifest} has no transcripts: name a file of them with --truth")
    utterances, texts = zip(*transcribed, strict=True)
    waveforms = [load_waveform(u) for u in utterances]
    results = {name: measure(name, utterances, waveforms, texts) for name in options.teachers}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def measure(
    teacher: str, utterances: Sequence[Utterance], waveforms: Sequence[Waveform], texts: Sequence[str]
) -> dict[str, Any]:
    """Return error counts and speed of one teacher; what it fails on counts as nothing heard."""
    written = yaml.safe_load(teacher)
    spec = Spec(**(written if isinstance(written, dict) else {"kind": written}))
    built = build_teacher(spec, TeacherContext())
    started = time.perf_counter()
    outputs = [output for waveform in waveforms for output in built.transcribe([waveform])]
    seconds = time.perf_counter() - started
    words = total(
        row.words for row in score([u.id for u in utterances], texts, [output.text for output in outputs])
    )
    return {
        "wer": words.rate,
        "errors": words.errors,
        "words": words.reference,
        "utterances": len(utterances),
        "failed": sum(output.error is not None for output in outputs),
        "times_real_time": sum(u.duration for u in utterances) / seconds,
    }


def as_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = ["| teacher | WER in % | errors | of words | failed | times real time |", "|---" * 6 + "|"]
    lines += [
        f"| {name} | {100 * r['wer']:.1f} | {r['errors']} | {r['words']} | {r['failed']} | {r['times_real_time']:.1f} |"
        for name, r in results.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except RaysrError as error:
        raise SystemExit(f"error: {error}") from None
