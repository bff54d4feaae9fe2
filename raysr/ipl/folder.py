"""A run's folder: where it lies, whose it is, and that it stays one run."""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from raysr.cluster import is_ray_job
from raysr.corpus.disk import replacing
from raysr.corpus.places import is_uri
from raysr.errors import RunError

STORAGE = "RAYSR_STORAGE"
SCRATCH, OWN_SCRATCH = "RAYSR_SCRATCH", "/tmp/raysr-runs"
MAY_CHANGE = {("run", "cycles"), ("run", "tracking"), ("run", "store"), ("cluster",), ("stop",)}


def place(folder: str, key: str = "run.dir") -> Path:
    """Return the absolute folder of a run, or one within a run; ``key`` is where the configuration names it.

    Raises:
        RunError: a relative one inside a Ray job, whose working folder is thrown away.
    """
    path = Path(folder).expanduser()
    if path.is_absolute():
        return path
    root = os.environ.get(STORAGE)
    if root and is_uri(root):  # the folder itself is on a disk, under the store's name
        name = re.sub(r"[^\w.-]+", "-", root.rstrip("/"))
        told_apart = hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:6]
        return Path(os.environ.get(SCRATCH) or OWN_SCRATCH).absolute() / f"{name}-{told_apart}" / path
    if root:
        return Path(root).absolute() / path
    if is_ray_job():
        raise RunError(
            f"{key} {folder} is relative, and a Ray job's working folder is thrown away: "
            f"give an absolute {key}, or set {STORAGE} in the job's runtime environment"
        )
    return path.absolute()


def store_of(folder: str, store: str | None) -> str | None:
    """Return the URI of a run's store: its own, or where a relative ``folder`` lies in ``RAYSR_STORAGE``; or None."""
    root = os.environ.get(STORAGE)
    if store or not root or not is_uri(root) or Path(folder).expanduser().is_absolute():
        return store
    return f"{root.rstrip('/')}/{os.path.normpath(folder)}"


def check_shared(folder: Path) -> None:
    """Look whether the nodes of the connected cluster can share a run's folder.

    Raises:
        RunError: there are several, and the folder is in the scratch space that each has for itself.
    """
    import ray

    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1 and Path(OWN_SCRATCH) in folder.parents:
        raise RunError(
            f"run folder {folder} is on a disk of this host alone, and the cluster has {nodes} nodes that label and "
            f"train: set {SCRATCH} to a folder that all of them see"
        )


@contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process; the system lets go of it when the process dies.

    Raises:
        RunError: another process works in it, named by its pid; or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise RunError(f"run folder {folder} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise RunError(
                f"run folder {folder} is in use by process {holder}: wait for it, or stop it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def keep_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.yaml`` once; a run that is started again has to have the same, but for what may change.

    Cycles, tracking, store, stop and cluster may.

    Raises:
        RunError: the configuration differs; names the key.
    """
    path = folder / "config.yaml"
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        difference = next(_differences(before, config), None)
        if difference:
            key, old, new = difference
            raise RunError(
                f"run folder {folder} was made with {key}: {_short(old)}, not {_short(new)}; "
                "give the old value to resume it, or another run.dir"
            )
    with replacing(path) as file:
        file.write(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())


def _differences(old: Any, new: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, Any]]:
    if key in MAY_CHANGE:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(name), new.get(name), (*key, str(name)))
    elif old != new:
        yield ".".join(key), old, new


def _short(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    return text if len(text) <= 60 else text[:57] + "…"
