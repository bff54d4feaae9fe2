"""A newcomer's path: from nothing to a transcript by a model of one's own, every command copied from the documentation.

python -m benchmarks.newcomer --json results/newcomer.json

In an empty folder: the first block of README.md (but for the demo), then the blocks of docs/your-own-data.md's first
section, carried out by a shell as they stand; `<this repository>` is this checkout, as it was committed.
Recordings and transcripts are those of the demo corpus, written as somebody has them: audio files and a table. What is
transcribed in the end is a test utterance; its reference stands beside it.
"""

import argparse
import json
import re
import shutil
import subprocess
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.code import ROOT
from raysr.audio.encode import flac_bytes, write_wav
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.text.normalise import normalise

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTION = "## In one go"
HOURS_S = 3 * 3600


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/newcomer"))
    options = parser.parse_args()
    work = options.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    results = follow(work)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def follow(work: Path) -> dict[str, Any]:
    """Do what the pages say, and return how long each command took and what came out."""
    (_, install), *_ = BLOCK.findall((ROOT / "README.md").read_text())
    lines = [line for line in install.splitlines() if not line.startswith("make demo")]
    steps = [step(work, "\n".join(lines).replace("<this repository>", str(ROOT)))]
    checkout = work / "raysr"
    reference = write_recordings(checkout)
    section = (ROOT / "docs/your-own-data.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    for language, text in BLOCK.findall(section):
        if language == "yaml":
            (checkout / "mine.yaml").write_text(text)
            continue
        steps += [step(checkout, f"source .venv/bin/activate\n{line}") for line in text.splitlines()]
    report = json.loads((checkout / "runs/mine/report.json").read_text())
    return {
        "minutes": round(sum(one["seconds"] for one in steps) / 60, 2),
        "steps": steps,
        "reference": reference,
        "transcript": steps[-1]["told"][-1],
        "dev_wer": [cycle["dev_wer"] for cycle in report["cycles"]],
    }


def write_recordings(checkout: Path) -> str:
    """Write audio and transcripts as somebody has them; return what is said in the one that is transcribed."""
    corpus = demo_corpus()
    (checkout / "recordings").mkdir()
    (checkout / "more").mkdir()
    table = []
    for utterance in corpus.labelled:
        (checkout / "recordings" / f"{utterance.id}.flac").write_bytes(flac_bytes(load_waveform(utterance)))
        table.append(f"{utterance.id}.flac\t{utterance.text}\n")
    (checkout / "transcripts.tsv").write_text("".join(table))
    for utterance in islice(corpus.unlabelled, 900):
        (checkout / "more" / f"{utterance.id}.flac").write_bytes(flac_bytes(load_waveform(utterance)))
    said = next(iter(corpus.tests["clean"]))
    write_wav(checkout / "meeting.wav", load_waveform(said))
    return normalise(said.text or "")


def step(folder: Path, commands: str) -> dict[str, Any]:
    """Carry out commands in a shell, and return how long that took."""
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HOURS_S,
    )
    told = done.stdout.strip().splitlines()
    if done.returncode:
        raise SystemExit(f"error: {commands}\n" + "\n".join(told[-20:]))
    shown = commands.splitlines()[-1]
    print(f"{time.monotonic() - began:.0f} s: {shown}", flush=True)
    return {"command": shown, "seconds": round(time.monotonic() - began, 1), "told": told[-3:]}


def as_table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = [f"| `{one['command']}` | {one['seconds']} |" for one in results["steps"]]
    return "\n".join(["| command | seconds |", "|---|---|", *rows])


if __name__ == "__main__":
    main()
