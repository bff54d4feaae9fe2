"""Drawing how speech is made harder: shares and ranges in, a recipe of :mod:`raysr.audio.augment` out.

    {"share": 0.5,
     "speed": {"range": [0.9, 1.1]}, "room": {"share": 0.3, "rt60": [0.2, 0.7], "distance": [0.3, 3]},
     "noise": {"share": 0.4, "snr_db": [5, 25], "files": "my/noise"}, "music": {"share": 0.4, "snr_db": [0, 20]},
     "codec": {"share": 0.1, "kinds": ["opus", "mulaw"]}}

Each part is drawn by itself, from a stream of its own: adding one leaves the others as they were.
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat, ValidationError, model_validator

from raysr.audio.augment import Augmentation, Colour, Factor, as_values
from raysr.audio.channel import BIT_RATES, Codec, Concealment, check_bit_rate, check_line
from raysr.audio.sounds import audio_files
from raysr.config import Config

Choice = TypeVar("Choice")
_OWN = 1
"""What a recipe does draws from streams of (seed, part); how it is drawn must not be the same numbers."""


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] <= bounds[1]:
        raise ValueError("should be a lowest and a highest value")
    return bounds


Range = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ordered)]
"""Lowest and highest, drawn uniformly."""


class Draws(Protocol):
    """What numbers are drawn from."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


class Drawn(Config):
    """A part of a recipe whose values are drawn."""

    share: float = Field(1.0, ge=0, le=1)
    """Of the visits at which anything is done to an utterance."""

    @abstractmethod
    def drawn(self, draws: Draws) -> Any:
        """Return a value of the part, as :class:`raysr.audio.augment.Augmentation` takes it."""


class DrawnFactor(Drawn):
    """How much faster somebody speaks."""

    range: Annotated[tuple[Factor, Factor], AfterValidator(_ordered)] = (0.9, 1.1)

    def drawn(self, draws: Draws) -> float:
        return round(_between(self.range, draws), 2)


class DrawnRoom(Drawn):
    """A speaker who stands in a room: reverberation time (seconds), distance (metres), volume (m³)."""

    rt60: Range = (0.2, 0.7)
    distance: Range = (0.3, 3.0)
    volume: Range = (30.0, 200.0)

    def drawn(self, draws: Draws) -> dict[str, float]:
        return {name: _between(getattr(self, name), draws) for name in ("rt60", "distance", "volume")}


class DrawnWalk(Drawn):
    """A speaker who walks about in a room, between two distances (metres)."""

    near: Range = (0.3, 1.0)
    far: Range = (1.5, 4.0)
    rt60: Range = (0.2, 0.7)
    volume: Range = (30.0, 200.0)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.near[1] > self.far[0]:
            raise ValueError(f"near (up to {self.near[1]:g} m) reaches beyond far (from {self.far[0]:g} m)")
        return self

    def drawn(self, draws: Draws) -> dict[str, float]:
        return {name: _between(getattr(self, name), draws) for name in ("near", "far", "rt60", "volume")}


class DrawnSound(Drawn):
    """Something behind the speech: generated, or an excerpt of the files of a folder."""

    snr_db: Range = (0.0, 20.0)
    files: str | None = None

    def drawn(self, draws: Draws) -> dict[str, Any]:
        return {"snr_db": _between(self.snr_db, draws), "files": self.files}


class DrawnNoise(DrawnSound):
    """Noise; generated in one of the colours unless there are files."""

    colours: tuple[Colour, ...] = Field(("white", "pink", "brown"), min_length=1)

    def drawn(self, draws: Draws) -> dict[str, Any]:
        colour = _one(self.colours, draws)
        return {**super().drawn(draws), "colour": colour if self.files is None else None}


class DrawnBabble(DrawnSound):
    """Other people's talk."""

    files: str
    talkers: Range = (3, 8)

    def drawn(self, draws: Draws) -> dict[str, Any]:
        return {**super().drawn(draws), "talkers": round(_between(self.talkers, draws))}


class DrawnClip(Drawn):
    """The share of samples that are cut off."""

    samples: Range = (0.0, 0.05)

    def drawn(self, draws: Draws) -> float:
        return _between(self.samples, draws)


class DrawnBand(Drawn):
    """The frequencies that come through, from one edge to the other, in Hz."""

    low: Range = (0.0, 300.0)
    high: Range = (2500.0, 8000.0)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.low[1] >= self.high[0]:
            raise ValueError(f"low (up to {self.low[1]:g} Hz) reaches high (from {self.high[0]:g} Hz)")
        return self

    def drawn(self, draws: Draws) -> dict[str, float]:
        return {"low": _between(self.low, draws), "high": _between(self.high, draws)}


