"""Sessions that come and go, some without a word, leave nothing behind: a short form of `benchmarks.serve_soak`."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from endpoint import until
from toy_language import RATE, spoken, sung

from benchmarks.processes import resident_mb
from benchmarks.serve_fronts import Front, front
from benchmarks.serve_soak import alone, soak
from benchmarks.serve_speech import Recording, Turn

PACE = 0.2  # five times as fast as speech: more sessions in less time
MORE_MB = 8.0


def played(*sentences: str) -> Recording:
    """Return the sentences one after the other; the client asks for the final of every second one."""
    pieces: list[np.ndarray] = []
    turns: list[Turn] = []
    for number, sentence in enumerate(sentences):
        pieces.append(sung(sentence, seed=number))
        end = sum(map(len, pieces)) / RATE
        turns.append(Turn(spoken(sentence), end, "finalize" if number % 2 else "pause"))
        pieces.append(np.zeros(RATE, np.float32))
    samples = np.clip(np.rint(32768 * np.concatenate(pieces)), -32768, 32767).astype(np.int16)
    return Recording(samples, tuple(turns))


def sessions(server: Front) -> int:
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=20) as answer:
        health: dict[str, Any] = json.load(answer)
    return int(health["sessions"])


def open_files(server: Front) -> int:
    return len(list(Path(f"/proc/{server.replica}/fd").iterdir()))


def test_sessions_that_come_and_go_leave_nothing_behind(pool: Path) -> None:
    recordings = [
        played("bad cafe"),
        played("head ache", "beg", "face"),
        played("dead", "gab hag", "cab", "bad face", "beg head"),
    ]
    with front("asgi", pool) as server:
        texts = asyncio.run(alone(server, recordings))
        assert [text for text in texts[0] if text] == ["bad cafe"]

        def some(seconds: float) -> dict[str, Any]:
            found = asyncio.run(soak(server, recordings, 6, seconds, texts, PACE))
            assert found["errors"] == []
            assert found["other_texts"] == 0
            until(lambda: sessions(server) == 0)
            return found

        some(seconds=8)  # memory is got
        files, memory = open_files(server), resident_mb(server.replica)
        found = some(seconds=16)
        assert found["played"] > 20
        assert found["left"] > 5
        assert open_files(server) == files
        assert resident_mb(server.replica) < memory + MORE_MB
