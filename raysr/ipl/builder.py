"""Builders: the teachers of a cycle, made from the model pool or brought from outside."""

from collections.abc import Sequence

from pydantic import Field

from raysr.config import Config as Options
from raysr.config import Spec
from raysr.ipl.context import CycleContext
from raysr.pool import Entry, Pool
from raysr.teachers.base import TEACHERS


class Latest:
    """The newest student."""

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        entry = pool.latest()
        return [_teacher(entry)] if entry else []


class Best:
    """The student with the lowest ``metric``."""

    class Config(Options):
        metric: str = "dev_wer"

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.metric = config.metric

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        entry = pool.best(self.metric) or pool.latest()
        return [_teacher(entry)] if entry else []


class Average:
    """One teacher: the mean of the newest students' weights."""

    class Config(Options):
        newest: int = Field(default=3, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.newest = config.newest

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        entries = pool.newest(self.newest)
        return [_teacher(*entries)] if entries else []


class Ensemble:
    """Several teachers: the newest students, newest first, each with a hypothesis of its own."""

    class Config(Options):
        newest: int = Field(default=2, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.newest = config.newest

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        return [_teacher(entry) for entry in pool.newest(self.newest)]


class External:
    """Recognisers from outside the pool, best first."""

    class Config(Options):
        """How long they label.

        Attributes:
            teachers: of one or two the first one's text becomes the label, of more the one they agree on most.
            join: from this cycle on the newest student labels too, as the last teacher.
            until: from this cycle on it labels instead of them. None is never, for both.
        """

        teachers: list[Spec] = Field(
            default_factory=lambda: [Spec(kind="moonshine"), Spec(kind="pocketsphinx")]
        )
        join: int | None = Field(default=None, ge=1)
        until: int | None = Field(default=None, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        def begun(cycle: int | None) -> bool:
            return cycle is not None and context.cycle >= cycle

        self.teachers = [] if begun(config.until) else [TEACHERS.check(spec) for spec in config.teachers]
        self.with_student = begun(config.join) or begun(config.until)
        self.latest = Latest(Options(), context)

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        return [*self.teachers, *(self.latest(pool) if self.with_student else ())]


def _teacher(*entries: Entry) -> Spec:
    return Spec(kind="pool_model", entries=[str(entry.path.absolute()) for entry in entries])
