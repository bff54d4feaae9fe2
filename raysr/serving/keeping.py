"""What is kept of users' audio and text: nothing, unless the configuration says what, where and for how long.

A folder a UTC day holds ``SESSION.wav`` (16 bits, at the session's rate), ``audio.jsonl``, a manifest of the segments
in which somebody spoke, as unlabelled audio for `raysr ipl`, and ``texts.jsonl``, what was heard in them. Whole days
are deleted when they are too old.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import time
import wave
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from starlette.requests import HTTPConnection

from raysr.config import Config
from raysr.corpus.records import to_record
from raysr.corpus.utterance import Utterance
from raysr.stream.events import Event, Final

log = logging.getLogger(__name__)

EXPIRY_SECONDS = 3600.0
"""Between two looks for days that are too old."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class KeepConfig(Config):
    """What is kept of what users say."""

    folder: str
    """Where; people who may read it can hear what was said."""
    days: int = Field(ge=1)
    """For so long after the day that it was said on."""
    audio: bool = True
    text: bool = True
    free_gb: float = Field(default=2.0, ge=0)
    """Nothing is kept where less room than this is left on the disk."""


class Keeper:
    """Keeps sessions in a thread of its own: a slow disk holds up the sessions that are kept, never the event loop.

    What cannot be kept, for want of room or because it is too long for a WAV file, is told in the log; the session goes
    on.
    """

    def __init__(self, config: KeepConfig | None) -> None:
        self.config = config
        self._thread = ThreadPoolExecutor(1, "raysr-keeper")
        self._expired = -EXPIRY_SECONDS

    @contextlib.asynccontextmanager
    async def recording(self, session: str, rate: int, private: bool = False) -> AsyncIterator["Recording"]:
        """Yield what takes a session's audio and events; ``private`` ones are not kept."""
        kept = _Kept(self.config, session, rate) if self.config and not private else None
        recording = Recording(self._thread, kept)
        try:
            yield recording
        finally:
            await recording.close()

    async def expire(self) -> None:
        """Delete the days that are too old, if that was not done lately."""
        if self.config is None or time.monotonic() - self._expired < EXPIRY_SECONDS:
            return
        self._expired = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(self._thread, expire, self.config, _today())

    def close(self) -> None:
        """End the thread when it has written what it has."""
        self._thread.shutdown()


class Recording:
    """One session, as far as it is kept."""

    def __init__(self, thread: ThreadPoolExecutor, kept: "_Kept | None") -> None:
        self._thread, self._kept = thread, kept

    async def heard(self, samples: np.ndarray) -> None:
        """Take samples (N,) float32 at the session's rate."""
        await self._do("heard", samples)

    async def said(self, events: Iterable[Event]) -> None:
        """Take what was heard in them."""
        finals = [event for event in events if isinstance(event, Final) and event.text]
        if finals:
            await self._do("said", finals)

    async def close(self) -> None:
        """Write what there is for good."""
        await self._do("close")

    async def _do(self, what: str, *arguments: Any) -> None:
        if self._kept is None:
            return
        work = asyncio.get_running_loop().run_in_executor(self._thread, getattr(self._kept, what), *arguments)
        try:
            await asyncio.shield(work)
        except Exception as error:  # whatever is wrong with keeping harms no stream
            log.error("a session is not kept: %s", error)
            self._kept = None


class _Kept:
    """Writes one session; called in the keeper's thread."""

    def __init__(self, config: KeepConfig, session: str, rate: int) -> None:
        self._config, self._session, self._rate = config, session, rate
        self._file: wave.Wave_write | None = None
        self._samples = 0
        self._finals: list[Final] = []
        self._day = Path(config.folder) / _today().isoformat()

    def heard(self, samples: np.ndarray) -> None:
        if not self._config.audio:
            return
        if self._file is None:
            self._begin()
            self._file = wave.open(str(self._path(".part")), "wb")  # noqa: SIM115 - a session's; see close
            self._file.setnchannels(1)
            self._file.setsampwidth(2)
            self._file.setframerate(self._rate)
        self._samples += len(samples)
        self._file.writeframes(
            (np.clip(samples, -1.0, 32767 / 32768) * 32768.0).round().astype("<i2").tobytes()
        )

    def said(self, finals: list[Final]) -> None:
        self._finals += finals

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            os.replace(self._path(".part"), self._path(".wav"))
            self._append("audio.jsonl", (self._segment(final) for final in self._finals))
        if self._finals and self._config.text:
            self._begin()
            self._append("texts.jsonl", (self._text(final) for final in self._finals))

    def _begin(self) -> None:
        """Make the day's folder, for us alone."""
        self._day.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(self._day).free / 1e9
        if free < self._config.free_gb:
            raise OSError(f"{free:.1f} GB are left on the disk of {self._day}, less than free_gb")

    def _path(self, suffix: str) -> Path:
        return self._day / f"{self._session}{suffix}"

    def _id(self, final: Final) -> str:
        return f"{self._session}-{final.segment:04}"

    def _segment(self, final: Final) -> dict[str, Any]:
        end = min(final.end, self._samples / self._rate)
        return to_record(
            Utterance(
                id=self._id(final),
                audio=str(self._path(".wav").absolute()),
                start=round(final.start, 3),
                duration=round(end - final.start, 3),
                sample_rate=self._rate,
            ),
            str(self._day.absolute()),
        )

    def _text(self, final: Final) -> dict[str, Any]:
        return {
            "id": self._id(final),
            "text": final.text,
            "confidence": round(final.confidence, 4),
            "model": final.model,
        }

    def _append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Add lines in one write, since several replicas may keep in one folder."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        with open(self._day / name, "ab", buffering=0) as file:
            file.write(lines)


def private(connection: HTTPConnection) -> bool:
    """Return whether a client asks that nothing be kept: ``mip_opt_out=true`` in the query, as Deepgram has it."""
    return connection.query_params.get("mip_opt_out", "").lower() in {"true", "1"}


def expire(config: KeepConfig, today: date) -> None:
    """Delete the folders of days that ended more than ``days`` ago, and nothing else."""
    folder, oldest = Path(config.folder), today - timedelta(days=config.days)
    if not folder.is_dir():
        return
    for day in folder.iterdir():
        with contextlib.suppress(ValueError):  # a folder of somebody else's
            if _DAY.fullmatch(day.name) and date.fromisoformat(day.name) < oldest:
                log.info("%s is too old and is deleted", day)
                shutil.rmtree(day, ignore_errors=True)


def _today() -> date:
    return datetime.now(UTC).date()
