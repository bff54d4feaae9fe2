"""The engine by itself, for `benchmarks.serve`: streams of its process, without sockets and messages.

python -m benchmarks.serve_bare POOL --sessions N --seconds S --json F

As :mod:`benchmarks.serve_client` plays to a server, tasks of the event loop play to the streams that its sockets would
be joined to. Audio counts as come when it was due: a loop that is late makes words late.
"""

import argparse
import asyncio
import json
import os
import time
from functools import partial

import numpy as np

from benchmarks.joined import RATE
from benchmarks.processes import cpu_seconds, resident_mb
from benchmarks.serve_client import Ear, Heard, add_options, everybody
from benchmarks.serve_speech import PACKET, Recording
from raysr.serving.live import LiveStream
from raysr.serving.settings import ServingConfig
from raysr.serving.state import ServerState


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pool", help="whose newest entry hears")
    add_options(parser)
    options = parser.parse_args()
    server = ServerState.build(
        ServingConfig.parse({"pool": options.pool, "limits": {"sessions": options.sessions}})
    )
    server.watcher.poll()
    before, busy = resident_mb(os.getpid()), cpu_seconds(os.getpid())
    heard = asyncio.run(everybody(partial(one, server), options))
    told = {
        "heard": [vars(each) for each in heard],
        "busy": cpu_seconds(os.getpid()) - busy,
        "rss_before_mb": before,
        "rss_mb": resident_mb(os.getpid()),
    }
    server.engine.close()
    options.json.write_text(json.dumps(told))


async def one(server: ServerState, played: Recording, heard: Heard, begin: float, pace: float) -> Heard:
    """Play a recording to one stream."""
    ear = Ear(heard)
    async with server.stream("", RATE) as stream:
        speaking = asyncio.create_task(_speak(stream, played, ear, begin, pace))
        async for step in stream.steps():
            now = time.monotonic()
            for event in step.events:
                ear.told(event, step.lag, now)
        await speaking
    return heard


async def _speak(stream: LiveStream, played: Recording, ear: Ear, begin: float, pace: float) -> None:
    arrived, due = 0, begin
    for number, (packet, asks) in enumerate(played.packets, 1):
        due = begin + number * PACKET / RATE if pace else time.monotonic()
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        samples = np.frombuffer(packet, "<i2").astype(np.float32) / 32768
        arrived += len(samples)
        ear.latency.arrived(arrived / RATE, due)
        await stream.push(samples)
        if asks:
            ear.latency.asked(due)
            await stream.finalize()
    ear.latency.asked(due)
    await stream.finish()


if __name__ == "__main__":
    main()
