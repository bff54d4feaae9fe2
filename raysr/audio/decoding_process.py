"""Decoding in a process of its own, with little memory, time and no files: a hostile file can hurt nothing else.

FFmpeg's demuxers read what strangers made; one that crashes, hangs or swallows memory ends its process and is an error
of its file. Called as a program: ``python -m raysr.audio.decoding_process NAME < FILE``, which writes blocks, each a
byte that says what it is (``a``: float32 samples, ``e``: a message, ``z``: the end), its length and its content.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import struct
import sys
from collections.abc import AsyncGenerator, Callable
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
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONHOME")
"""Of this process's variables, those that the other gets: keys and tokens are none of a file's business."""
HEAD = struct.Struct("!cI")


class Decoding:
    """A process that decodes, seen from outside: its program's blocks, its limits, its end.

    Args:
        program: a module that is called with the name and writes blocks.
        name: what to call the audio in errors.
    """

    def __init__(self, program: str, name: str) -> None:
        self._program = program
        self._name = name if name.isprintable() else ascii(name)
        self._process: asyncio.subprocess.Process

    async def start(self, stdin: int) -> None:
        """Begin, with a descriptor or a pipe to read from."""
        path = os.pathsep.join(filter(None, sys.path))
        passed = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._program,
            self._name,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=passed | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Where a pipe is written to."""
        assert self._process.stdin is not None
        return self._process.stdin

    async def block(self, due: Callable[[], bool] = lambda: True) -> tuple[bytes, bytes]:
        """Return the next block, its kind and its content.

        Args:
            due: whether one is owed; if so for ``STALL_SECONDS``, the audio is given up.

        Raises:
            AudioError: that the process tells; it has died; it comes to no end.
        """
        reading = asyncio.ensure_future(self._read())
        try:
            while not (await asyncio.wait({reading}, timeout=STALL_SECONDS))[0]:
                if due():
                    raise AudioError(
                        f"{self._name}: takes too long to decode; export it again as wav or flac"
                    )
            kind, content = await reading
        except asyncio.IncompleteReadError:
            raise AudioError(
                f"{self._name}: cannot be decoded within the limits on memory and time; export it again as wav or flac"
            ) from None
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if kind == b"e":
            raise AudioError(content.decode())
        return kind, content

    async def close(self) -> None:
        """End the process; one that the kernel does not let go of is left to it."""
        if self._process.returncode is None:
            self._process.kill()
        assert self._process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STALL_SECONDS):
                while await self._process.stdout.read(1 << 16):
                    pass  # asyncio notices the end of a process whose output is not read only from Python 3.13 on
                await self._process.wait()

    async def _read(self) -> tuple[bytes, bytes]:
        assert self._process.stdout is not None
        kind, length = HEAD.unpack(await self._process.stdout.readexactly(HEAD.size))
        return kind, await self._process.stdout.readexactly(length)


async def decode_apart(file: BinaryIO, name: str) -> AsyncGenerator[np.ndarray, None]:
    """Yield 16 kHz mono samples (N,) float32 of a file, as :func:`raysr.audio.files.decode_blocks` does.

    Args:
        file: seekable; read by another process, in memory or on disk.
        name: what to call it in errors.

    Raises:
        AudioError: one line that names the file; also where the process that decodes it dies, or comes to no end.
    """
    decoding = Decoding("raysr.audio.decoding_process", name)
    with _inherited(file) as readable:
        await decoding.start(readable)
    try:
        while True:
            kind, content = await decoding.block()
            if kind == b"z":
                return
            yield np.frombuffer(bytearray(content), dtype="<f4")
    finally:
        await decoding.close()


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
    limit()
    try:
        for block in decode_blocks(sys.stdin.buffer, name=name):
            write_samples(out, block)
        write_block(out, b"z")
    except AudioError as error:
        write_block(out, b"e", str(error).encode())
    except BrokenPipeError:
        os._exit(0)  # nobody wants it any more


def write_block(out: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    """Write a block at once."""
    out.write(HEAD.pack(kind, len(content)) + content)
    out.flush()


def write_samples(out: BinaryIO, samples: np.ndarray) -> None:
    """Write samples (N,) float32."""
    write_block(out, b"a", samples.astype("<f4").tobytes())


def limit() -> None:
    """Take from this process the means to hurt others."""
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
