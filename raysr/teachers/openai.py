"""A transcription endpoint as teacher: OpenAI's, or any that speaks as it does (``POST …/audio/transcriptions``).

Requests go out from several threads, wait their turn, and are repeated while the endpoint is busy or failing; one
that keeps failing costs its utterance and no other. The key is read from the environment where the teacher is
built, and is in no configuration, prediction, error or log.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal
from urllib.parse import urlsplit

import httpx2
import numpy as np
from pydantic import ConfigDict, Field, field_validator

from raysr.audio.encode import SAMPLE_RATE, flac_bytes, wav_bytes
from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform, one_by_one
from raysr.teachers.openai_answer import Answer, read_answer
from raysr.teachers.patience import RateLimit, backoff, retry_after

SHORTEST = 1600  # samples: OpenAI refuses less than a tenth of a second
LARGEST_ANSWER = 1 << 24
WORTH_ANOTHER_TRY = {408, 409, 425, 429}


class EndpointError(Exception):
    """The endpoint gave no transcript; ``status`` is its HTTP status, None where none was understood."""

    def __init__(self, message: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(message)
        self.status, self.wait = status, wait

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered later."""
        return self.status is None or self.status in WORTH_ANOTHER_TRY or self.status >= 500


class OpenAi:
    """An OpenAI-compatible transcription endpoint."""

    class Config(Options):
        """Where it is, what it is asked, and how patiently.

        Attributes:
            base_url: what ``/audio/transcriptions`` comes after, such as ``https://api.openai.com/v1``.
            model: as the endpoint calls it.
            api_key_env: the environment variable that holds the key, on every machine that labels; None sends none.
            language: ISO 639-1 code; None lets the endpoint find out.
            prompt: text to go by, such as names to expect.
            temperature: of sampling; None leaves it to the endpoint.
            response_format: ``auto`` asks for ``verbose_json``, which has scores, or where refused for ``json``.
            logprobs: ask for the log probability of every token, which some models give with ``json``.
            audio: 16-bit FLAC, or WAV for endpoints that read nothing else.
            concurrency: requests at a time of one actor.
            requests_per_minute: of one actor, evenly spaced; None is as many as there are answers.
            timeout: seconds without any progress of one request, and for all of its answer.
            retries: tries after the first, while the endpoint is busy, failing or out of reach.
            backoff: seconds before the second try, doubled before each further one.
            longest_wait: seconds, of a wait between tries, also where ``Retry-After`` asks for more.
            probe: transcribe a second of near silence at the start, to find a wrong URL, key or model right away.
        """

        model_config = ConfigDict(hide_input_in_errors=True)  # a refused URL may hold a password or key

        base_url: str
        model: str
        api_key_env: str | None = None
        language: str | None = None
        prompt: str | None = None
        temperature: float | None = Field(default=None, ge=0, le=1)
        response_format: Literal["auto", "verbose_json", "json"] = "auto"
        logprobs: bool = False
        audio: Literal["flac", "wav"] = "flac"
        concurrency: int = Field(default=4, ge=1)
        requests_per_minute: float | None = Field(default=None, gt=0)
        timeout: float = Field(default=60.0, gt=0)
        retries: int = Field(default=5, ge=0)
        backoff: float = Field(default=0.5, gt=0)
        longest_wait: float = Field(default=60.0, gt=0)
        probe: bool = True

        @field_validator("base_url")
        @classmethod
        def _plain(cls, url: str) -> str:
            try:
                parts = urlsplit(url)
            except ValueError:
                parts = urlsplit("")  # its own message may quote the URL
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("should look like https://api.openai.com/v1")
            if parts.username or parts.password or parts.query:
                raise ValueError(
                    "a URL without user, password and query: name the key's variable in api_key_env"
                )
            return url.rstrip("/").removesuffix("/audio/transcriptions")

    @classmethod
    def patience(cls, config: Config) -> float:
        """Return the seconds that an utterance may take: as many tries as there may be, with their turns and waits."""
        turn = 60 / config.requests_per_minute if config.requests_per_minute else 0.0
        # an answer may begin when the time-out is nearly over, and stop for as long again
        return (config.retries + 1) * (turn + 2 * config.timeout + config.longest_wait)

    def __init__(self, config: Config, context: TeacherContext) -> None:
        self.config = config
        self._key = _key(config)
        self._format = "json" if config.response_format == "json" or config.logprobs else "verbose_json"
        self._limit = RateLimit(config.requests_per_minute)
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx2.Limits(max_connections=config.concurrency)
        self._client = httpx2.Client(headers=headers, timeout=config.timeout, limits=limits)
        self._workers = ThreadPoolExecutor(config.concurrency, "endpoint")
        self.name = f"openai:{config.model}"
        self.version = (self._probe() if config.probe else None) or config.model

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return [
            output
            for [output] in self._workers.map(lambda one: one_by_one(self._recognise, [one]), waveforms)
        ]

    def _recognise(self, waveform: Waveform) -> TeacherOutput:
        if len(waveform) < SHORTEST:
            return TeacherOutput()
        return self._ask(waveform).output

    def _probe(self) -> str | None:
        """Return the model that answers; raise :class:`ConfigError` where every utterance would fail."""
        noise = np.random.default_rng(0).normal(0, 1e-3, SAMPLE_RATE).astype(np.float32)
        try:
            return self._ask(noise).model
        except EndpointError as error:
            advice = {
                401: f": set {self.config.api_key_env or 'api_key_env and its variable'} to a valid key",
                403: ": the key may not use this model",
                404: f": check base_url and model '{self.config.model}'",
            }.get(error.status or 0, "")
            raise ConfigError(
                f"teacher 'openai': {self.config.base_url} cannot label: {error}{advice}"
            ) from None

    def _ask(self, waveform: Waveform) -> Answer:
        """Return an answer from as many tries as it takes and there may be."""
        attempt = 0
        while True:
            self._limit.wait()
            response_format = self._format
            try:
                return self._post(waveform, response_format)
            except EndpointError as error:
                trouble = error
            if response_format == "verbose_json" and self._has_no_scores(trouble):
                self._format = "json"
                continue
            if not trouble.passing or attempt == self.config.retries:
                raise trouble
            if trouble.wait is not None:
                self._limit.pause(min(trouble.wait, self.config.longest_wait))
            time.sleep(backoff(attempt, self.config.backoff, self.config.longest_wait))
            attempt += 1

    def _has_no_scores(self, trouble: EndpointError) -> bool:
        """Return whether the endpoint knows no ``verbose_json``, so that the plain form is asked for from now on."""
        named = "response_format" in str(trouble) or "verbose_json" in str(trouble)
        return self.config.response_format == "auto" and trouble.status in (400, 415, 422) and named

    def _post(self, waveform: Waveform, response_format: str) -> Answer:
        audio = flac_bytes(waveform) if self.config.audio == "flac" else wav_bytes(waveform)
        c = self.config
        fields = {
            "model": c.model,
            "response_format": response_format,
            "language": c.language,
            "prompt": c.prompt,
            "temperature": c.temperature,
            "include[]": "logprobs" if c.logprobs else None,
        }
        data = {name: str(value) for name, value in fields.items() if value is not None}
        file = (f"utterance.{c.audio}", audio, f"audio/{c.audio}")
        started = time.monotonic()
        try:
            with self._client.stream(
                "POST", f"{c.base_url}/audio/transcriptions", data=data, files={"file": file}
            ) as response:
                body = self._read(response, started)
        except httpx2.HTTPError as error:
            reason = "no answer within the timeout" if isinstance(error, httpx2.TimeoutException) else error
            raise EndpointError(self._clean(f"{type(error).__name__}: {reason}")) from None
        if response.status_code != 200:
            wait = retry_after(response.headers.get("retry-after"))
            raise EndpointError(
                self._clean(f"status {response.status_code}: {_told(body)}"), response.status_code, wait
            )
        try:
            return read_answer(body)
        except ValueError as error:
            raise EndpointError(self._clean(f"not a transcription ({error}): {_told(body)}")) from None

    def _read(self, response: httpx2.Response, started: float) -> bytes:
        """Read a body piece by piece: one that drips in for ever, or has no end, is no answer."""
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if time.monotonic() - started > self.config.timeout:
                raise httpx2.ReadTimeout("")
            if len(body) > LARGEST_ANSWER:
                raise httpx2.DecodingError(f"an answer of more than {LARGEST_ANSWER} bytes")
        return bytes(body)

    def _clean(self, message: str) -> str:
        """Return one line without the key, which some endpoints repeat."""
        line = " ".join(message.split())
        return (line.replace(self._key, "***") if self._key else line)[:300]


def _key(config: OpenAi.Config) -> str | None:
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"teacher 'openai': the environment variable {config.api_key_env} is not set where labelling runs"
        )
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"teacher 'openai': the environment variable {config.api_key_env} holds no key: "
            "it should be printable ASCII without white space"
        )
    return key


def _told(body: bytes) -> str:
    """Return an error in the endpoint's own words."""
    text = body.decode("utf-8", "replace").strip()
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text or "an empty answer"
