"""A container that is still being written gives what the finished file gives, however its bytes come, and at once."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysr.audio.files import decode, wav_bytes
from raysr.audio.live_container import decode_growing
from raysr.audio.live_decoding import LiveDecoding
from raysr.errors import AudioError

LIVE = ["wav", "s24.wav", "f32.wav", "flac", "mp3", "opus", "webm", "aac"]
CODEC_DELAY = 0.2
"""Seconds that an encoder's frames, its parser and the resampler may hold back."""


class Pieces:
    """A growing file whose pieces come one by one."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def heard(pieces: list[bytes]) -> np.ndarray:
    found: list[np.ndarray] = [np.zeros(0, np.float32)]
    decode_growing(Pieces(pieces), "live", found.append)
    return np.concatenate(found)


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[a:b] for a, b in pairwise(ends))


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(LIVE), places=st.lists(st.integers(0, 1 << 20), max_size=30))
def test_any_cut_gives_the_samples_of_the_whole_file(
    encoded: dict[str, bytes], form: str, places: list[int]
) -> None:
    found, whole = heard(list(cut(encoded[form], places))), decode(encoded[form], name=f"a.{form}")
    if form == "mp3":  # only who may look at the end knows how much of the last frame is padding
        assert 0 <= len(found) - len(whole) < 0.1 * 16000
        found, whole = found[: len(whole) - 100], whole[:-100]  # where the resampler hears that padding
    assert np.array_equal(found, whole), "the samples differ"


@settings(max_examples=80, deadline=None)
@given(form=st.sampled_from(LIVE), share=st.floats(0, 1))
@example(form="aac", share=0.11028)  # in the head of a frame
def test_what_is_cut_off_anywhere_gives_the_beginning(
    encoded: dict[str, bytes], form: str, share: float
) -> None:  # a live recording ends wherever it is stopped
    data = encoded[form]
    whole = decode(data, name=f"a.{form}")
    if share < 0.1:  # maybe not even the header is there
        with suppress(AudioError):
            heard([data[: int(share * len(data))]])
        return
    found = heard([data[: int(share * len(data))]])
    missing = round(CODEC_DELAY * 16000)
    assert len(found) <= len(whole) + 1600 * (form == "mp3")  # whose padding shows at its end alone
    assert np.allclose(found[:-missing], whole[: max(0, len(found) - missing)], atol=1e-4)


HELD_BACK = {"wav": (2.2, 0.2), "flac": (1.6, 1.5), "opus": (1.1, 1.1)}
"""Seconds before the first samples, and by which later ones may be late, where FFmpeg looks ahead: WAV may be S/PDIF in
disguise, the end of a FLAC frame shows in the next ones, and a page of this Ogg is a second."""


@pytest.mark.parametrize("form", LIVE)
def test_samples_come_as_soon_as_their_bytes(long_encoded: dict[str, bytes], form: str) -> None:
    data, seconds = long_encoded[form], 10.0
    first, later = HELD_BACK.get(form, (0.5, 0.3))
    told = given = 0.0

    class Watched(Pieces):
        def read(self, size: int) -> bytes:
            nonlocal given
            if not self._rest:
                assert given - told <= (later if told else first)
            found = super().read(size)
            given += seconds * len(found) / len(data)
            return found

    def count(samples: np.ndarray) -> None:
        nonlocal told
        told += len(samples) / 16000

    decode_growing(Watched(list(cut(data, list(range(0, len(data), len(data) // 100))))), "live", count)
    assert told == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"dear all, " * 500, "not audio that can be read as it comes"),
        (b"#EXTM3U\nhttp://127.0.0.1/x.wav\n" * 200, "not audio that can be read as it comes"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n" * 200, "not audio"),
        (bytes(range(256)) * 200, "not audio"),
    ],
)
def test_what_is_no_audio_is_told(data: bytes, told: str) -> None:
    with pytest.raises(AudioError, match=told):
        heard([data])


def test_nothing_is_nothing() -> None:
    assert len(heard([])) == 0


def test_samples_that_are_no_numbers_are_refused(encoded: dict[str, bytes]) -> None:
    data = bytearray(encoded["f32.wav"])
    data[-4000:] = np.full(1000, np.nan, "<f4").tobytes()
    with pytest.raises(AudioError, match="not numbers"):
        heard([bytes(data)])


@pytest.mark.parametrize("form", ["webm", "opus", "wav"])
def test_a_process_of_its_own_answers_marks_when_it_has_decoded_what_came_before(
    long_encoded: dict[str, bytes], form: str
) -> None:
    data = long_encoded[form]

    async def session() -> tuple[np.ndarray, int]:
        found: list[np.ndarray] = []
        async with LiveDecoding("live") as decoding:
            await decoding.push(data[: len(data) // 2])
            await decoding.mark()
            marked = -1
            async for piece in decoding.pieces():
                if isinstance(piece, str):
                    marked = sum(map(len, found))
                    await decoding.push(data[len(data) // 2 :])
                    await decoding.end()
                else:
                    found.append(piece)
        return np.concatenate(found), marked

    found, marked = asyncio.run(session())
    assert np.array_equal(found, decode(data))
    assert marked == pytest.approx(len(found) / 2, abs=0.15 * len(found))


def children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {int(pid) for pid in file.read().split()}


def test_a_process_that_dies_is_an_error_and_ends() -> None:
    async def killed() -> None:
        before = children()
        async with LiveDecoding("bad stream") as decoding:
            await decoding.push(wav_bytes(np.zeros(160_000, np.float32)))
            (process,) = children() - before
            pieces = decoding.pieces()
            await anext(pieces)
            os.kill(process, signal.SIGKILL)
            for _ in range(3):
                await decoding.push(bytes(1 << 20))  # nobody reads it, and nobody hangs
            async for _ in pieces:
                pass

    with pytest.raises(AudioError, match=r"^bad stream: cannot be decoded within the limits"):
        asyncio.run(killed())


def test_who_leaves_ends_the_process() -> None:
    async def left() -> set[int]:
        before = children()
        async with LiveDecoding("left") as decoding:
            await decoding.push(b"RIFF")
            started = children() - before
        return started & children()

    assert asyncio.run(left()) == set()
