"""What speech goes through on its way: narrow bands, clipping, the codecs of calls, packets that get lost."""

import io
from collections.abc import Callable, Mapping
from typing import Literal

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from raysr.audio.encode import encode_opus
from raysr.audio.files import decode
from raysr.audio.tempo import convert
from raysr.errors import AudioError

SAMPLE_RATE = 16000
TELEPHONE_RATE = 8000
PACKET_SECONDS = 0.02
BIT_RATES: Mapping[str, tuple[int, int]] = {"opus": (6000, 256_000), "mp3": (8000, 160_000)}
"""Lowest and highest, in bit/s, at 16 kHz; the other codecs have one."""

Codec = Literal["alaw", "mulaw", "gsm", "opus", "mp3"]
"""``alaw`` and ``mulaw``: G.711 at 8 kHz; ``gsm``: the band of a mobile call and its 13 bits, without its codec;
``opus`` and ``mp3`` at a bit rate."""
Concealment = Literal["silence", "repeat"]
"""What is heard in place of a lost packet: nothing, or the last one again, ever fainter."""

_EDGE_HZ = 200.0
_ROUNDING = 1e-6
_GSM_BAND = (300.0, 3400.0)
_FADING = 0.5


def band_pass(samples: np.ndarray, low: float = 0.0, high: float = SAMPLE_RATE / 2) -> np.ndarray:
    """Return samples (N,) at 16 kHz without what is below ``low`` and above ``high`` Hz.

    No delay, and half the amplitude at either edge, which falls from all to nothing within 200 Hz as a cosine does.

    Raises:
        AudioError: a band with nothing in it.
    """
    if not 0 <= low < high:
        raise AudioError(f"a band from {low:g} to {high:g} Hz has nothing in it")
    speech = np.asarray(samples, np.float32)
    if not len(speech):
        return speech
    size = 1 << (len(speech) + SAMPLE_RATE // 20).bit_length()  # or the end would ring at the beginning
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    shape = _edge(high - frequency) if high < SAMPLE_RATE / 2 else np.ones_like(frequency)
    if low > 0:
        shape = shape * _edge(frequency - low)
    spectrum = np.fft.rfft(speech.astype(np.float64), size) * shape
    return np.fft.irfft(spectrum, size)[: len(speech)].astype(np.float32)


def clip(samples: np.ndarray, share: float) -> np.ndarray:
    """Return samples (N,) of which the loudest ``share`` are cut off at one level, as of a microphone too near.

    The share is of those that are not 0: digital silence is no speech.
    """
    if not 0 <= share < 1:
        raise AudioError(f"a share of {share:g} to clip: it should lie in 0 … 1, below 1")
    speech = np.asarray(samples, np.float32)
    loudness = np.abs(speech[speech != 0])
    if not len(loudness) or share == 0:
        return speech
    level = np.float32(np.quantile(loudness, 1 - share))
    return np.clip(speech, -level, level)


def through_codec(samples: np.ndarray, codec: Codec, bit_rate: int | None = None) -> np.ndarray:
    """Return samples (N,) at 16 kHz as they come out of a codec: as many, and where they were.

    Args:
        samples: in [-1, 1]; what is beyond is cut off.
        codec: see :data:`Codec`.
        bit_rate: of ``opus`` (16000 unless given) and ``mp3`` (32000), in bit/s.

    Raises:
        AudioError: a codec that is not there, or a bit rate that it does not have.
    """
    speech = np.clip(np.asarray(samples, np.float32), -1, 1)
    rated: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {"opus": _opus, "mp3": _mp3}
    plain: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
        "alaw": lambda narrow: _g711(narrow, "pcm_alaw"),
        "mulaw": lambda narrow: _g711(narrow, "pcm_mulaw"),
        "gsm": _gsm,
    }
    check_bit_rate(codec, bit_rate)
    if not len(speech):
        return speech
    if codec in rated:
        heard = rated[codec](speech, bit_rate or {"opus": 16000, "mp3": 32000}[codec])
    elif codec in plain:
        heard = plain[codec](speech)
    else:
        raise AudioError(f"there is no codec '{codec}'; there are {', '.join([*plain, *rated])}")
    return _as_long(heard, len(speech))


