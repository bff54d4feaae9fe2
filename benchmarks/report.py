"""The report of a large run: how long it takes to write, how large it is, and how soon a browser shows it.

python -m benchmarks.report --json results/report.json

A run of three cycles over 100,000 utterances is made up: decisions of all of them, scores of test utterances, metrics
of training, events, and noise to be heard. Chromium opens the page from disk, without a network, a new browser each
time; `open_s` is from the call to the load event with the page laid out, the median of several.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from raysr.evaluate.listening import Listening, listening
from raysr.evaluate.report import write_report
from raysr.ipl.decisions import Decision, Status, write_decisions

CYCLES = 3
WORDS = ("please", "call", "anna", "about", "the", "meeting", "on", "friday")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--tests", type=int, default=10_000, help="test utterances")
    parser.add_argument("--audio", type=int, default=20, help="of each list, what can be heard")
    parser.add_argument("--times", type=int, default=5, help="the page is opened")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    options = parser.parse_args()
    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        make_run(run, options.utterances, options.tests, draws)

        def listen(name: str, identifier: str) -> Listening:
            return listening(draws.normal(0, 0.1, 16000 * 6).astype(np.float32))

        started = time.perf_counter()
        page = write_report(run, listen=listen, played=options.audio)
        result = {
            "utterances": options.utterances,
            "write_s": round(time.perf_counter() - started, 2),
            "size_mb": round(page.stat().st_size / 1e6, 2),
            **opened(page, options.times),
        }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def make_run(run: Path, utterances: int, tests: int, draws: np.random.Generator) -> None:
    """Write a run's files."""
    run.mkdir()
    (run / "config.yaml").write_text("run: {cycles: 3}\n")
    statuses: tuple[Status, ...] = ("kept", "filtered", "failed")
    reports = []
    steps = ("predictions", "student")
    events = [{"event": "cycle began", "cycle": c, "cpus": 8, "gpus": 1} for c in range(CYCLES)]
    events += [
        {"event": f"step {what}", "cycle": c, "step": step, **took}
        for c in range(CYCLES)
        for step in steps
        for what, took in (("began", {}), ("ended", {"seconds": 3600.0}))
    ]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for cycle in range(CYCLES):
        folder = run / "cycles" / f"{cycle:03d}"
        (folder / "train").mkdir(parents=True)
        if cycle:
            chosen = draws.choice(3, size=utterances, p=[0.7, 0.28, 0.02])
            write_decisions(
                folder / "decisions.parquet",
                (
                    Decision(
                        f"utterance-{n:06d}",
                        statuses[s],
                        None if s == 2 else " ".join(WORDS),
                        (None, f"score -{n % 97 / 10} below the threshold", f"/data/{n}.flac: damaged")[s],
                        -0.5,
                        6.0,
                        "abc",
                        "score" if s == 1 else None,
                    )
                    for n, s in enumerate(chosen)
                ),
            )
        wrong = draws.binomial(len(WORDS), 0.4 - 0.1 * cycle, size=tests)
        with (folder / "scores.jsonl").open("w") as file:
            for method in ("greedy", "lm"):
                for n, errors in enumerate(wrong):
                    file.write(json.dumps(scored(n, method, int(errors))) + "\n")
        rate = float(wrong.sum()) / tests / len(WORDS)
        report: dict[str, Any] = {"cycle": cycle, "wer": {m: {"clean": rate} for m in ("greedy", "lm")}}
        if cycle:
            report |= {"offered_h": utterances / 600, "kept_h": utterances / 900, "filtered": 1, "failed": 1}
        (folder / "report.json").write_text(json.dumps(report))
        reports.append(report)
        steps = (
            json.dumps({"step": s, "loss": 300 / s, "seconds_per_step": 0.2}) for s in range(10, 30_000, 10)
        )
        (folder / "train" / "metrics.jsonl").write_text("\n".join(steps) + "\n")
    (run / "report.json").write_text(json.dumps({"finished": True, "cycles": reports}))


def scored(number: int, method: str, errors: int) -> dict[str, Any]:
    """Return a row of ``scores.jsonl``."""
    heard = ["hm" if place < errors else word for place, word in enumerate(WORDS)]
    return {
        "id": f"test-{number:05d}",
        "set": "clean",
        "method": method,
        "errors": errors,
        "words": len(WORDS),
        "reference": " ".join(WORDS),
        "hypothesis": " ".join(heard),
    }


def opened(page: Path, times: int) -> dict[str, Any]:
    """Open a page in new browsers; return the seconds, and what their consoles said."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SystemExit("chromium is not installed: apt-get install chromium")
    seconds, said = [], list[str]()
    with sync_playwright() as playwright:
        for _ in range(times):
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            context = browser.new_context(offline=True)
            tab = context.new_page()
            tab.on("console", lambda message: said.append(message.text))
            tab.on("pageerror", lambda error: said.append(str(error)))
            started = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="load")
            tab.evaluate("document.body.getBoundingClientRect().height")
            seconds.append(time.perf_counter() - started)
            browser.close()
    return {"open_s": round(statistics.median(seconds), 3), "console": said}


if __name__ == "__main__":
    main()
