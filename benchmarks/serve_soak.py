"""An endpoint under load for half an hour, sessions coming and going: memory, latency, errors.

python -m benchmarks.serve_soak --pool POOL --found results/serve.json --json results/serve_soak.json

80% of the places that `benchmarks.serve` has found are always taken: who has played its recording of 10 to 60 s leaves,
by a CloseStream three times out of four and without a word otherwise, and another one comes. The server has
one core, the clients another. Memory is what is resident every minute: a line through the minutes after `--settle`
tells its slope. Latencies are told for each fifth of the time. What was seen is written every minute.
"""

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.joined import RATE
from benchmarks.long_stream import growth
from benchmarks.processes import resident_mb
from benchmarks.serve import quantile
from benchmarks.serve_client import Heard, one
from benchmarks.serve_fronts import CLIENT_CORE, Front, front
from benchmarks.serve_speech import PACKET, Recording, recording

LENGTHS = (10.0, 20.0, 40.0, 60.0)
FIFTHS = 5
SHARE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True, help="whose newest entry is served")
    places = parser.add_mutually_exclusive_group(required=True)
    places.add_argument(
        "--found", type=Path, help="results of `benchmarks.serve`: 80%% of its sessions at a time"
    )
    places.add_argument("--sessions", type=int, help="so many at a time")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--settle", type=int, default=5, help="minutes before memory counts")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    options = parser.parse_args()
    sessions = options.sessions or int(SHARE * json.loads(options.found.read_text())["sessions"])
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    played = [recording(number, seconds) for number, seconds in enumerate(LENGTHS)]
    options.json.parent.mkdir(parents=True, exist_ok=True)

    def tell(results: dict[str, Any]) -> None:
        settled = results["rss_mb"][options.settle :]
        results["memory"] = growth(settled) if len(settled) > 1 else {}
        options.json.write_text(json.dumps(results, indent=1) + "\n")

    with front("asgi", options.pool) as server:
        texts = asyncio.run(alone(server, played))
        results = asyncio.run(soak(server, played, sessions, 60 * options.minutes, texts, tell=tell))
    print(json.dumps({key: value for key, value in results.items() if key != "rss_mb"}, indent=1))


async def alone(server: Front, played: Sequence[Recording]) -> list[list[str]]:
    """Return the finals of each recording, played alone."""
    url = server.url.replace("http", "ws")
    return [(await one(url, r, Heard(n), time.monotonic(), 0)).finals for n, r in enumerate(played)]


async def soak(
    server: Front,
    played: Sequence[Recording],
    sessions: int,
    seconds: float,
    texts: Sequence[Sequence[str]],
    pace: float = 1.0,
    every: float = 60.0,
    tell: Callable[[dict[str, Any]], object] = lambda seen: None,
) -> dict[str, Any]:
    """Have so many places taken for so long, and return what was seen.

    Args:
        server: a server that runs.
        played: the recordings.
        sessions: places.
        seconds: how long somebody who leaves is followed by another one.
        texts: the finals of each recording.
        pace: seconds that a second of a recording takes.
        every: seconds between looks at the server's memory.
        tell: told what was seen so far at each look, and in the end.
    """
    began = time.monotonic()
    heard: list[tuple[float, Heard]] = []
    left, errors = 0, list[str]()

    async def place(number: int) -> None:
        nonlocal left
        draws = random.Random(number)
        await asyncio.sleep(pace * draws.uniform(0, 10))
        while (now := time.monotonic()) < began + seconds:
            which = draws.randrange(len(played))
            session = one(server.url.replace("http", "ws"), played[which], Heard(which), now, pace)
            if draws.random() < 0.25:  # it leaves in the middle, without a word
                length = len(played[which].samples) / RATE
                try:
                    async with asyncio.timeout(pace * draws.uniform(PACKET / RATE, length)):
                        await session
                except TimeoutError:
                    left += 1
            else:
                heard.append((now - began, await session))

    resident: list[float] = []

    def seen() -> dict[str, Any]:
        late: list[list[float]] = [[] for _ in range(FIFTHS)]
        for when, session in heard:
            times = session.late.get("final_finalize", []) + session.late.get("final_stop", [])
            late[min(FIFTHS - 1, int(FIFTHS * when / seconds))] += times
        return {
            "sessions": sessions,
            "played": len(heard),
            "left": left,
            "errors": errors + [session.error for _, session in heard if session.error],
            "other_texts": sum(
                list(session.finals) != list(texts[session.recording]) for _, session in heard
            ),
            "finalisation_p95": [quantile(times, 95) for times in late],
            "rss_mb": resident,
        }

    async def watch() -> None:
        while True:
            resident.append(resident_mb(server.replica))
            tell(seen())
            await asyncio.sleep(every)

    watching = asyncio.create_task(watch())
    ended = await asyncio.gather(*(place(number) for number in range(sessions)), return_exceptions=True)
    errors = [repr(error) for error in ended if error is not None]
    watching.cancel()
    tell(results := seen())
    return results


if __name__ == "__main__":
    main()
