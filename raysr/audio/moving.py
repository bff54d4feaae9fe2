"""A speaker who walks about in a room: the direct sound comes and goes, what the walls send back stays."""

import math

import numpy as np

from raysr.audio.mix import active_power
from raysr.audio.rooms import convolve, impulse_response
from raysr.errors import AudioError

STRIDE_SECONDS = 1.0
"""Between the places that a walk is drawn at, at most."""
WALKING = 1.5
"""Metres a second, at most."""


def walk(
    samples: np.ndarray, distances: np.ndarray, rt60: float, volume: float, generator: np.random.Generator
) -> np.ndarray:
    """Return samples (N,) at 16 kHz of somebody who is at these distances (P,) in metres, evenly over time.

    The direct sound falls as 1 / distance, interpolated in decibels; the diffuse tail is the same wherever one is in
    a room (Kuttruff, Room Acoustics). Travel times, and with them the Doppler shift, are left out. As loud as before.

    Args:
        rt60: reverberation time in seconds.
        volume: of the room in cubic metres.
        generator: where the tail comes from.

    Raises:
        AudioError: a distance that is not above 0, or none.
    """
    path = np.asarray(distances, np.float64)
    if not len(path) or path.min() <= 0:
        raise AudioError(f"distances {list(path)}: metres above 0, one or more")
    speech = np.asarray(samples, np.float32)
    response = impulse_response(rt60, 1.0, volume, generator)
    tail = response.copy()
    tail[0] = 0
    places = np.linspace(0, len(path) - 1, max(1, len(speech)))[: len(speech)]
    direct = np.exp(-np.interp(places, np.arange(len(path)), np.log(path)))  # (N,)
    heard = speech * direct.astype(np.float32) + convolve(speech, tail)
    dry, wet = active_power(speech), active_power(heard)
    return heard * np.float32(np.sqrt(dry / wet)) if wet > 0 else heard


def draw_walk(seconds: float, near: float, far: float, generator: np.random.Generator) -> np.ndarray:
    """Return distances (P,), evenly over so many seconds, of somebody who goes to and fro between ``near`` and ``far``.

    Metres; a place a second or so, no faster in between than people walk.
    """
    count = max(2, math.ceil(seconds / STRIDE_SECONDS) + 1)
    reach = min(WALKING * seconds / (count - 1), far - near)
    place = generator.uniform(near, far)
    path = [place]
    for step in generator.uniform(-reach, reach, count - 1):
        place = _reflected(place + step, near, far)
        path.append(place)
    return np.array(path)


def _reflected(place: float, low: float, high: float) -> float:
    if place < low:
        return 2 * low - place
    return 2 * high - place if place > high else place
