"""Whether a file holds all the audio that its container promises; FFmpeg itself does not mind."""

import os
import struct
from typing import BinaryIO

from raysr.audio.container import Audio
from raysr.errors import AudioError

# Some writers give the size of the whole file for that of its data; others a huge one, for "unknown".
_HEADER_BYTES = 128
_UNKNOWN_SIZE = 0x7FFF0000
_TOLERANCE_S = 0.5
_LAST_PAGE_BYTES = 1 << 17


def check_complete(audio: Audio, decoded_s: float) -> None:
    """Raise :class:`AudioError` when the file was cut off; ``decoded_s`` is where its audio ended.

    WAV, Ogg, FLAC, MP4 and audio-only Matroska say how much there should be; MP3 and raw streams do not.
    """
    promised_s = _promised_seconds(audio)
    if promised_s is not None and decoded_s < promised_s - _TOLERANCE_S:
        found = f"{decoded_s:.1f} s of the {promised_s:.1f} s that its header promises"
        raise AudioError(f"{audio.name}: truncated: it holds {found}; copy or export it again")
    if _ends_too_early(audio):
        raise AudioError(f"{audio.name}: truncated after {decoded_s:.1f} s; copy or export it again")


def _promised_seconds(audio: Audio) -> float | None:
    """Return the length that the header declares; None where FFmpeg only estimates it from the size."""
    kind, stream = audio.container.format.name, audio.stream
    if kind == "flac" or kind.startswith("mov"):
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    if kind.startswith("matroska") and len(audio.container.streams) == 1:
        return audio.container.duration / 1e6 if audio.container.duration else None
    return None


def _ends_too_early(audio: Audio) -> bool:
    kind = audio.container.format.name
    if kind == "wav":
        return _wav_is_cut(audio.file)
    return kind == "ogg" and _ogg_is_cut(audio.file)


def _wav_is_cut(file: BinaryIO) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(12)[:4] != b"RIFF":
        return False
    while len(header := file.read(8)) == 8:
        chunk, length = struct.unpack("<4sI", header)
        if chunk == b"data":
            return length < _UNKNOWN_SIZE and file.tell() + length > size + _HEADER_BYTES
        file.seek(length + length % 2, os.SEEK_CUR)
    return False


def _ogg_is_cut(file: BinaryIO) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LAST_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27:
        return True
    segments = page[27 : 27 + page[26]]
    return len(segments) < page[26] or len(page) < 27 + len(segments) + sum(segments)
