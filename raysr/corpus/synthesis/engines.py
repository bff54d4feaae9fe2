"""Speech from the synthesis engines: espeak-ng as a C library, flite and festival as commands.

Only building corpora needs them: ``raysr[voices]`` brings espeak-ng, system packages the others.
"""

import ctypes
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from raysr.audio.resample import resample
from raysr.corpus.synthesis.voices import Voice
from raysr.errors import CorpusError

SAMPLE_RATE = 16000
_NATURAL_RATES = {"rms": 158, "ked_diphone": 195}  # words a minute unstretched
_NATURAL_RATE = 183  # of the others
_ESPEAK_PACE = 1.08  # words a minute of a sentence without pauses, per word a minute asked for


@dataclass(frozen=True)
class Line:
    """What somebody says, and how fast (words a minute)."""

    text: str
    voice: Voice
    rate: float


class Engine(Protocol):
    """A synthesiser; yields the waveform of each line, float32 at 16 kHz, in order."""

    def speak(self, lines: Iterable[Line]) -> Iterator[np.ndarray]: ...


def open_engine(name: str) -> Engine:
    """Return the engine called ``name``; raise :class:`CorpusError` saying how to install what is missing."""
    engines: dict[str, type[Espeak | Flite | Festival]]
    engines = {"espeak": Espeak, "flite": Flite, "festival": Festival}
    return engines[name]()


def is_installed(name: str) -> bool:
    """Return whether the engine called ``name`` is on this machine."""
    return bool(find_spec("espeakng_loader") if name == "espeak" else shutil.which(name))


class Espeak:
    """espeak-ng through its C library (speak_lib.h), whose state is the process's: open one at a time."""

    _SYNCHRONOUS = 2
    _UTF8 = 1
    _RATE, _PITCH = 1, 3

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise CorpusError("espeak-ng is missing: pip install 'raysr[voices]'") from None
        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        self._variants = Path(espeakng_loader.get_data_path(), "voices", "!v")
        data = str(espeakng_loader.get_data_path())
        self._source_rate = self._library.espeak_Initialize(self._SYNCHRONOUS, 0, data.encode(), 0)
        if self._source_rate <= 0:
            raise CorpusError(f"espeak-ng does not start with the data in {data}")
        self._blocks: list[np.ndarray] = []
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = signature(self._take)  # the library keeps only a pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, lines: Iterable[Line]) -> Iterator[np.ndarray]:
        """Yield each line's waveform."""
        for line in lines:
            self._choose(line.voice.name)
            self._library.espeak_SetParameter(self._RATE, round(line.rate / _ESPEAK_PACE), 0)
            self._library.espeak_SetParameter(self._PITCH, line.voice.pitch, 0)
            self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # of breath and flutter
            text = line.text.encode()
            self._blocks = []
            self._library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, self._UTF8, None, None)
            yield resample(np.concatenate(self._blocks), self._source_rate, SAMPLE_RATE)

    def _choose(self, name: str) -> None:
        """Switch to a voice; the library by itself would pass over an unknown variant."""
        variant = name.partition("+")[2]
        unknown = variant and not (self._variants / variant).is_file()
        if unknown or self._library.espeak_SetVoiceByName(name.encode()):
            raise CorpusError(f"espeak-ng has no voice '{name}'")

    def _take(self, wave: "ctypes._Pointer[ctypes.c_short]", count: int, events: int | None) -> int:
        if wave and count > 0:
            self._blocks.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / 32768)
        return 0


class Flite:
    """The ``flite`` command."""

    def __init__(self) -> None:
        self._command = _command("flite")

    def speak(self, lines: Iterable[Line]) -> Iterator[np.ndarray]:
        """Yield each line's waveform."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "line.wav")
            for line in lines:
                stretch = f"duration_stretch={_stretch(line):.3f}"
                arguments = ["-voice", line.voice.name, "--setf", stretch, "-t", line.text, "-o", str(path)]
                subprocess.run([self._command, *arguments], check=True, capture_output=True)
                yield _read(path, line.voice.warp)


class Festival:
    """The ``festival`` command, once for all lines."""

    def __init__(self) -> None:
        self._command = _command("festival")

    def speak(self, lines: Iterable[Line]) -> Iterator[np.ndarray]:
        """Yield each line's waveform."""
        lines = list(lines)
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "speak.scm")
            script.write_text("\n".join(_scheme(n, line) for n, line in enumerate(lines)))
            subprocess.run([self._command, "-b", str(script)], check=True, capture_output=True, cwd=folder)
            for number, line in enumerate(lines):
                yield _read(Path(folder, f"{number}.wav"), line.voice.warp)


def _scheme(number: int, line: Line) -> str:
    return (
        f"(voice_{line.voice.name}) (Parameter.set 'Duration_Stretch {_stretch(line):.3f})"
        f'(utt.save.wave (utt.synth (Utterance Text "{line.text}")) "{number}.wav" \'riff)'
    )


def _stretch(line: Line) -> float:
    return _NATURAL_RATES.get(line.voice.name, _NATURAL_RATE) / line.rate * line.voice.warp


def _read(path: Path, warp: float) -> np.ndarray:
    """Return 16 kHz samples of what flite and festival write: one channel of 16-bit samples."""
    with wave.open(str(path), "rb") as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    return resample(samples, round(rate * warp / 100) * 100, SAMPLE_RATE)


def _command(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise CorpusError(f"{name} is missing: install your system's packages for {name} and its voices")
    return found
