"""Logs of an endpoint: lines for people, or JSON for programs, each with what it is about as keys."""

import logging
import sys
import time
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogForm = Literal["text", "json"]
log = logging.getLogger(__name__)
_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure(form: LogForm) -> None:
    """Write what raysr logs in this process to standard error, which Ray keeps for each replica."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        names = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(JsonFormatter(_FIELDS, rename_fields=names))
    else:
        handler.setFormatter(logging.Formatter(_FIELDS))
    logger = logging.getLogger("raysr")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class Account:
    """One line of the log for a stream or a file, written in the end: whose, how much, by which model, what came of it.

    Args:
        protocol: in which the client speaks.
        session: id of the session.
    """

    def __init__(self, protocol: str, session: str) -> None:
        self.client = ""
        self.outcome = "internal"  # until it is known otherwise
        self.model = ""
        self.audio_seconds = 0.0
        self.finals = 0
        self.protocol, self.session = protocol, session
        self._began = time.monotonic()

    def write(self) -> None:
        """Write the line."""
        told = {
            "protocol": self.protocol,
            "session": self.session,
            "client": self.client,
            "outcome": self.outcome,
            "model": self.model,
            "audio_seconds": round(self.audio_seconds, 3),
            "seconds": round(time.monotonic() - self._began, 3),
            "finals": self.finals,
        }
        log.info("%s", " ".join(f"{key}={value}" for key, value in told.items() if value != ""), extra=told)
