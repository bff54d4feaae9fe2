"""Initializers: the weights that a student starts from."""

from pydantic import Field
from safetensors.torch import save_file

from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.ipl.context import CycleContext
from raysr.ipl.folder import place
from raysr.ipl.handover import Start
from raysr.pool import Entry, Pool, alike, average


class Scratch:
    """Freshly drawn, the same in every cycle."""

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, pool: Pool) -> Start:
        return Start()


class Previous:
    """The newest student's; while there is none those of ``first``, or freshly drawn."""

    class Config(Options):
        """``first``: the folder of an entry of any pool, with a model like the run's; its tokens may differ."""

        first: str | None = None

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.first: Entry | None = None
        if config.first and not context.pool.entries():
            # looked up now, before anything is labelled for a student that cannot start
            self.first = _of_another_pool(config.first, context)

    def __call__(self, pool: Pool) -> Start:
        entry = pool.latest()
        if entry:
            return Start(entry.weights, (entry.name,))
        return (
            Start(self.first.weights, (str(self.first.path),), self.first.tokeniser)
            if self.first
            else Start()
        )


class Average:
    """The mean of the newest students' that have the newest one's shape; freshly drawn while there is none."""

    class Config(Options):
        newest: int = Field(default=3, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.newest = config.newest
        self.path = context.folder / "average.safetensors"

    def __call__(self, pool: Pool) -> Start:
        entries = alike(pool.newest(self.newest))
        if not entries:
            return Start()
        save_file(average(entries), self.path)
        return Start(self.path, tuple(entry.name for entry in entries))


def _of_another_pool(folder: str, context: CycleContext) -> Entry:
    """Return the entry in ``folder``; raise :class:`ConfigError` if it hears other features than the run."""
    path = place(folder, "initializer.first")
    entry = Pool(path.parent).get(path.name).verify()
    if entry.config().fbank != context.features:
        raise ConfigError(
            f"initializer.first: {path} hears other features: give `features` its fbank settings"
        )
    return entry
