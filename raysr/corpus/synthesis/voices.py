"""Synthetic voices, and a cast of any size drawn from those that an engine has.

Speakers of the engines with few voices are varied by *warp*: playing faster by that factor raises pitch and
formants as a shorter vocal tract would, and the engine speaks slower to make up for the tempo.
"""

import random
from dataclasses import dataclass

ACCENTS = "en-us en-us-nyc en en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-029"
VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Alicia Andrea Annie adam anika aunty belinda david ed "
    "Gene Jacky john klatt3 Lee linda max Michael Mike paul robert shelby steph victor"
)
FLITE = ("slt", "slt", "rms", "awb", "kal16")  # one of the five is a woman's, so it comes twice


@dataclass(frozen=True)
class Voice:
    """A voice.

    Attributes:
        engine: ``espeak``, ``flite`` or ``festival``.
        name: what the engine calls it.
        rate: words a minute it speaks on average.
        pitch: espeak's pitch setting, 0 … 99.
        warp: factor on pitch and formants.
    """

    engine: str
    name: str
    rate: int = 165
    pitch: int = 50
    warp: float = 1.0

    @property
    def speaker(self) -> str:
        warp = "" if self.warp == 1 else f"-{round(100 * self.warp)}"
        return f"{self.engine}-{self.name.replace('+', '-')}{warp}".lower()


def draw(engine: str, draws: random.Random) -> Voice:
    """Return a voice of ``espeak`` or ``flite``, its pace and pitch or vocal tract drawn too."""
    rate = draws.randint(120, 180)
    if engine == "espeak":
        name = f"{draws.choice(ACCENTS.split())}+{draws.choice(VARIANTS.split())}"
        return Voice(engine, name, rate, pitch=draws.randint(35, 65))
    return Voice(engine, draws.choice(FLITE), rate, warp=round(draws.uniform(0.95, 1.15), 2))
