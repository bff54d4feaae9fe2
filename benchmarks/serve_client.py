"""Clients of `benchmarks.serve`: sessions that play recordings at real time, and what they see.

python -m benchmarks.serve_client URL --sessions N --seconds S --json F

A packet leaves when its last sample would have been spoken, on a schedule of absolute times. Sessions connect one after
the other and begin to speak within `SPREAD` seconds, evenly. Words are those of the server's finals.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from benchmarks.joined import RATE
from benchmarks.serve_speech import PACKET, Recording, recording
from raysr.decode.words import Word
from raysr.stream.events import Event, Final, Partial
from raysr.stream.latency import Latency
from raysr.stream.stability import Stability

RECORDINGS = 8
SPREAD = 5.0
"""Seconds, so that neither their packets nor their turns fall together."""
CONNECTING = 0.05
"""Seconds that a session has to connect before the first one speaks."""


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
    add_options(parser)
    options = parser.parse_args()
    found = asyncio.run(everybody(partial(one, options.url), options))
    options.json.write_text(json.dumps([vars(heard) for heard in found]))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add those that say what is played."""
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="of each recording")
    parser.add_argument("--first", type=int, default=0, help="number of the first session's recording")
    parser.add_argument("--pace", type=float, default=1.0, help="0 sends as fast as it is taken")
    parser.add_argument("--json", type=Path, required=True)


class Ear:
    """Takes what a session is told and counts it."""

    def __init__(self, heard: Heard) -> None:
        self.heard, self.latency, self.stability = heard, Latency(), Stability()

    def told(self, event: Event, lag: float, now: float) -> None:
        """Take an event and the lag that came with it."""
        heard = self.heard
        self.stability.told(event)
        heard.unstable, heard.words = self.stability.taken_back, self.stability.words
        if isinstance(event, Final):
            heard.finals.append(event.text)
        heard.lags.append((round(now, 3), lag))
        for late in self.latency.seen([event], now):
            what = f"final_{late.cause}" if late.what == "final" else late.what
            heard.late.setdefault(what, []).append(round(late.seconds, 4))


async def everybody(
    session: Callable[[Recording, Heard, float, float], Awaitable[Heard]], options: argparse.Namespace
) -> list[Heard]:
    """Play what the options say, each recording in a session, which is told when it begins and its pace."""
    numbers = [(options.first + number) % RECORDINGS for number in range(options.sessions)]
    played = {number: recording(number, options.seconds) for number in numbers}
    begin = time.monotonic() + 1.0 + CONNECTING * len(numbers)
    sessions = [
        session(played[number], Heard(number), begin + SPREAD * place / len(numbers), options.pace)
        for place, number in enumerate(numbers)
    ]
    return await asyncio.gather(*sessions)


async def one(url: str, played: Recording, heard: Heard, begin: float, pace: float) -> Heard:
    """Play a recording in one session."""
    query = f"encoding=linear16&sample_rate={RATE}&interim_results=true"
    ear = Ear(heard)
    try:
        async with connect(f"{url}/v1/listen?{query}", max_size=None, open_timeout=30) as socket:
            sender = asyncio.create_task(_play(socket, played, ear, begin, pace))
            try:
                await _listen(socket, ear)
            except asyncio.CancelledError:
                socket.transport.abort()  # gone without a word
                raise
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
    except (WebSocketException, OSError, TimeoutError) as error:
        heard.error = f"{type(error).__name__}: {error}"
    return heard


async def _play(socket: ClientConnection, played: Recording, ear: Ear, begin: float, pace: float) -> None:
    received = 0.0
    for number, (packet, asks) in enumerate(played.packets, 1):
        due = begin + pace * number * PACKET / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if pace:
            ear.heard.behind = max(ear.heard.behind, time.monotonic() - due)
        received += len(packet) / 2 / RATE
        ear.latency.arrived(received, time.monotonic())
        await socket.send(packet)
        if asks:
            ear.latency.asked(time.monotonic())
            await socket.send('{"type": "Finalize"}')
    ear.latency.asked(time.monotonic())
    await socket.send('{"type": "CloseStream"}')


async def _listen(socket: ClientConnection, ear: Ear) -> None:
    async for raw in socket:
        now = time.monotonic()
        message = json.loads(raw)
        if message["type"] == "Error":
            ear.heard.error = message["description"]
        if message["type"] == "Results":
            ear.told(_event(message), message["raysr"]["lag"], now)


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
