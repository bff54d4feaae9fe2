"""New models under live streams: publications, some of them bad, while sessions go on.

python -m benchmarks.serve_swaps --pool POOL --json results/serve_swaps.json

The newest entry of POOL and relatives of it, whose weights differ by 1% noise, are published one after the other to a
pool that an endpoint serves, while `--sessions` clients play test utterances at real time. One of the publications is
damaged, one has other tokens. Every final is decoded again, alone: by the model that it names, from the second on from
which that model had heard the stream (`since`), in the masked full forward; texts have to be the same. The server has
one core, the clients and the publisher another. What was published and heard is kept in `--work`.

live_at_the_end  sessions that were still playing when all was published
new_sessions_s   from a publication to the first session that begins on it
rss_mb           memory with all sessions playing: before the first publication, at most, and after the last one
other_texts      finals that are not what their model alone makes of the same samples
"""

import argparse
import asyncio
import contextlib
import copy
import json
import os
import random
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.joined import RATE
from benchmarks.serve_fronts import CLIENT_CORE, Front, front, resident
from benchmarks.serve_speech import Recording, recording
from raysr.audio.fbank import Fbank
from raysr.decode.events import Final
from raysr.decode.recognise import recognise_masked
from raysr.model.chunking import CHUNKING
from raysr.model.model import AsrModel
from raysr.pool import Entry, Pool, Recogniser, load_entry
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

NOISE = 0.01
RECORDINGS = 4
EVERY_S = (8.0, 14.0)
PER_PUBLICATION_S = 20.0
SETTLE_S = 20.0
PATIENCE_S = 60.0
AFTER_S = 3.0


@dataclass
class Heard:
    """A session: its finals as Deepgram's messages, how many samples it has played, and how it ended."""

    recording: int
    played: int = 0
    finals: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--publications", type=int, default=50)
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/serve_swaps"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    results = measure(options.pool, options.work, options.sessions, options.publications)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def measure(source: Path, work: Path, sessions: int, publications: int) -> dict[str, Any]:
    """Publish so many entries under so many sessions, and return what was seen."""
    base = Pool(source).latest()
    if base is None:
        raise SystemExit(f"error: {source} has no entry")
    pool, recogniser = work / "pool", load_entry(base)
    publish(pool, 0, recogniser)
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    torch.set_num_threads(1)
    try:
        with front("asgi", pool) as server, resident(server.replica) as memory:
            played = [
                recording(number, publications * PER_PUBLICATION_S + 60) for number in range(RECORDINGS)
            ]
            swapped = asyncio.run(_run(server, pool, recogniser, played, sessions, publications, memory))
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
    heard = swapped.pop("heard")
    results = {
        "sessions": sessions,
        "publications": publications,
        "dropped": [session.code for session in heard if session.code != 1000],
        "versions_heard": len({_version(m) for session in heard for m in session.finals}),
        **swapped,
    }
    kept = [{"recording": session.recording, "finals": session.finals} for session in heard]
    (work / "heard.json").write_text(json.dumps({**results, "heard": kept}))
    return {**results, **compared(pool, heard, played)}


