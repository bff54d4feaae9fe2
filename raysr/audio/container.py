"""Opening audio that strangers sent: known containers only, never a playlist, no second file."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from raysr.audio.resample import RATES
from raysr.errors import AudioError

Source = str | Path | bytes | bytearray | memoryview | BinaryIO

SPOOL_BYTES = 8 << 20
HEAD_BYTES = 4096
KNOWN = "wav, flac, mp3, ogg, opus, webm, m4a or g722"

# What FFmpeg may probe. Playlists, concatenations, devices and image sequences are not among them, so no
# input can make it open a second file; IAMF is left out for its history of memory errors.
_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,nistsphere,"
    "nut,ogg,tta,voc,w64,wav,wv,alaw,g722,gsm,mulaw,s16le"
)
# Raw streams carry no sign of what they are: suffix → demuxer and rate in Hz (None: the codec's own). Their
# bytes alone do not decode.
HEADERLESS: dict[str, tuple[str, int | None]] = {
    ".g722": ("g722", None),
    ".gsm": ("gsm", None),
    ".ulaw": ("mulaw", 8000),
    ".ul": ("mulaw", 8000),
    ".alaw": ("alaw", 8000),
    ".al": ("alaw", 8000),
    **{f".sln{rate or ''}": ("s16le", (rate or 8) * 1000) for rate in (0, 12, 16, 24, 32, 48, 96, 192)},
}
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<?xml", b"<asx", b"<smil", b"<MPD")


class Audio(NamedTuple):
    """An open audio stream and the name that its errors carry."""

    name: str
    file: BinaryIO
    container: InputContainer
    stream: AudioStream


@contextmanager
def open_audio(source: Source, name: str | None = None) -> Iterator[Audio]:
    """Open the first audio stream of a local file, of bytes or of a binary file object.

    Headerless forms (G.722, GSM, µ-law, A-law, signed linear) are told by the extension of the name.

    Raises:
        AudioError: anything that is not audio; FFmpeg's own errors never leave this package.
    """
    name = name or _name(source)
    name = name if name.isprintable() else ascii(name)
    with _readable(source, name) as file:
        with ffmpeg_errors(name, f"not audio that can be read; it should be {KNOWN}"):
            _refuse_what_is_not_audio(file, name)
            container = _open(file, name)
        with container:
            yield Audio(name, file, container, _audio_stream(container, name))


@contextmanager
def ffmpeg_errors(name: str, meaning: str) -> Iterator[None]:
    """Turn whatever FFmpeg raises into one :class:`AudioError` that says what it means for ``name``."""
    try:
        yield
    except (av.FFmpegError, ValueError, IndexError, OverflowError) as error:
        raise AudioError(f"{name}: {meaning}") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror or error}") from error


def _name(source: Source) -> str:
    if isinstance(source, str | Path):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "audio"


@contextmanager
def _readable(source: Source, name: str) -> Iterator[BinaryIO]:
    """Yield ``source`` as a seekable file; streams are spooled, since an m4a may end with its index."""
    if isinstance(source, str | Path):
        try:
            file = open(source, "rb")  # noqa: SIM115 - closed below; only the opening may fail with these messages
        except FileNotFoundError:
            raise AudioError(f"{name}: no such file") from None
        except IsADirectoryError:
            raise AudioError(f"{name}: a folder, not an audio file") from None
        except (OSError, ValueError) as error:
            raise AudioError(
                f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error
        with file:
            yield file
    elif isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif source.seekable():
        source.seek(0)
        yield source
    else:
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            with ffmpeg_errors(name, "cannot be read"):
                shutil.copyfileobj(source, spool)
            spool.seek(0)
            yield spool  # type: ignore[misc]


def _refuse_what_is_not_audio(file: BinaryIO, name: str) -> None:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise AudioError(f"{name}: the file is empty (0 bytes); it should be {KNOWN}")
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_PLAYLISTS):
        raise AudioError(f"{name}: a playlist, not audio; give the audio files that it names")
    if _is_text(head):
        raise AudioError(f"{name}: a text file, not audio; it should be {KNOWN}")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or error.reason != "unexpected end of data":
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(letter.isprintable() or letter in "\t\n\r\f" for letter in text)


def _open(file: BinaryIO, name: str) -> InputContainer:
    demuxer, rate = HEADERLESS.get(Path(name).suffix.lower(), (None, None))
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file,pipe"}
    if rate:
        options |= {"sample_rate": str(rate), "ch_layout": "mono"}
    return av.open(file, mode="r", format=demuxer, options=options, metadata_errors="ignore")


def _audio_stream(container: InputContainer, name: str) -> AudioStream:
    if not container.streams.audio:
        raise AudioError(f"{name}: the file holds no audio stream")
    stream = container.streams.audio[0]
    if not stream.codec_context or not stream.rate:
        raise AudioError(
            f"{name}: the file holds an audio stream that cannot be decoded; re-export it as wav or flac"
        )
    if stream.rate not in RATES:
        raise AudioError(f"{name}: its sample rate is {stream.rate} Hz; it should lie in 1000 … 768000 Hz")
    return stream
