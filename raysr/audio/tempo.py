"""Speed and tempo of speech: faster with a higher voice, as a tape is, or faster with the same voice."""

import av
import av.filter
import numpy as np

from raysr.audio.resample import Resampler
from raysr.errors import AudioError

SAMPLE_RATE = 16000
STEPS = 100
"""Factors are hundredths, so that kernels of resampling are made once."""
FACTORS = (0.5, 2.0)
_BLOCK_SECONDS = 10


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Return samples (N,) at 16 kHz played ``factor`` times as fast: (⌈N / factor⌉,), the voice higher by as much.

    What was at t seconds is at t / factor afterwards (Ko et al., Interspeech 2015), of a factor of hundredths.

    Raises:
        AudioError: a factor outside 0.5 … 2.
    """
    return convert(samples, round(hundredths(factor) * SAMPLE_RATE), SAMPLE_RATE)


def change_tempo(samples: np.ndarray, factor: float) -> np.ndarray:
    """Return samples (N,) at 16 kHz played ``factor`` times as fast in the same voice: (round(N / factor),).

    FFmpeg's ``atempo`` overlaps stretches that are alike (WSOLA); what was at t seconds is near t / factor afterwards,
    of a factor of hundredths.

    Raises:
        AudioError: a factor outside 0.5 … 2.
    """
    factor, speech = hundredths(factor), np.asarray(samples, np.float32)
    length = round(len(speech) / factor)
    if factor == 1 or not len(speech):
        return speech
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=SAMPLE_RATE, format="flt", layout="mono")
    chain = [source, graph.add("atempo", f"{factor:g}"), graph.add("abuffersink")]
    graph.link_nodes(*chain).configure()
    # the filter ends with what is left of its last window: silence pushes all of the speech out
    padded = np.concatenate([speech, np.zeros(SAMPLE_RATE // 4, np.float32)])
    frame = av.AudioFrame.from_ndarray(padded[None], format="flt", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.pts = 0
    graph.push(frame)
    graph.push(None)
    found = []
    while (piece := _pulled(graph)) is not None:
        found.append(piece)
    return np.concatenate([*found, np.zeros(length, np.float32)])[:length]


def _pulled(graph: av.filter.Graph) -> np.ndarray | None:
    try:
        frame = graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return None
    return frame.to_ndarray()[0] if isinstance(frame, av.AudioFrame) else None


def hundredths(factor: float) -> float:
    """Return a factor as it is used: to two decimals.

    Raises:
        AudioError: a factor outside 0.5 … 2.
    """
    low, high = FACTORS
    if not low <= factor <= high:
        raise AudioError(f"a factor of {factor:g}: it should lie in {low:g} … {high:g}")
    return round(factor * STEPS) / STEPS


def convert(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Do what :func:`raysr.audio.resample.resample` does, block by block: an hour takes little more than itself."""
    resampler, size = Resampler(source_rate, target_rate), _BLOCK_SECONDS * source_rate
    pushed = [resampler.push(samples[first : first + size]) for first in range(0, len(samples), size)]
    return np.concatenate([*pushed, resampler.flush()])
