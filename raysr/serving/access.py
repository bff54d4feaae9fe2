"""Who may use the endpoint: API keys from a file, and the web pages that may speak to it.

Keys come as ``Authorization: Bearer KEY`` or ``Token KEY``, as ``X-API-Key``, and, since browsers let a page set no
headers of a WebSocket, in its sub-protocols as the dialects have it (``token, KEY`` of Deepgram,
``openai-insecure-api-key.KEY`` of OpenAI) or in the query as ``token``. They are compared in constant time, and written
nowhere: a client is known by the name of its key.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from raysr.errors import ConfigError

log = logging.getLogger(__name__)

ANYONE = ""
"""The client of an endpoint that asks for no key."""
SHORTEST = 16
_LINE = re.compile(r"([\w.-]+)\s*:\s*(\S+)")
# What a browser can send as a WebSocket's sub-protocol (RFC 9110's token).
_TOKEN = re.compile(r"[!$%&'*+.^_`|~0-9A-Za-z-]+")
_OPENAI = "openai-insecure-api-key."


class Denied(Exception):
    """A client that may not come in, and why."""


class Access:
    """Knows the keys, and tells who presents one.

    Args:
        file: of keys, a line ``name: key`` each, and comments after ``#``; None lets everybody in.
        origins: of web pages on other hosts that may open sockets, ``https://…`` each; ``*`` for all.

    Raises:
        ConfigError: names the line that cannot be read.
    """

    def __init__(self, file: str | None, origins: Sequence[str] = ()) -> None:
        self._file = Path(file) if file else None
        self._origins = frozenset(origins)
        self._changed: int | None = None
        self._keys: Mapping[str, bytes] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the keys again if their file has changed; keep those that hold where it cannot be read any more."""
        if self._file is None:
            return
        try:
            changed = self._file.stat().st_mtime_ns
            if changed != self._changed:
                self._keys, self._changed = read_keys(self._file), changed
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            if self._changed is None:
                raise ConfigError(f"keys: {error}") from None
            log.error("the API keys stay as they are: %s", error)

    def client(self, connection: HTTPConnection) -> str:
        """Return the name of a client's key; raise Denied where it has none, or comes from a page that may not."""
        if connection.scope["type"] == "websocket":
            self._check_origin(connection)
        if self._file is None:
            return ANYONE
        presented = next(_presented(connection), None)
        if presented is None:
            raise Denied("an API key is missing: send it as 'Authorization: Bearer KEY'")
        given, found = _digest(presented), None
        for name, digest in self._keys.items():  # all of them, whatever comes first
            if hmac.compare_digest(given, digest):
                found = name
        if found is None:
            raise Denied("this API key is not known here")
        return found

    def _check_origin(self, connection: HTTPConnection) -> None:
        """Refuse a socket that the page of another site has opened: browsers ask nobody before."""
        origin = connection.headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return
        if urlsplit(origin).netloc != connection.headers.get("host"):
            raise Denied(f"pages of {origin[:100]} may not open sockets here")


def read_keys(file: Path) -> dict[str, bytes]:
    """Return the digests of keys by their names; raise ConfigError with the line that cannot be read."""
    found: dict[str, bytes] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        parts = _LINE.fullmatch(text)
        if parts is None:
            raise ConfigError(f"{file}:{number}: should be 'name: key'")
        name, key = parts.groups()
        if len(key) < SHORTEST:
            raise ConfigError(f"{file}:{number}: the key of {name} should have {SHORTEST} characters or more")
        if not _TOKEN.fullmatch(key):
            raise ConfigError(
                f"{file}:{number}: the key of {name} has characters that browsers cannot send, such as / or =; "
                "make one with `openssl rand -hex 24`"
            )
        if name in found:
            raise ConfigError(f"{file}:{number}: {name} has a key already")
        found[name] = _digest(key)
    return found


def _presented(connection: HTTPConnection) -> Iterator[str]:
    """Yield the keys that a client presents, wherever its kind puts them."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() in {"bearer", "token"} and key:
        yield key.strip()
    if key := connection.headers.get("x-api-key", ""):
        yield key
    if connection.scope["type"] != "websocket":
        return
    offered: list[str] = connection.scope.get("subprotocols") or []
    yield from (one.removeprefix(_OPENAI) for one in offered if one.startswith(_OPENAI))
    if "token" in offered[:-1]:
        yield offered[offered.index("token") + 1]
    if key := connection.query_params.get("token", ""):
        yield key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