class DrawnCodec(Drawn):
    """One of the codecs, and a bit rate in bit/s for those that have several."""

    kinds: tuple[Codec, ...] = Field(("alaw", "mulaw", "gsm", "opus", "mp3"), min_length=1)
    bit_rate: Range = (12_000, 64_000)

    @model_validator(mode="after")
    def _has_them(self) -> Self:
        for kind in set(self.kinds) & BIT_RATES.keys():
            for rate in self.bit_rate:
                as_values(self, partial(check_bit_rate, kind, round(rate)))
        return self

    def drawn(self, draws: Draws) -> dict[str, Any]:
        kind, rate = _one(self.kinds, draws), round(_between(self.bit_rate, draws))
        return {"kind": kind, "bit_rate": rate if kind in BIT_RATES else None}


class DrawnPackets(Drawn):
    """A line that loses a share of its packets, so many in a row."""

    lost: Range = (0.01, 0.1)
    burst: Range = (1.0, 3.0)
    concealment: Concealment = "repeat"

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        return as_values(self, lambda: check_line(self.lost[1], self.burst[0]))

    def drawn(self, draws: Draws) -> dict[str, Any]:
        share, burst = _between(self.lost, draws), _between(self.burst, draws)
        return {"share": share, "burst": burst, "concealment": self.concealment}


class DrawnGain(Drawn):
    """Louder or softer, in dB."""

    range: Range = (-12.0, 0.0)

    def drawn(self, draws: Draws) -> float:
        return _between(self.range, draws)


class WaveformConfig(Config):
    """How often an utterance's audio is made harder anew, and how; parts that are left out never are."""

    share: float = Field(1.0, ge=0, le=1)
    """The share of visits at which anything is done. The others take the features that are kept."""
    speed: DrawnFactor | None = None
    tempo: DrawnFactor | None = None
    room: DrawnRoom | None = None
    walk: DrawnWalk | None = None
    """Where both are drawn the speaker walks."""
    noise: DrawnNoise | None = None
    music: DrawnSound | None = None
    babble: DrawnBabble | None = None
    clip: DrawnClip | None = None
    band: DrawnBand | None = None
    codec: DrawnCodec | None = None
    packets: DrawnPackets | None = None
    gain_db: DrawnGain | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name, part in self.parts.items():
            for end in (_Always(0.0), _Always(1.0)):
                try:
                    Augmentation.model_validate({name: part.drawn(end)})
                except ValidationError as error:
                    first = error.errors()[0]
                    raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        return self

    @property
    def parts(self) -> dict[str, Drawn]:
        """Those that are there, by name."""
        found = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def stretch(self) -> float:
        """How many times as long an utterance may become."""
        slowest = [part.range[0] for part in (self.speed, self.tempo) if part and part.share and self.share]
        return 1 / float(np.prod([min(1.0, factor) for factor in slowest]))

    def draw(self, seed: int) -> Augmentation | None:
        """Return what is done to an utterance at the visit that ``seed`` stands for; None: nothing."""
        if not self.parts or np.random.default_rng([seed, 0, _OWN]).random() >= self.share:
            return None
        drawn: dict[str, Any] = {}
        for number, name in enumerate(PARTS, 1):
            draws = np.random.default_rng([seed, number, _OWN])
            part = getattr(self, name)
            if part is not None and draws.random() < part.share:
                drawn[name] = part.drawn(draws)
        if "walk" in drawn:
            drawn.pop("room", None)
        return Augmentation.model_validate({"seed": seed, **drawn}) if drawn else None

    def located(self, folder: Path) -> Self:
        """Return the same with the paths of its sounds absolute, those that are relative being in ``folder``."""
        sounds = {
            name: part for name, part in self.parts.items() if isinstance(part, DrawnSound) and part.files
        }
        return self.model_copy(
            update={n: p.model_copy(update={"files": str(folder / str(p.files))}) for n, p in sounds.items()}
        )

    def check_files(self) -> None:
        """Raise :class:`raysr.errors.AudioError` for a folder that is not there or holds no audio."""
        for part in self.parts.values():
            if isinstance(part, DrawnSound) and part.files and not Path(part.files).is_file():
                audio_files(part.files)


PARTS = tuple(name for name in WaveformConfig.model_fields if name != "share")


class _Always:
    """Draws one number again and again."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self) -> float:
        return self._number


def _between(bounds: tuple[float, float], draws: Draws) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * draws.random()


def _one(choices: Sequence[Choice], draws: Draws) -> Choice:
    return choices[min(int(draws.random() * len(choices)), len(choices) - 1)]
