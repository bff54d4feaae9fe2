"""How many live sessions one core serves, how late their words are, and what Ray Serve and others' recognisers take.

python -m benchmarks.serve --pool POOL --json results/serve.json

The server has one core, the clients another. A session plays test utterances of the demo corpus at real time, 70%
speech, in packets of a tenth of a second; after every second utterance it asks for a final, the others end by their
pause. The largest number of sessions is sought by trials of `--trial` seconds, of which one that fails is repeated, and
holds for `--minutes` in the end, on a server that was started anew: p95 of the time from the request to its final at
most 500 ms, no error, no lag that grows, and the texts of every session those of the same recording played alone.

bare        the engine in a process of its own, to which audio is handed without sockets and messages
asgi        the application under uvicorn
alone       the same, but each session stepped by itself
serve       on Ray Serve with its default proxy, `raysr serve`; all of Ray is on the server's core
haproxy     on Ray Serve behind HAProxy
pocketsphinx, moonshine  one stream of theirs on one core, as fast as it goes

Latencies are those of the clients (see raysr/stream/latency.py), in seconds. `upwr`: words that a partial took back,
by words of finals (Shangguan et al., arXiv 2006.01416). `rtf`: CPU time of all the server's processes by audio.
`rss_per_session`: memory of the server while they play, beyond what it had after one session, by sessions. `tried` has
every trial and what was wrong with it. A server that is in the results of the same model and code already is not
measured again.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.code import code_hash
from benchmarks.serve_client import RECORDINGS
from benchmarks.serve_fronts import BARE, FRONTS, MOST_SESSIONS, SERVER_CORE, Server, server
from benchmarks.serve_others import OTHERS
from benchmarks.serve_speech import recording
from raysr.evaluate.wer import score
from raysr.pool import Pool

CODE = (
    *(f"benchmarks.{name}" for name in ("serve", "serve_client", "serve_bare", "serve_server")),
    *("raysr.serving.run", "raysr.serving.deployment"),
)
MOST_FINALISATION = 0.5
MOST_LAG_GROWTH = 0.25  # s, from the first third to the last
MOST_BEHIND = 0.25  # s, of the clients themselves: a trial in which they were says nothing of the server
CLIENTS_LATE = "clients were late"
TRIALS, MOST_FAILURES = 3, 2  # of a number of sessions; those in which clients were late are no failures
ATTEMPTS = 4
MEASURED = (BARE, *FRONTS, *OTHERS)
LATE = ("first_partial", "emission", "finalisation", "final_endpoint")
TOLD = (
    "sessions",
    "finalisation_p50",
    "finalisation_p95",
    "emission_p95",
    "lag_growth",
    "rtf",
    "wer",
    "failed",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True, help="whose newest entry is served")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--minutes", type=float, default=5.0, help="that the number found has to hold for")
    parser.add_argument("--trial", type=float, default=60.0, help="seconds of a trial while it is sought")
    parser.add_argument("--first", type=int, default=4, help="the number of sessions that is tried first")
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=MEASURED)
    options = parser.parse_args()
    entry = Pool(options.pool).latest()
    if entry is None:
        parser.error(f"--pool: {options.pool} has no entry")
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    about = {"entry": entry.weights_hash, "code": code_hash(CODE)}
    if any(results.get(what) != value for what, value in about.items()):
        results = {**about, "model": dict(entry.metrics)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    alone: list[list[str]] = []
    for name in options.only:
        if name in results and "error" not in results[name]:
            continue
        try:
            results[name] = (
                other(name)
                if name in OTHERS
                else capacity(partial(server, name, options.pool), options, alone)
            )
        except (SystemExit, subprocess.CalledProcessError) as error:
            results[name] = {"error": str(error)}
        results |= headline(results)
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))
    if broken := [name for name in options.only if "error" in results[name]]:
        raise SystemExit(f"error: not measured: {', '.join(broken)}")


def capacity(
    start: Callable[[], AbstractContextManager[Server]], options: argparse.Namespace, alone: list[list[str]]
) -> dict[str, Any]:
    """Seek the largest number of sessions that holds, and return what was measured with it.

    Args:
        start: a server, for as long as a block runs.
        options: how long trials take, and the whole.
        alone: the texts of each recording, played alone; filled if it is empty.
    """
    trial, whole = options.trial, 60 * options.minutes
    tried: list[dict[str, Any]] = []
    known: dict[int, bool] = {}

    def tell(found: dict[str, Any], seconds: float) -> None:
        tried.append({"seconds": seconds, **{name: found[name] for name in TOLD}})
        print(f"{found['sessions']} sessions for {seconds:g} s: {tried[-1]}", flush=True)

    with start() as running:

        def holds(sessions: int) -> bool:
            if sessions not in known:
                known[sessions] = holds_once(sessions)
            return known[sessions]

        def holds_once(sessions: int) -> bool:
            failures = 0
            for _ in range(TRIALS):
                found = play(running, sessions, trial)
                tell(found, trial)
                if not found["failed"]:
                    return True
                failures += set(found["failed"]) != {CLIENTS_LATE}
                if failures == MOST_FAILURES:
                    break
            return False

        sessions = largest(holds, options.first)
    for _ in range(ATTEMPTS):
        if not sessions:
            break
        with start() as running:
            alone += [] if alone else texts_alone(running, whole)
            running.played(1, trial, pace=0)  # what the first session takes is no other session's
            found = play(running, sessions, whole, alone)
        tell(found, whole)
        if not found["failed"]:
            return {**found, "tried": tried}
        sessions = min(sessions - 1, math.floor(0.93 * sessions))
    return {"sessions": 0, "tried": tried}


def largest(holds: Callable[[int], bool], first: int) -> int:
    """Return the largest number that holds, within 5%; ``first`` is tried first."""
    low, high = 0, first
    while high <= MOST_SESSIONS and holds(high):
        low, high = high, 2 * high
    while high - low > max(1, 0.05 * low):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def texts_alone(running: Server, seconds: float) -> list[list[str]]:
    """Return the finals of each recording, played alone."""
    texts: list[list[str]] = []
    for number in range(RECORDINGS):
        (heard,) = running.played(1, seconds, number, pace=0).heard
        if heard["error"]:
            raise SystemExit(f"error: recording {number}, played alone: {heard['error']}")
        texts.append(heard["finals"])
    return texts


def play(
    running: Server, sessions: int, seconds: float, alone: Sequence[Sequence[str]] | None = None
) -> dict[str, Any]:
    """Play in so many sessions, and return what they saw; ``failed`` says what does not hold."""
    played = running.played(sessions, seconds)
    found = played.heard
    late: dict[str, list[float]] = {}
    for heard in found:
        for what, times in heard["late"].items():
            late.setdefault(what, []).extend(times)
    late["finalisation"] = late.pop("final_finalize", []) + late.pop("final_stop", [])
    growth = max(_lag_growth(heard["lags"]) for heard in found)
    figures = {f"{what}_p{rank}": quantile(late.get(what, []), rank) for what in LATE for rank in (50, 95)}
    audio = sum(len(recording(heard["recording"], seconds).samples) / 16000 for heard in found)
    wrong = [
        {"session": number, "heard": heard["finals"], "alone": alone[heard["recording"]]}
        for number, heard in enumerate(found)
        if alone is not None and heard["finals"] != alone[heard["recording"]]
    ]
    complaints = {
        "errors": [heard["error"] for heard in found if heard["error"]],
        "late": figures["finalisation_p95"] > MOST_FINALISATION,
        "lag grows": growth > MOST_LAG_GROWTH,
        "other texts": wrong,
        CLIENTS_LATE: max(heard["behind"] for heard in found) > MOST_BEHIND,
    }
    return {
        "sessions": sessions,
        "failed": {what: which for what, which in complaints.items() if which},
        **figures,
        "upwr": round(sum(h["unstable"] for h in found) / max(1, sum(h["words"] for h in found)), 4),
        "rtf": round(played.busy / audio, 5),
        "lag_growth": round(growth, 3),
        "rss_mb": played.rss_mb,
        "rss_before_mb": played.rss_before_mb,
        "wer": round(word_error_rate(found, seconds), 4),
    }


def word_error_rate(found: Sequence[dict[str, Any]], seconds: float) -> float:
    """Return the WER of all that was played."""
    names = [str(number) for number in range(len(found))]
    references = [recording(heard["recording"], seconds).text for heard in found]
    rows = score(names, references, [" ".join(heard["finals"]) for heard in found])
    return sum(row.words.errors for row in rows) / sum(len(text.split()) for text in references)


def quantile(times: Sequence[float], rank: int) -> float:
    """Return a percentile in seconds; infinite where nothing was measured."""
    return round(float(np.percentile(times, rank)), 4) if times else math.inf


def _lag_growth(lags: Sequence[tuple[float, float]]) -> float:
    """Return by how much the lag of the last third is more than that of the first, by medians."""
    if not lags:
        return math.inf
    begin, end = lags[0][0], lags[-1][0]
    third = (end - begin) / 3
    first = [lag for when, lag in lags if when <= begin + third]
    last = [lag for when, lag in lags if when >= end - third]
    return statistics.median(last) - statistics.median(first)


def other(name: str) -> dict[str, Any]:
    """Measure another recogniser's live mode in a process on the server's core."""
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "benchmarks.serve_others", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def headline(results: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the plain application, and what is measured against it."""
    found: dict[str, Any] = {}
    sessions = {name: results[name]["sessions"] for name in MEASURED if "sessions" in results.get(name, {})}
    if "asgi" in sessions:
        asgi = results["asgi"]
        names = ["sessions", "upwr", "rtf", "wer", *(f"{kind}_p{rank}" for kind in LATE for rank in (50, 95))]
        found = {name: asgi.get(name) for name in names}
        if asgi["sessions"]:
            grown = asgi["rss_mb"] - asgi["rss_before_mb"]
            found["rss_per_session"] = round(grown / asgi["sessions"], 3)
        if "alone" in sessions:
            found["batched_vs_single"] = round(asgi["sessions"] / max(1, sessions["alone"]), 3)
    for name, base in product(("serve", "haproxy"), (BARE, "asgi")):
        if name in sessions and base in sessions:
            found[f"{name}_vs_{base}"] = round(sessions[name] / max(1, sessions[base]), 3)
    return found


def as_table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| server | sessions | first partial p50/p95 | emission | finalisation | after a pause | UPWR | RTF | WER % |",
        "|---" * 9 + "|",
    ]
    for name in MEASURED:
        found = results.get(name, {})
        if "sessions" in found:
            pairs = [f"{found.get(f'{kind}_p50', '')} / {found.get(f'{kind}_p95', '')}" for kind in LATE]
            last = (found.get(figure, "") for figure in ("upwr", "rtf"))
            wer = f"{100 * found['wer']:.1f}" if "wer" in found else ""
            lines.append(
                f"| {name} | {found['sessions']} | " + " | ".join([*pairs, *map(str, last), wer]) + " |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