async def _run(
    server: Front,
    pool: Path,
    recogniser: Recogniser,
    played: Sequence[Recording],
    sessions: int,
    count: int,
    memory: list[float],
) -> dict[str, Any]:
    url, begin = server.url.replace("http", "ws"), time.monotonic() + 1
    over = asyncio.Event()
    heard = [Heard(number % len(played)) for number in range(sessions)]
    playing = [
        asyncio.create_task(_play(url, played[h.recording], h, begin + 5 * random.Random(n).random(), over))
        for n, h in enumerate(heard)
    ]
    await asyncio.sleep(SETTLE_S)
    looks = len(memory)
    draws, waits = random.Random(0), list[float]()
    damaged, foreign = count // 3, 2 * count // 3
    for number in range(1, count + 1):
        await asyncio.sleep(draws.uniform(*EVERY_S) / 2)
        bad = {damaged: "damaged", foreign: "foreign"}.get(number)
        await asyncio.to_thread(publish, pool, number, recogniser, bad)
        if bad is None:
            waits.append(await _until_new(url, name(number)))
            print(f"{name(number)}: {waits[-1]:g} s, {memory[-1]:g} MB", flush=True)
        await asyncio.sleep(draws.uniform(*EVERY_S) / 2)
    after = len(memory)
    await asyncio.sleep(SETTLE_S)
    level = {
        "before": statistics.median(memory[looks // 2 : looks]),
        "peak": max(memory),
        "after": statistics.median(memory[(after + len(memory)) // 2 :]),
    }
    live = sum(session.code is None for session in heard)
    over.set()
    await asyncio.gather(*playing)
    return {
        "heard": heard,
        "live_at_the_end": live,
        "refused": await asyncio.to_thread(_refused, server),
        "new_sessions_s": {"median": float(np.median(waits)), "most": max(waits), "all": waits},
        "rss_mb": level,
    }


async def _play(url: str, played: Recording, heard: Heard, begin: float, over: asyncio.Event) -> None:
    """Play until all has been published; then end in order."""
    try:
        async with connect(f"{url}/v1/listen?encoding=linear16&sample_rate={RATE}", max_size=None) as socket:

            async def send() -> None:
                for number, (packet, asks) in enumerate(played.packets, 1):
                    await asyncio.sleep(max(0.0, begin + number / 10 - time.monotonic()))
                    await socket.send(packet)
                    heard.played += len(packet) // 2
                    if asks:
                        await socket.send('{"type": "Finalize"}')
                    if over.is_set():
                        break
                await socket.send('{"type": "CloseStream"}')

            sender = asyncio.create_task(send())
            async for raw in socket:
                message = json.loads(raw)
                if message.get("is_final"):
                    heard.finals.append(message)
            await asyncio.gather(sender, return_exceptions=True)
            heard.code = socket.close_code or 0
    except (WebSocketException, OSError):
        heard.code = -1


async def _until_new(url: str, version: str) -> float:
    """Return the seconds until a session that begins is heard by a version."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE_S:
        with contextlib.suppress(WebSocketException, OSError):
            address = f"{url}/v1/listen?encoding=linear16&sample_rate={RATE}"
            async with connect(address, open_timeout=PATIENCE_S) as socket:
                begins = time.monotonic() - began
                await socket.send('{"type": "CloseStream"}')
                if _version(json.loads(await socket.recv())) == version:
                    return round(begins, 3)
        await asyncio.sleep(0.2)
    return PATIENCE_S


def _version(message: dict[str, Any]) -> str:
    return str(message["metadata"]["model_info"]["version"])


def _refused(server: Front) -> dict[str, str]:
    from raysr.serving.run import health

    found = health(server.url)
    return dict(found["pool"]["refused"]) if found else {}


def name(number: int) -> str:
    """Return the name of a publication."""
    return f"publication-{number:03}"


def publish(pool: Path, number: int, recogniser: Recogniser, bad: str | None = None) -> None:
    """Publish a relative of a recogniser, or one that may not be served."""
    one = relative(recogniser, number)
    if bad == "foreign":
        tokeniser = Tokeniser.train(["other letters"] * 9, TokeniserConfig(kind="char"))
        one = replace(
            one, model=AsrModel(one.config.model, tokeniser.vocab_size), tokeniser=tokeniser, lm=None
        )
    parts = one.model, one.tokeniser, one.lm
    place = pool.parent / "aside" if bad == "damaged" else pool
    Pool(place).publish(name(number), *parts, {"cycle": number}, one.config)
    if bad == "damaged":
        weights = place / name(number) / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
        shutil.move(place / name(number), pool / name(number))


def relative(recogniser: Recogniser, seed: int) -> Recogniser:
    """Return a recogniser of slightly other weights; seed 0 is the same."""
    model = copy.deepcopy(recogniser.model)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=draws)
            weight += (seed > 0) * NOISE * weight.std(correction=0) * noise
    return replace(recogniser, model=model)


def compared(pool: Path, heard: Sequence[Heard], played: Sequence[Recording]) -> dict[str, Any]:
    """Return how many finals there are, and which differ from those of their version alone."""
    entries: dict[str, Entry] = {entry.name: entry for entry in Pool(pool).entries()}
    passages: dict[str, list[Passage]] = defaultdict(list)
    for session in heard:
        for passage in passages_of(session, played[session.recording].samples):
            passages[passage.version].append(passage)
    others, finals = list[dict[str, Any]](), 0
    for version, found in passages.items():
        recogniser = load_entry(entries[version])
        for passage in found:
            alone = decoded_alone(recogniser, passage.samples)
            finals += len(passage.texts)
            for place, text in enumerate(passage.texts):
                if text not in alone[place : place + 1]:
                    others.append(
                        {
                            "version": version,
                            "since": passage.since,
                            "text": text,
                            "alone": alone,
                            "place": place,
                        }
                    )
    return {"finals": finals, "other_texts": len(others), "others": others}


@dataclass(frozen=True)
class Passage:
    """What one model heard of a session without a break: samples (N,) int16 and the texts of its segments.

    The samples reach beyond the last segment where a pause ended it, since it was heard with what followed.
    """

    version: str
    since: float
    samples: np.ndarray
    texts: list[str]


def passages_of(session: Heard, samples: np.ndarray) -> Iterator[Passage]:
    """Yield the passages of a session that had any text."""
    groups = [
        (key, list(group))
        for key, group in groupby(session.finals, key=lambda m: (_version(m), float(m["raysr"]["since"])))
    ]
    begins = [since for (_, since), _ in groups]
    for ((version, since), messages), following in zip(groups, [*begins[1:], None], strict=True):
        last = messages[-1]
        end = last["start"] + last["duration"]
        if last["from_finalize"] and following is not None:
            end = following  # what came after the request was not heard any more
        elif last["speech_final"]:
            end += AFTER_S
        elif following is None:
            end = session.played / RATE  # to its last sample, which fills no frame
        texts = [message["channel"]["alternatives"][0]["transcript"] for message in messages]
        if any(texts):
            heard = samples[round(since * RATE) : min(round(end * RATE), session.played)]
            yield Passage(version, since, heard, [text for text in texts if text])


def decoded_alone(recogniser: Recogniser, samples: np.ndarray) -> list[str]:
    """Return the texts of samples (N,) int16 in the masked full forward."""
    features = Fbank(recogniser.config.fbank)(torch.from_numpy(samples.astype(np.float32) / 32768))
    parts = recogniser.model, recogniser.tokeniser, recogniser.lm
    events = recognise_masked(*parts, features, *CHUNKING, recogniser.config.decode)
    return [event.text for event in events if isinstance(event, Final) and event.text]


if __name__ == "__main__":
    main()
