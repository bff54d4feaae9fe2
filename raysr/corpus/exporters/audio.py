"""The audio of an export: 16 kHz mono, as it is heard in training, encoded in worker processes."""

from collections.abc import Iterator
from dataclasses import dataclass

from raysr.audio.encode import flac_bytes, wav_bytes
from raysr.audio.files import probe
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.errors import RaysrError, one_line

SAMPLE_RATE = 16000
CODECS = ("flac", "wav")


@dataclass(frozen=True)
class ExportTask:
    """An utterance, and whether its audio is to be encoded (``flac`` or ``wav``) or only looked at (None)."""

    utterance: Utterance
    codec: str | None


@dataclass(frozen=True)
class Encoded:
    """The file of an utterance: its bytes, if it was encoded, and what it holds."""

    audio: bytes
    sample_rate: int
    samples: int
    error: str = ""


def encode(task: ExportTask) -> Iterator[Encoded]:
    """Yield the audio of an utterance, or its error."""
    try:
        yield _look(task.utterance) if task.codec is None else _encode(task.utterance, task.codec)
    except RaysrError as error:
        yield Encoded(b"", 0, 0, str(error))
    except Exception as error:
        # Damaged bytes may raise anything in whoever reads them; nothing is written here.
        yield Encoded(b"", 0, 0, one_line(f"{type(error).__name__}: {error}"))


def _encode(utterance: Utterance, codec: str) -> Encoded:
    samples = load_waveform(utterance)  # (N,)
    peak = float(abs(samples).max(initial=1.0))
    audio = flac_bytes(samples / peak) if codec == "flac" else wav_bytes(samples / peak)
    return Encoded(audio, SAMPLE_RATE, len(samples))


def _look(utterance: Utterance) -> Encoded:
    info = probe(utterance.audio)
    if info.channels != 1 or not info.duration:
        problem = f"has {info.channels} channels" if info.channels != 1 else "does not say how long it is"
        return Encoded(b"", 0, 0, f"{utterance.audio}: {problem}: export without --reference")
    return Encoded(b"", info.sample_rate, round(info.duration * info.sample_rate))
