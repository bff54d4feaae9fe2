"""A teacher that fills a disk, once, as soon as something is labelled there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysr.config import Config as Options
from raysr.teachers.base import TeacherOutput


class Filling:
    """Fills the folder ``disk`` if there is a ``flag`` beside it."""

    class Config(Options):
        disk: str

    name, version = "filling", "1"

    def __init__(self, config: Config, context: Any) -> None:
        self.disk = Path(config.disk)

    def transcribe(self, waveforms: Sequence[Any]) -> list[TeacherOutput]:
        flag = self.disk.with_name("flag")
        if flag.exists() and list(self.disk.glob("run/cycles/000/predictions/[!.]*.parquet")):
            flag.unlink()
            fill(self.disk)
        return [TeacherOutput(text="one", normalised_score=-1.0) for _ in waveforms]


def fill(disk: Path) -> None:
    """Write until nothing more fits."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            return
