"""Ten thousand hostile clients beside honest ones: nothing fails, memory is bounded, nobody else hears a difference.

python -m benchmarks.serve_hostile --pool POOL --cases 10000 --json results/serve_hostile.json

Every case is drawn by its number: fuzzed messages in each dialect, broken frames and handshakes, ping floods, raw audio
that is no number, containers and files with bits flipped or cut off, playlists, hours of silence in a small file,
bodies that end early, clients that never read, and disconnects in every state. `--honest` sessions play recordings
meanwhile. The server has one core, the clients another. Files may hold two minutes of audio (`limits.upload_seconds`),
since every hour of silence in a small one would keep the core busy for as long as it takes to hear that much.

failures   answers of 500 and more that are not 503, and cases in which this benchmark itself failed
rss_mb     memory before, at most, and when all are gone
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from benchmarks.processes import resident_mb
from benchmarks.serve_attacks import CASES
from benchmarks.serve_client import Heard, one
from benchmarks.serve_fronts import CLIENT_CORE, Front, front
from benchmarks.serve_speech import Recording, recording

THREADS = 12
BUSY = 503
UPLOAD_SECONDS = 120
TOLD_EVERY = 500
HARNESS = "this benchmark: "


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--honest", type=int, default=3, help="sessions that others must not disturb")
    parser.add_argument("--seconds", type=float, default=30.0, help="of what they play, again and again")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with front("asgi", options.pool, f"limits.upload_seconds={UPLOAD_SECONDS}") as server:
        results = measure(server, options.cases, options.honest, options.seconds)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def measure(server: Front, cases: int, honest: int, seconds: float) -> dict[str, Any]:
    """Have so many hostile clients come, and return what was seen."""
    played = [recording(number, seconds) for number in range(honest)]
    over = threading.Event()
    alone = asyncio.run(_sessions(server.url, played, pace=0))
    before, peak = resident_mb(server.replica), [0.0]
    heard: list[Heard] = []
    broken: list[str] = [session.error for session in alone if session.error]

    def go_on() -> None:
        try:
            while not over.is_set():
                heard.extend(asyncio.run(_sessions(server.url, played, pace=1)))
        except Exception as error:
            broken.append(repr(error))

    def watch() -> None:
        while not over.wait(0.5):
            peak[0] = max(peak[0], resident_mb(server.replica))

    others = [threading.Thread(target=run, daemon=True) for run in (go_on, watch)]
    for thread in others:
        thread.start()
    began, outcomes = time.monotonic(), Counter[tuple[str, str]]()
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for done, outcome in enumerate(pool.map(lambda n: case(server.url, n), range(cases)), 1):
                outcomes[outcome] += 1
                if done % TOLD_EVERY == 0:
                    print(f"{done} cases in {time.monotonic() - began:.0f} s: {outcomes}", flush=True)
    finally:
        over.set()
    took = time.monotonic() - began
    for thread in others:
        thread.join(60)
    texts = {session.recording: session.finals for session in alone}
    return {
        "cases": cases,
        "seconds": round(took, 1),
        "outcomes": {f"{kind}: {what}": count for (kind, what), count in sorted(outcomes.items())},
        "failures": sum(
            n
            for (_, what), n in outcomes.items()
            if (what.isdigit() and int(what) >= 500 and int(what) != BUSY) or what.startswith(HARNESS)
        ),
        "internal": _internal(server.url),
        "alive": server.process.poll() is None,
        "honest_sessions": len(heard),
        "honest_errors": broken + [session.error for session in heard if session.error],
        "honest_other_texts": sum(session.finals != texts[session.recording] for session in heard),
        "sessions_left": _left(server.url),
        "rss_mb": {"before": before, "peak": peak[0], "after": resident_mb(server.replica)},
    }


def case(url: str, number: int) -> tuple[str, str]:
    """Carry out a case; return its kind and what came of it: a status, or how the connection ended."""
    draws = random.Random(number)
    (kind,) = draws.choices([kind for kind, _ in CASES], [share for _, share in CASES])
    try:
        status = kind(url, draws)
    except ConnectionRefusedError:
        return kind.__name__, "refused"
    except TimeoutError:
        return kind.__name__, "no answer in time"
    except (ConnectionClosed, InvalidHandshake, HTTPException, OSError):
        return kind.__name__, "ended"
    except Exception as error:
        return kind.__name__, HARNESS + repr(error)
    return kind.__name__, "ended" if status is None else str(status)


async def _sessions(url: str, played: Sequence[Recording], pace: float) -> list[Heard]:
    url = url.replace("http", "ws")
    begin = time.monotonic()
    return await asyncio.gather(*(one(url, r, Heard(n), begin, pace) for n, r in enumerate(played)))


def _internal(url: str) -> float:
    """Return how often the endpoint says that it has failed itself."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith("raysr_refused_total{") and "internal" in line
    )


def _left(url: str) -> int:
    """Return the sessions that are still there when idle ones had time to end."""
    deadline, found = time.monotonic() + 40, 1
    while found and time.monotonic() < deadline:
        time.sleep(0.5)
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/healthz", timeout=20) as answer:
            found = int(json.load(answer)["sessions"])
    return found


if __name__ == "__main__":
    main()
