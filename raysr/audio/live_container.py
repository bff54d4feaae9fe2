"""Audio in a container that is still being written: samples as soon as their bytes are there."""

from collections.abc import Callable, Iterator
from typing import Protocol

import av
import numpy as np
from av.audio.stream import AudioStream

from raysr.audio.container import ffmpeg_errors
from raysr.audio.files import DAMAGED, SAMPLE_RATE
from raysr.audio.pcm import mono
from raysr.audio.resample import Resampler
from raysr.errors import AudioError

LIVE = "webm, ogg, opus, flac, mp3, aac or wav"

# Containers that can be read from front to back; no playlist, nothing that names a second file.
_DEMUXERS = "aac,flac,matroska,webm,mp3,mpegts,ogg,wav"
_PROBED_BYTES = 1 << 15
_BLOCK_SECONDS = 0.5


class Growing(Protocol):
    """A file whose end nobody knows."""

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, as many as are there; wait for one; none at the end."""


def decode_growing(file: Growing, name: str, heard: Callable[[np.ndarray], object]) -> None:
    """Decode a growing file to its end and tell ``heard`` of 16 kHz mono samples (N,) float32.

    Together they are those of :func:`raysr.audio.files.decode` of the whole file; but a last packet that was cut in
    two is left out, since a live recording ends wherever it is stopped.

    Args:
        file: the source.
        name: what to call it in errors.
        heard: called before the file is asked for more, so that nothing which could be decoded is held back.

    Raises:
        AudioError: one line that names the file, for what is not audio, or is damaged.
    """
    _Growing(file, name, heard).decode()


class _Growing:
    def __init__(self, file: Growing, name: str, heard: Callable[[np.ndarray], object]) -> None:
        self._file, self._name, self._heard = file, name, heard
        self._resampler: Resampler | None = None
        self._waiting: list[np.ndarray] = []
        self._length = self._read = 0
        self._ended = self._broken = False

    def read(self, size: int) -> bytes:
        """Hand over what has been decoded, then wait for more; FFmpeg calls this."""
        self._hand_over()
        data = self._file.read(size)
        self._read += len(data)
        self._ended = not data
        return data

    def decode(self) -> None:
        """Decode to the end."""
        rate: int | None = None
        for samples, their_rate in self._pieces():
            if rate is None:
                rate, self._resampler = their_rate, Resampler(their_rate, SAMPLE_RATE)
            elif their_rate != rate:
                raise AudioError(f"{self._name}: changes its sample rate from {rate} to {their_rate} Hz")
            self._waiting.append(samples)
            self._length += len(samples)
            if self._length >= _BLOCK_SECONDS * rate:
                self._hand_over()
        self._hand_over()
        if self._resampler is not None:
            self._heard(self._resampler.flush())

    def _hand_over(self) -> None:
        if self._resampler is not None and self._waiting:
            samples = self._resampler.push(np.concatenate(self._waiting))
            self._waiting, self._length = [], 0
            self._heard(samples)

    def _pieces(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield mono samples and their rate in Hz, frame by frame."""
        options = {
            "format_whitelist": _DEMUXERS,
            "protocol_whitelist": "pipe",
            "probesize": str(_PROBED_BYTES),
            "formatprobesize": str(_PROBED_BYTES),
            "analyzeduration": "1",  # µs: headers say all that is needed
        }
        with ffmpeg_errors(self._name, f"not audio that can be read as it comes; it should be {LIVE}"):
            try:
                container = av.open(self, mode="r", options=options, metadata_errors="ignore")
            except av.EOFError:
                return  # it ended before there was any audio
            except av.FFmpegError:
                if not self._read:
                    return
                raise
        with container:
            if not container.streams.audio:
                raise AudioError(f"{self._name}: the stream holds no audio")
            stream = container.streams.audio[0]
            with ffmpeg_errors(self._name, DAMAGED):
                try:
                    for packet in container.demux(stream):
                        yield from ((mono(f, self._name), f.sample_rate) for f in self._frames(packet))
                except (av.EOFError, av.InvalidDataError):
                    if not self._ended:  # otherwise it ends in the middle of a packet
                        raise

    def _frames(self, packet: "av.Packet[AudioStream]") -> list[av.AudioFrame]:
        """Return a packet's frames; one that is broken may be the last, or one of MP3 or AAC, as for every player."""
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            self._broken = packet.stream.codec_context.name not in ("mp3", "mp3float", "aac")
            return []
        if frames and self._broken:
            raise AudioError(f"{self._name}: {DAMAGED}")
        return frames