def lose_packets(
    samples: np.ndarray,
    share: float,
    generator: np.random.Generator,
    burst: float | None = None,
    concealment: Concealment = "repeat",
) -> np.ndarray:
    """Return samples (N,) at 16 kHz of which packets of 20 ms got lost.

    Losses come in bursts of ``burst`` packets on average, as on a line that is good or bad (Gilbert 1960).

    Args:
        share: of packets that get lost, in the long run.
        generator: where the draws come from.
        burst: 1 or more, and no less than share / (1 − share), which losses by turns have; None: 1 / (1 − share), which
            those have that know nothing of each other.
        concealment: see :data:`Concealment`.

    Raises:
        AudioError: a share or a burst that no line has.
    """
    check_line(share, burst)
    burst = 1 / (1 - share) if burst is None else burst
    speech, size = np.array(samples, np.float32), round(PACKET_SECONDS * SAMPLE_RATE)
    count = -(-len(speech) // size)
    over, lost = 1 / burst, generator.random() < share
    fall = share / (1 - share) * over  # from good to bad, so that `share` are bad in the long run
    draws = generator.random(count)
    for number in range(count):
        place = slice(number * size, (number + 1) * size)
        if lost:
            before = speech[max(0, (number - 1) * size) : number * size]
            length = len(speech[place])
            repeats = concealment == "repeat" and len(before) == size
            speech[place] = before[:length] * np.float32(_FADING) if repeats else 0.0
        lost = draws[number] >= over if lost else draws[number] < fall
    return speech


def check_line(share: float, burst: float | None) -> None:
    """Raise an AudioError for a share of lost packets, and a length of bursts, that no line has."""
    if not 0 <= share < 1:
        raise AudioError(f"a share of {share:g} lost packets: it should lie in 0 … 1, below 1")
    least = max(1.0, share / (1 - share))
    if burst is not None and not burst >= least - _ROUNDING:
        raise AudioError(f"bursts of {burst:g} packets, with a share of {share:g} lost: {least:.3g} or more")


def check_bit_rate(codec: Codec, bit_rate: int | None) -> None:
    """Raise an AudioError for a bit rate that a codec does not have; None is right for all."""
    if bit_rate is None:
        return
    if codec not in BIT_RATES:
        raise AudioError(f"codec {codec} has one bit rate: leave it out")
    low, high = BIT_RATES[codec]
    if not low <= bit_rate <= high:
        raise AudioError(f"a bit rate of {bit_rate} bit/s: that of {codec} lies in {low} … {high}")


def _edge(beyond: np.ndarray) -> np.ndarray:
    """Return 0 … 1 over 200 Hz around the edge, from how far within the band a frequency is."""
    place = np.clip(beyond / _EDGE_HZ + 0.5, 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * place)


def _g711(speech: np.ndarray, codec: str) -> np.ndarray:
    narrow = convert(speech, SAMPLE_RATE, TELEPHONE_RATE)
    pcm = np.clip(np.rint(narrow * 32768), -32768, 32767).astype("<i2")
    encoder, decoder = _telephone(codec, "w"), _telephone(codec, "r")
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = TELEPHONE_RATE
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    pieces = [frame.to_ndarray()[0] for packet in packets for frame in decoder.decode(packet)]
    heard = np.concatenate(pieces).astype(np.float32) / 32768
    return convert(heard, TELEPHONE_RATE, SAMPLE_RATE)


def _telephone(codec: str, mode: Literal["r", "w"]) -> AudioCodecContext:
    context = AudioCodecContext.create(codec, mode)
    assert isinstance(context, AudioCodecContext)
    context.sample_rate, context.layout, context.format = TELEPHONE_RATE, "mono", "s16"
    return context


def _gsm(speech: np.ndarray) -> np.ndarray:
    narrow = band_pass(speech, *_GSM_BAND)
    return np.rint(narrow * 4096).astype(np.float32) / 4096


def _opus(speech: np.ndarray, bit_rate: int) -> np.ndarray:
    return decode(encode_opus(speech, bit_rate))


def _mp3(speech: np.ndarray, bit_rate: int) -> np.ndarray:
    output = io.BytesIO()
    with av.open(output, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = bit_rate
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(speech[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        fifo = av.AudioFifo()
        fifo.write(frame)
        for piece in fifo.read_many(stream.codec_context.frame_size, partial=True):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return decode(output.getvalue())


def _as_long(samples: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([samples[:length], np.zeros(max(0, length - len(samples)), np.float32)])
