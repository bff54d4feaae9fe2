"""Decoding a client's live container in a process of its own: see :mod:`raysr.audio.decoding_process`.

Called as a program, ``python -m raysr.audio.live_decoding NAME`` reads blocks: ``d`` is bytes of the container, ``m`` a
mark, which is answered with one when all that came before it has been decoded. The end of its input is that of the
container.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import BinaryIO, Literal, Self

import numpy as np

from raysr.audio.decoding_process import HEAD, Decoding, limit, write_block, write_samples
from raysr.audio.live_container import decode_growing
from raysr.errors import AudioError


class LiveDecoding:
    """A container that a client sends bit by bit, decoded apart; an async context.

    Args:
        name: what to call it in errors.
    """

    def __init__(self, name: str) -> None:
        self._decoding = Decoding("raysr.audio.live_decoding", name)
        self._asked = 0  # marks without an answer, and the end

    async def __aenter__(self) -> Self:
        await self._decoding.start(asyncio.subprocess.PIPE)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._decoding.close()

    @property
    def owes(self) -> bool:
        """Whether a mark or the end has not been answered yet."""
        return self._asked > 0

    async def push(self, data: bytes) -> None:
        """Take more bytes; wait while what came before has not been read."""
        await self._write(HEAD.pack(b"d", len(data)) + data)

    async def mark(self) -> None:
        """Have :meth:`pieces` say when all that was pushed has been decoded."""
        self._asked += 1
        await self._write(HEAD.pack(b"m", 0))

    async def end(self) -> None:
        """Say that nothing follows."""
        self._asked += 1
        self._decoding.stdin.close()

    async def pieces(self) -> AsyncIterator[np.ndarray | Literal["mark"]]:
        """Yield 16 kHz mono samples (N,) float32, and the marks between them, to the end.

        Raises:
            AudioError: for what is not audio; where the process dies, or does not come to a mark or the end.
        """
        while True:
            kind, content = await self._decoding.block(lambda: self.owes)
            match kind:
                case b"m":
                    yield "mark"
                    self._asked -= 1
                case b"z":
                    return
                case _:
                    yield np.frombuffer(bytearray(content), dtype="<f4")

    async def _write(self, data: bytes) -> None:
        """Write to the process; one that has died is what :meth:`pieces` tells."""
        try:
            self._decoding.stdin.write(data)
            await self._decoding.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            await asyncio.sleep(0)


class _Blocks:
    """The bytes that blocks on a pipe bring; marks among them are answered."""

    def __init__(self, pipe: BinaryIO, out: BinaryIO) -> None:
        self._pipe, self._out = pipe, out
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return what is there of the container; see :class:`raysr.audio.live_container.Growing`."""
        while not self._rest:
            head = self._pipe.read(HEAD.size)
            if len(head) < HEAD.size:
                return b""
            kind, length = HEAD.unpack(head)
            if kind == b"m":
                write_block(self._out, b"m")
            else:
                self._rest = memoryview(self._pipe.read(length))
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


def main() -> None:
    """Decode what standard input brings, and write blocks to standard output."""
    out, (name,) = sys.stdout.buffer, sys.argv[1:]
    limit()
    blocks = _Blocks(sys.stdin.buffer, out)
    try:
        decode_growing(blocks, name, lambda samples: write_samples(out, samples))
        while blocks.read(1 << 16):
            pass  # what follows the audio, and the marks there
        write_block(out, b"z")
    except AudioError as error:
        write_block(out, b"e", str(error).encode())
    except BrokenPipeError:
        os._exit(0)  # nobody wants it any more


if __name__ == "__main__":
    main()
