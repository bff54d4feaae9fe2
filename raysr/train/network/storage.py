"""Whether a folder is the same one on all hosts: each leaves a file in it, and looks for those of the others.

Training on folders that only look alike goes well until another host writes the checkpoint.
"""

import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysr.train.network.gather import Gather


@dataclass(frozen=True)
class Sight:
    """What one rank saw of a folder.

    Attributes:
        unseen: ranks whose files it did not find.
        error: why it could not use the folder at all, if so.
    """

    unseen: tuple[int, ...] = ()
    error: str | None = None


def look(
    folder: Path, rank: int, looking: Sequence[int], gather: Gather, patience: float = 10.0
) -> list[Sight]:
    """Return what each rank saw; all ranks call this, and those in ``looking``, one a host, write and read.

    A file may take ``patience`` seconds to be seen: network file systems show late what others write.
    """
    words: list[str] = gather(uuid.uuid4().hex)
    files = {other: folder / f".raysr-preflight-{words[0]}-{other}" for other in looking}
    error = None
    try:
        if rank in looking:
            folder.mkdir(parents=True, exist_ok=True)
            files[rank].write_text(words[rank])
    except OSError as refused:
        error = refused.strerror or str(refused)
    try:
        written = [not failed for failed in gather(error)]
        sought = {files[other]: words[other] for other in looking if written[other]}
        absent = _absent(sought, patience) if rank in looking and error is None else []
        sight = Sight(tuple(other for other in looking if files[other] in absent), error)
        return gather(sight)
    finally:
        if rank in looking:
            with contextlib.suppress(OSError):
                files[rank].unlink(missing_ok=True)


def _absent(sought: Mapping[Path, str], patience: float) -> list[Path]:
    """Return the files that are not there, or say something else, once that has had time to change."""
    deadline = time.monotonic() + patience
    while absent := [file for file, word in sought.items() if not _says(file, word)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return absent


def _says(file: Path, word: str) -> bool:
    try:
        return file.read_text() == word
    except OSError:
        return False
