"""What a process of its own decodes is what this one would; whatever becomes of it is an error of the file."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from raysr.audio import decoding_process
from raysr.audio.decoding_process import decode_apart
from raysr.audio.files import decode, encode_opus, wav_bytes
from raysr.errors import AudioError

SPEECH = (np.random.default_rng(0).normal(0, 0.1, 5 * 44100)).astype(np.float32)


def heard(file: BinaryIO, name: str = "some.file") -> np.ndarray:
    async def whole() -> np.ndarray:
        return np.concatenate([block async for block in decode_apart(file, name)])

    return asyncio.run(whole())


@pytest.mark.parametrize("kind", ["memory", "disk", "small spool", "large spool"])
def test_it_decodes_as_this_process_does(kind: str, tmp_path: Path) -> None:
    data = wav_bytes(SPEECH, 44100)
    match kind:
        case "memory":
            file: BinaryIO = io.BytesIO(data)
        case "disk":
            (tmp_path / "speech").write_bytes(data)
            file = (tmp_path / "speech").open("rb")
        case _:
            most = 1 << 30 if kind == "small spool" else 1
            file = tempfile.SpooledTemporaryFile(most)  # noqa: SIM115 - closed below
            file.write(data)
    with file:
        assert np.array_equal(heard(file), decode(data))
        assert np.array_equal(heard(file), decode(data)), "again, from its beginning"


def test_compressed_audio_too() -> None:
    data = encode_opus(SPEECH[:48000], 48000)
    assert np.array_equal(heard(io.BytesIO(data)), decode(data))


@pytest.mark.parametrize("name", ["letter.txt", "-c", "line\nbreak", "nul\0", "\udcff"])
def test_its_errors_are_ours_and_name_the_file(name: str) -> None:
    told = name if name.isprintable() else ascii(name)
    with pytest.raises(AudioError) as caught:
        heard(io.BytesIO(b"dear all"), name)
    assert str(caught.value).startswith(f"{told}: ")
    assert "\n" not in str(caught.value)


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def first_block(name: str) -> tuple[AsyncGenerator[np.ndarray, None], int]:
    """Begin with an hour, which does not fit into the pipe, and return the process that decodes it."""
    before = children()
    blocks = decode_apart(io.BytesIO(wav_bytes(np.zeros(16000 * 3600, np.float32))), name)
    await anext(blocks)
    (process,) = [pid for pid in children() if pid not in before]
    return blocks, process


def test_a_process_that_dies_is_an_error_of_its_file() -> None:
    async def killed() -> None:
        blocks, process = await first_block("bad.wav")
        os.kill(process, signal.SIGKILL)
        async for _ in blocks:
            pass

    with pytest.raises(AudioError, match=r"^bad\.wav: cannot be decoded within the limits"):
        asyncio.run(killed())


def test_a_process_that_comes_to_no_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_process, "STALL_SECONDS", 0.5)
    found: list[int] = []

    async def stopped() -> None:
        monkeypatch.setattr(decoding_process, "STALL_SECONDS", 30.0)
        blocks, process = await first_block("slow.wav")
        found.append(process)
        monkeypatch.setattr(decoding_process, "STALL_SECONDS", 0.5)
        os.kill(process, signal.SIGSTOP)
        async for _ in blocks:
            pass

    with pytest.raises(AudioError, match=r"^slow\.wav: takes too long"):
        asyncio.run(stopped())
    assert found[0] not in children()


@pytest.mark.parametrize("after", [0, 0.5])
def test_who_stops_asking_ends_the_process(after: float) -> None:
    """At once, and when so much has been decoded ahead that no more is read."""

    async def left() -> int:
        blocks, process = await first_block("left.wav")
        await asyncio.sleep(after)
        async with asyncio.timeout(30):
            await blocks.aclose()
        return process

    assert asyncio.run(left()) not in children()


GREEDY = """
import sys
from raysr.audio import decoding_process
sys.argv = ["decoding", "bomb.wav"]
decoding_process.decode_blocks = lambda *_, **__: iter([bytearray(2 << 30)])
decoding_process.main()
"""
WRITING = GREEDY.replace("iter([bytearray(2 << 30)])", "open('WRITTEN', 'wb', 0).write(b'x')")


@pytest.mark.parametrize(("program", "told"), [(GREEDY, "MemoryError"), (WRITING, "File too large")])
def test_it_has_little_memory_and_may_write_nothing(program: str, told: str, tmp_path: Path) -> None:
    program = program.replace("WRITTEN", str(tmp_path / "written"))
    done = subprocess.run([sys.executable, "-c", program], input="", capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == ""
    assert told in done.stderr


def test_the_process_knows_no_secrets_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "telling.py").write_text(
        "import os, sys\n"
        "from raysr.audio.decoding_process import HEAD\n"
        "told = ' '.join(sorted(os.environ)).encode()\n"
        "sys.stdout.buffer.write(HEAD.pack(b'e', len(told)) + told)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")

    async def told() -> str:
        decoding = decoding_process.Decoding("telling", "speech.wav")
        await decoding.start(asyncio.subprocess.DEVNULL)
        with pytest.raises(AudioError) as error:
            await decoding.block()
        await decoding.close()
        return str(error.value)

    names = set(asyncio.run(told()).split())
    assert {"PATH", "PYTHONPATH"} <= names
    assert not names & {"OPENAI_API_KEY", "RAY_AUTH_TOKEN"}
