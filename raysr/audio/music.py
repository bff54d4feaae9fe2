"""Background music made from a seed: chords, bass, a melody and drums; no two seeds play the same piece."""

from collections.abc import Iterator

import numpy as np

SAMPLE_RATE = 16000
_TABLE = 2048
_PROGRESSIONS = ((0, 5, 3, 4), (0, 3, 4, 3), (5, 3, 0, 4), (0, 4, 5, 3), (1, 4, 0, 0), (0, 0, 3, 4))
_MAJOR = np.array([0, 2, 4, 5, 7, 9, 11])
_MINOR = np.array([0, 2, 3, 5, 7, 8, 10])
_KICKS = ((0, 4, 8, 12), (0, 6, 8, 14), (0, 3, 8, 11))  # sixteenths of a bar
_SNARES = ((4, 12), (4, 12, 15), (8,))


def generate_music(length: int, generator: np.random.Generator) -> np.ndarray:
    """Return ``length`` samples of music at 16 kHz, float32, of about unit power."""
    piece = _Piece(generator)
    start = int(generator.uniform(0, 4) * piece.bar)
    music = np.zeros(length, np.float32)
    first = start // piece.bar
    for bar in range(first, (start + length) // piece.bar + 1):
        for offset, sound in piece.play(bar):
            _add(music, sound, bar * piece.bar + offset - start)
    power = float(np.mean(np.square(music))) if length else 0.0
    return music / np.float32(np.sqrt(power)) if power > 0 else music


class _Piece:
    """A key, a tempo, four chords, a tune and four instruments."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self.bar = int(4 * 60 / generator.uniform(76, 144) * SAMPLE_RATE)  # four beats, in samples
        self._root = int(generator.integers(40, 52))  # MIDI number of the lowest bass note
        self._scale = _MAJOR if generator.random() < 0.5 else _MINOR
        self._chords = _PROGRESSIONS[generator.integers(len(_PROGRESSIONS))]
        self._tables = [_wave_table(generator) for _ in range(3)]  # chords, bass, melody
        self._levels = generator.uniform(0.5, 1.2, 4)  # chords, bass, melody, drums
        self._tune = [_tune_bar(generator) for _ in range(4)]
        self._broken = generator.random() < 0.5
        self._kicks = _KICKS[generator.integers(len(_KICKS))]
        self._snares = _SNARES[generator.integers(len(_SNARES))]
        self._drums = _drum_kit(generator)

    def play(self, bar: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield what sounds in a bar: (offset in samples, sound)."""
        step = self.bar // 16
        chord = self._chords[bar % 4]
        for voice, degree in enumerate((chord, chord + 2, chord + 4)):
            if self._broken:
                for beat in range(4):
                    note = self._note(0, degree, 1, 3 * step, self._levels[0])
                    yield (4 * beat + voice) * step, note
            else:
                yield 0, self._note(0, degree, 1, self.bar, 0.5 * self._levels[0])
        for beat in (0, 6, 8, 14):
            yield (
                beat * step,
                self._note(1, chord, 0, (2 if beat in (6, 14) else 5) * step, 1.4 * self._levels[1]),
            )
        for sixteenth, degree, sixteenths in self._tune[bar % 4]:
            yield sixteenth * step, self._note(2, chord + degree, 2, sixteenths * step, self._levels[2])
        kick, snare, hat = self._drums
        for sixteenth in range(0, 16, 2):
            yield sixteenth * step, hat * (self._levels[3] * (0.6 if sixteenth % 4 else 0.35))
        for sixteenth in self._kicks:
            yield sixteenth * step, kick * self._levels[3]
        for sixteenth in self._snares:
            yield sixteenth * step, snare * self._levels[3]

    def _note(self, instrument: int, degree: int, octave: int, length: int, level: float) -> np.ndarray:
        octaves, degree = divmod(int(degree), 7)
        pitch = self._root + 12 * (octave + octaves) + int(self._scale[degree])
        frequency = 440.0 * 2 ** ((pitch - 69) / 12)
        time = np.arange(length, dtype=np.float32)
        phase = (time * np.float32(frequency * _TABLE / SAMPLE_RATE)).astype(np.int64) & (_TABLE - 1)
        attack = np.minimum(time / 160, 1)
        envelope = (
            attack * np.exp(time * np.float32(-2.5 / max(length, 1))) * np.minimum((length - time) / 320, 1)
        )
        return self._tables[instrument].take(phase) * (envelope * np.float32(level))


def _wave_table(generator: np.random.Generator) -> np.ndarray:
    """Return one period of an instrument: harmonics that fall off at a random rate."""
    harmonics = np.arange(1, 13)
    heights = harmonics ** -generator.uniform(0.7, 2.0) * generator.uniform(0.3, 1.0, 12)
    phases = generator.uniform(0, 2 * np.pi, 12)
    time = np.arange(_TABLE) * (2 * np.pi / _TABLE)
    wave = np.sin(time[:, None] * harmonics + phases) @ heights
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def _tune_bar(generator: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return a bar of melody as (sixteenth, degree above the chord, length in sixteenths)."""
    notes, sixteenth, degree = [], 0, int(generator.integers(0, 5))
    while sixteenth < 16:
        length = int(generator.choice([1, 2, 2, 3, 4, 6]))
        if generator.random() < 0.8:
            notes.append((sixteenth, degree, min(length, 16 - sixteenth)))
        degree = int(np.clip(degree + generator.integers(-2, 3), -2, 8))
        sixteenth += length
    return notes


def _drum_kit(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a kick, a snare and a hi-hat."""
    time = np.arange(int(0.18 * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    sweep = 2 * np.pi * (45 * time + 110 / 28 * (1 - np.exp(-28 * time)))
    kick = 3.5 * np.sin(sweep) * np.exp(-14 * time)
    noise = generator.standard_normal(len(time), dtype=np.float32)
    snare = (1.6 * noise + np.sin(2 * np.pi * 185 * time)) * np.exp(-22 * time)
    hat = np.diff(noise, prepend=np.float32(0)) * np.exp(-60 * time)
    return kick.astype(np.float32), snare.astype(np.float32), hat.astype(np.float32)


def _add(music: np.ndarray, sound: np.ndarray, at: int) -> None:
    """Add ``sound`` to ``music`` from sample ``at`` on; what lies outside is dropped."""
    begin, end = max(0, at), min(len(music), at + len(sound))
    if begin < end:
        music[begin:end] += sound[begin - at : end - at]
