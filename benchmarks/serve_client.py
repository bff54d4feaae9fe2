"""Clients of `benchmarks.serve`: sessions that play recordings at real time, and what they see.

python -m benchmarks.serve_client URL --sessions N --seconds S --json F

A packet leaves when its last sample would have been spoken, on a schedule of absolute times. Sessions begin within one
packet of each other, spread evenly, as microphones do. Words are those of the server's finals.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from benchmarks.joined import RATE
from benchmarks.serve_speech import PACKET, Recording, recording
from raysr.decode.words import Word
from raysr.serving.latency import Latency
from raysr.stream.events import Event, Final, Partial

RECORDINGS = 4


@dataclass
class Heard:
    """What a session saw.

    Attributes:
        recording: number of what it played.
        finals: the texts, in order.
        late: seconds by kind: first_partial, emission, and finals by what they were asked with.
        lags: seconds of audio that the server said it was behind, and when it said so.
        unstable: words of partials that the next one took back.
        behind: seconds by which the client itself was late with its packets, at most.
        error: why it ended otherwise than well.
    """

    recording: int
    finals: list[str] = field(default_factory=list)
    late: dict[str, list[float]] = field(default_factory=dict)
    lags: list[tuple[float, float]] = field(default_factory=list)
    unstable: int = 0
    words: int = 0
    behind: float = 0.0
    error: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="of the endpoint, ws://…")
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="of each recording")
    parser.add_argument("--first", type=int, default=0, help="number of the first session's recording")
    parser.add_argument("--pace", type=float, default=1.0, help="0 sends as fast as it is taken")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    numbers = [(options.first + number) % RECORDINGS for number in range(options.sessions)]
    played = {number: recording(number, options.seconds) for number in numbers}
    found = asyncio.run(everybody(options.url, played, numbers, options.pace))
    options.json.write_text(json.dumps([vars(heard) for heard in found]))


async def everybody(
    url: str, played: Mapping[int, Recording], numbers: Sequence[int], pace: float
) -> list[Heard]:
    """Play the recordings of these numbers, each in a session."""
    begin = time.monotonic() + 1.0
    phase = PACKET / RATE / len(numbers)
    clients = [
        one(url, played[number], Heard(number), begin + place * phase, pace)
        for place, number in enumerate(numbers)
    ]
    return await asyncio.gather(*clients)


async def one(url: str, played: Recording, heard: Heard, begin: float, pace: float) -> Heard:
    """Play a recording in one session."""
    query = f"encoding=linear16&sample_rate={RATE}&interim_results=true"
    latency = Latency()
    try:
        async with connect(f"{url}/v1/listen?{query}", max_size=None, open_timeout=30) as socket:
            sender = asyncio.create_task(_play(socket, played, heard, latency, begin, pace))
            try:
                await _listen(socket, heard, latency)
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
    except (WebSocketException, OSError, TimeoutError) as error:
        heard.error = f"{type(error).__name__}: {error}"
    return heard


async def _play(
    socket: ClientConnection, played: Recording, heard: Heard, latency: Latency, begin: float, pace: float
) -> None:
    received = 0.0
    for number, (packet, asks) in enumerate(played.packets(), 1):
        due = begin + pace * number * PACKET / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if pace:
            heard.behind = max(heard.behind, time.monotonic() - due)
        received += len(packet) / 2 / RATE
        latency.arrived(received, time.monotonic())
        await socket.send(packet)
        if asks:
            latency.asked(time.monotonic())
            await socket.send('{"type": "Finalize"}')
    latency.asked(time.monotonic())
    await socket.send('{"type": "CloseStream"}')


async def _listen(socket: ClientConnection, heard: Heard, latency: Latency) -> None:
    before: list[str] = []
    async for raw in socket:
        now = time.monotonic()
        message = json.loads(raw)
        if message["type"] == "Error":
            heard.error = message["description"]
        if message["type"] != "Results":
            continue
        event = _event(message)
        words = event.text.split()
        same = next(
            (n for n, pair in enumerate(zip(before, words, strict=False)) if pair[0] != pair[1]), None
        )
        heard.unstable += len(before) - min(len(before), len(words) if same is None else same)
        before = words
        if isinstance(event, Final):
            heard.finals.append(event.text)
            heard.words += len(words)
            before = []
        heard.lags.append((round(now, 3), message["raysr"]["lag"]))
        for late in latency.seen([event], now):
            what = f"final_{late.cause}" if late.what == "final" else late.what
            heard.late.setdefault(what, []).append(round(late.seconds, 4))


def _event(message: dict[str, Any]) -> Event:
    """Return what a Deepgram message tells as an event."""
    (best,) = message["channel"]["alternatives"]
    start, end = message["start"], message["start"] + message["duration"]
    if not message["is_final"]:
        ours = message["raysr"]
        return Partial("", 0, "", start, end, ours["stable"], ours["volatile"])
    words = tuple(Word(w["word"], w["start"], w["end"], w["confidence"]) for w in best["words"])
    cause = "endpoint" if message["speech_final"] else "finalize" if message["from_finalize"] else "stop"
    return Final("", 0, "", start, end, best["transcript"], words, best["confidence"], cause)


if __name__ == "__main__":
    main()
