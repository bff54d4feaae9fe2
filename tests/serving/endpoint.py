"""An endpoint on a real socket, without Ray: uvicorn in a thread; and small helpers to speak to it."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import uvicorn
from toy_language import sung
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from raysr.audio.files import wav_bytes
from raysr.pool import Pool, Recogniser
from raysr.serving.app import build_app
from raysr.serving.settings import ServingConfig, UserConfig
from raysr.stream.engine import Engine


@dataclass
class Server:
    """A running endpoint."""

    url: str
    pool: Path
    reconfigure: Callable[[UserConfig], None] = lambda config: None
    """As Ray Serve's replica does it."""
    engine: Engine | None = None
    """Of a server that runs in this process."""

    def listen(self, **query: Any) -> ClientConnection:
        """Open the live socket; 16-bit audio at 16 kHz unless ``query`` says otherwise."""
        query = {"encoding": "linear16", "sample_rate": 16000, **query}
        address = (
            self.url.replace("http", "ws") + "/v1/listen?" + "&".join(f"{k}={v}" for k, v in query.items())
        )
        return connect(address, open_timeout=20, close_timeout=5)


def publish(pool: Path, name: str, recogniser: Recogniser, cycle: int, **metrics: Any) -> None:
    """Publish ``recogniser`` as a pool entry."""
    parts = recogniser.model, recogniser.tokeniser, recogniser.lm
    Pool(pool).publish(name, *parts, {"cycle": cycle, **metrics}, recogniser.config)


@contextlib.contextmanager
def serving(config: ServingConfig, backpressure: bool = True) -> Iterator[Server]:
    """Run the endpoint in a thread for the block."""
    app = build_app(config, backpressure=backpressure)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="websockets-sansio"))

    def reconfigure(user_config: UserConfig) -> None:
        loop = server.servers[0].get_loop()
        loop.call_soon_threadsafe(app.state.server.reconfigure, user_config)

    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive(), "the endpoint did not start"
            assert time.monotonic() < deadline, "the endpoint did not start in time"
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Server(f"http://127.0.0.1:{port}", Path(config.pool), reconfigure, app.state.server.engine)
    finally:
        server.should_exit = True
        thread.join(20)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition; fail where it does not come to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wav(text: str, seed: int = 5) -> bytes:
    return wav_bytes(sung(text, seed=seed))


def pcm16(text: str, seed: int = 5) -> bytes:
    return (sung(text, seed=seed) * 32768).astype("<i2").tobytes()


def messages(socket: ClientConnection) -> list[dict[str, Any]]:
    """Read to the end of the stream, whatever code it is closed with."""
    found = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            found.append(json.loads(socket.recv(timeout=30)))
    return found


def said(found: list[dict[str, Any]]) -> str:
    """Return the text of the final results."""
    texts = [m["channel"]["alternatives"][0]["transcript"] for m in found if m.get("is_final")]
    return " ".join(text for text in texts if text)


def transcribed(server: Server, pcm: bytes, rate: int = 16000) -> str:
    """Return what an upload of 16-bit audio says."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    file = ("speech.wav", wav_bytes(samples, rate))
    return str(sdk.audio.transcriptions.create(model="any", file=file).text)
