"""Who writes to a store: one process at a time, which says every so often that it lives."""

import itertools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysr.errors import RunError
from raysr.store.objects import Objects

OWNER = "owner.json"
BEAT_S, STALE_S, LOOK_S = 20.0, 90.0, 1.0
"""An owner says every so often that it lives, and is taken for dead after so long; a second one looks so often."""


@dataclass
class Ownership:
    """Whether this process still owns a store.

    Attributes:
        lost: set where it was taken for dead, or has to be.
        over: set when the block ends.
    """

    lost: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def owned(uri: str, say: Callable[[str], None] = lambda line: None) -> Iterator[Ownership]:
    """Be the only one to write to a store for as long as the block runs.

    Where there is another owner this takes the time to see whether it lives, and ``say`` is told so.

    Raises:
        RunError: it does; named by its host and process.
    """
    mine = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "boot": _boot()}
    objects = Objects(uri, apart=True)
    with objects.asking():
        _take(objects, mine, say)
    ownership = Ownership()

    def beat() -> None:
        said = time.monotonic()
        for count in itertools.count(1):
            if ownership.over.wait(BEAT_S):
                return
            with suppress(RunError), objects.asking():
                if _is_owned_by_another(objects, mine):
                    break
                _write_owner(objects, {**mine, "beat": count})
                said = time.monotonic()
            if time.monotonic() - said > STALE_S:  # whoever looks takes us for dead
                break
        ownership.lost.set()

    thread = threading.Thread(target=beat, name="raysr-store-owner", daemon=True)
    thread.start()
    try:
        yield ownership
    finally:
        ownership.over.set()
        thread.join()
        with suppress(RunError), objects.asking():
            if not _is_owned_by_another(objects, mine):
                objects.remove(OWNER)


def _take(objects: Objects, mine: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Become the owner, if need be once the one there was has said nothing for long enough."""
    seen: dict[str, Any] | None = None
    patience = time.monotonic()
    while True:
        owner = _owner(objects)
        if owner is None:
            if _create(objects, mine, contested=seen is not None):
                return
            continue
        by = f"{owner['host']}, process {owner['pid']}"
        if seen is not None and owner["id"] == seen["id"] and owner != seen:
            raise RunError(f"{objects.uri} is in use by {by}: wait for it, or stop it")
        if seen is None or owner["id"] != seen["id"]:
            seen, patience = owner, time.monotonic() + STALE_S
            if not _is_dead(owner):
                say(f"seeing whether {by}, which has {objects.uri}, still lives")
        if _is_dead(owner) or time.monotonic() > patience:
            with suppress(FileNotFoundError):
                objects.remove(OWNER)
        else:
            time.sleep(LOOK_S)


def _create(objects: Objects, mine: Mapping[str, Any], contested: bool) -> bool:
    """Write ``owner.json`` where there is none; return whether it is ours then."""
    try:
        _write_owner(objects, mine, create=True)
    except Exception:
        # stores say in many ways that it is there already, and a client that asks again hears it of itself
        if _owner(objects) is None:
            raise
    if contested:  # another one may have been about to take the dead one's place, too
        time.sleep(2 * LOOK_S)
    owner = _owner(objects)
    return owner is not None and owner["id"] == mine["id"]


def _owner(objects: Objects) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(objects.read(OWNER))
        return found
    except FileNotFoundError:
        return None


def _is_owned_by_another(objects: Objects, mine: Mapping[str, Any]) -> bool:
    owner = _owner(objects)
    return owner is not None and owner["id"] != mine["id"]


def _write_owner(objects: Objects, owner: Mapping[str, Any], create: bool = False) -> None:
    objects.write(OWNER, json.dumps(dict(owner)).encode(), create)


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Return whether an owner was a process of this host that is gone; of other hosts nothing is known."""
    if owner["host"] != socket.gethostname() or owner.get("boot") != _boot():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _boot() -> str:
    """Return what process numbers hold for: one start of one machine, and one name space of it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""
