"""Initializers: the weights that a student starts from."""

from pydantic import Field
from safetensors.torch import save_file

from raysr.config import Config as Options
from raysr.ipl.context import CycleContext
from raysr.ipl.handover import Start
from raysr.pool import Pool, average


class Scratch:
    """Freshly drawn, the same in every cycle."""

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, pool: Pool) -> Start:
        return Start()


class Previous:
    """The newest student's; freshly drawn while there is none."""

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, pool: Pool) -> Start:
        entry = pool.latest()
        return Start(entry.weights, (entry.name,)) if entry else Start()


class Average:
    """The mean of the newest students'; freshly drawn while there is none."""

    class Config(Options):
        newest: int = Field(default=3, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.newest = config.newest
        self.path = context.folder / "average.safetensors"

    def __call__(self, pool: Pool) -> Start:
        entries = pool.newest(self.newest)
        if not entries:
            return Start()
        save_file(average(entries), self.path)
        return Start(self.path, tuple(entry.name for entry in entries))
