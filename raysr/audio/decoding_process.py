"""Decoding in a process of its own, with little memory, time and no files: a hostile file can hurt nothing else.

FFmpeg's demuxers read what strangers made; one that crashes, hangs or swallows memory ends its process and is an error
of its file. Called as a program: ``python -m raysr.audio.decoding_process NAME < FILE``, which writes blocks, each a
byte that says what it is (``a``: float32 samples, ``e``: a message, ``z``: the end), its length and its content.
"""

import asyncio
import os
import resource
import shutil
import struct
import sys
from collections.abc import AsyncGenerator
from typing import BinaryIO

import numpy as np

from raysr.audio.files import decode_blocks
from raysr.errors import AudioError

MEMORY = 1 << 30
"""Bytes of address space beyond what the process has when it begins."""
CPU_SECONDS = 600
"""Of one file: hours of audio take minutes."""
STALL_SECONDS = 30.0
"""Without a block, after which a file is given up."""
_HEAD = struct.Struct("!cI")


async def decode_apart(file: BinaryIO, name: str) -> AsyncGenerator[np.ndarray, None]:
    """Yield 16 kHz mono samples (N,) float32 of a file, as :func:`raysr.audio.files.decode_blocks` does.

    Args:
        file: seekable; read by another process, in memory or on disk.
        name: what to call it in errors.

    Raises:
        AudioError: one line that names the file; also where the process that decodes it dies, or comes to no end.
    """
    name = name if name.isprintable() else ascii(name)
    with _inherited(file) as readable:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "raysr.audio.decoding_process",
            name,
            stdin=readable,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
    assert process.stdout is not None
    try:
        while True:
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    kind, length = _HEAD.unpack(await process.stdout.readexactly(_HEAD.size))
                    content = await process.stdout.readexactly(length)
            except TimeoutError:
                raise AudioError(
                    f"{name}: takes too long to decode; export it again as wav or flac"
                ) from None
            except asyncio.IncompleteReadError:
                raise AudioError(
                    f"{name}: cannot be decoded within the limits on memory and time; export it again as wav or flac"
                ) from None
            if kind == b"z":
                return
            if kind == b"e":
                raise AudioError(content.decode())
            yield np.frombuffer(bytearray(content), dtype="<f4")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class _inherited:
    """A file as another process can read it: by a descriptor that stands at its beginning."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._copy: int | None = None

    def __enter__(self) -> int:
        self._file.seek(0)
        try:
            # a spooled file that is still in memory would be written to disk for its descriptor
            number = self._file.fileno() if getattr(self._file, "_rolled", True) else None
        except OSError:
            number = None
        if number is not None:
            os.lseek(number, 0, os.SEEK_SET)
            return number
        self._copy = os.memfd_create("audio")
        with os.fdopen(os.dup(self._copy), "wb") as copy:
            shutil.copyfileobj(self._file, copy)
        os.lseek(self._copy, 0, os.SEEK_SET)
        return self._copy

    def __exit__(self, *_: object) -> None:
        if self._copy is not None:
            os.close(self._copy)


def main() -> None:
    """Decode standard input, and write blocks to standard output."""
    out, (name,) = sys.stdout.buffer, sys.argv[1:]
    _limit()

    def write(kind: bytes, content: bytes = b"") -> None:
        out.write(_HEAD.pack(kind, len(content)) + content)
        out.flush()

    try:
        for block in decode_blocks(sys.stdin.buffer, name=name):
            write(b"a", block.astype("<f4").tobytes())
        write(b"z")
    except AudioError as error:
        write(b"e", str(error).encode())
    except BrokenPipeError:
        os._exit(0)  # nobody wants it any more


def _limit() -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, now + MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
