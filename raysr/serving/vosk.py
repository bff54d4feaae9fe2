"""The live protocol of vosk-server, ``WS /vosk``: 16-bit audio in, exactly one answer to each message of it.

Written from the behaviour of the public server and its clients, which wait for an answer before they send on. There, a
phrase list is all that can be heard; here, it is what to expect.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, WebSocket
from pydantic import ConfigDict, Field, ValidationError

from raysr.config import Config
from raysr.decode.words import Word, utterance_confidence
from raysr.errors import AudioError
from raysr.serving.live import Step
from raysr.serving.live_socket import Asked, LiveSocket, Message, Refusal, json_object
from raysr.stream.events import Final, Partial, transcript
from raysr.stream.pcm import PcmReader, check_rate

router = APIRouter()


class Options(Config):
    """What a client may set with ``{"config": …}`` before its audio; others are accepted, and change nothing."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sample_rate: float = Field(default=8000.0, ge=1, le=1e6)
    words: bool = True
    phrase_list: tuple[str, ...] = ()
    max_alternatives: int = Field(default=0, ge=0)


class Vosk:
    """vosk-server's dialect of one stream."""

    name = "vosk"
    keeps_alive = False
    eager = True

    def __init__(self) -> None:
        self.id = str(uuid.uuid4())
        self._options = Options()
        self._heard_any = False
        self._reader = PcmReader("linear16")
        self._partial = ""
        self._finals: list[Final] = []

    @property
    def opening(self) -> tuple[int, Sequence[str]] | None:
        """The first audio ends what may be configured."""
        if not self._heard_any:
            return None
        return round(self._options.sample_rate), self._options.phrase_list

    def hello(self, model: str) -> list[Message]:
        """Say nothing before there is something to say."""
        return []

    def read(self, message: bytes | str) -> list[Asked]:
        """Read audio, or a text message: ``config``, ``reset`` or ``eof``."""
        if isinstance(message, bytes):
            self._heard_any = True
            return [self._reader.push(message)]
        asked = json_object(message, "a text message should be a JSON object")
        if "config" in asked:
            self._configure(asked["config"])
            return []
        self._heard_any = True
        if asked.get("eof"):
            return ["finish"]
        if asked.get("reset"):
            return ["finalize"]
        raise Refusal("message", "a text message should be {'config': …}, {'reset': 1} or {'eof': 1}")

    def render(self, step: Step) -> list[Message]:
        """Return an answer for each message of audio that was heard, or the one to ``reset`` and ``eof``.

        Clients send a message and wait for its answer: nothing is said unasked, finals wait for the next answer.
        """
        self._finals += [event for event in step.events if isinstance(event, Final)]
        last = step.events[-1] if step.events else None
        if isinstance(last, Partial):
            self._partial = last.text
        elif isinstance(last, Final):
            self._partial = ""
        if not step.pushes and not step.asked:
            return []
        finals, self._finals = self._finals, []
        if step.asked:
            return [self._result(finals)]
        answers = [self._result(finals)] if any(final.text for final in finals) else []
        return [*answers, *({"partial": self._partial} for _ in range(step.pushes - len(answers)))]

    def goodbye(self, received: float) -> list[Message]:
        """Say nothing: the last final was the answer to ``eof``."""
        return []

    def refused(self, refusal: Refusal) -> list[Message]:
        """Say nothing: the protocol has no errors but the close, which says why."""
        return []

    def _configure(self, given: Any) -> None:
        try:
            options = Options.model_validate(given)
            check_rate(round(options.sample_rate))
        except (ValidationError, AudioError) as error:
            raise Refusal("request", f"config: {_told(error)}") from None
        if self._heard_any and options.sample_rate != self._options.sample_rate:
            raise Refusal("request", "config: sample_rate should come before the audio")
        self._options = options

    def _result(self, finals: list[Final]) -> Message:
        """Return the finals as one answer."""
        words = [word for final in finals for word in final.words]
        text = transcript(list(finals))
        result = {"result": [_word(word) for word in words]} if self._options.words and words else {}
        if not self._options.max_alternatives:
            return {**result, "text": text}
        return {"alternatives": [{"confidence": utterance_confidence(words), **result, "text": text}]}


def _word(word: Word) -> Message:
    return {
        "conf": round(word.confidence, 6),
        "end": round(word.end, 6),
        "start": round(word.start, 6),
        "word": word.text,
    }


def _told(error: ValidationError | AudioError) -> str:
    if isinstance(error, AudioError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")


@router.websocket("/vosk")
async def listen(socket: WebSocket) -> None:
    """Serve one stream."""
    await socket.accept()
    await LiveSocket(socket, Vosk()).serve()
