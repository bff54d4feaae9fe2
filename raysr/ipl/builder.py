"""Builders: the teachers of a cycle, made from the model pool or brought from outside."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from raysr.config import Config as Options
from raysr.config import Spec
from raysr.ipl import plugins
from raysr.ipl.context import CycleContext
from raysr.pool import Entry, Pool, alike
from raysr.teachers.base import TEACHERS


class Latest:
    """The newest student."""

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        entry = pool.latest()
        return [_teacher([entry])] if entry else []


class Best:
    """The student with the lowest ``metric``."""

    class Config(Options):
        metric: str = "dev_wer"

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.metric = config.metric

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        entry = pool.best(self.metric) or pool.latest()
        return [_teacher([entry])] if entry else []


class Students(Options):
    """Which students: the ``newest`` n, or the ``best`` n by the lowest ``metric``."""

    newest: int | None = Field(default=None, ge=1)
    best: int | None = Field(default=None, ge=1)
    metric: str = "dev_wer"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.newest is not None and self.best is not None:
            raise ValueError("newest or best: give one of them")
        return self

    def pick(self, pool: Pool, default: int) -> list[Entry]:
        """Return the students, the newest or the best first; the newest where none has the metric."""
        if self.best is not None:
            return pool.best_of(self.best, self.metric) or pool.newest(self.best)
        return pool.newest(self.newest or default)


class Average:
    """One teacher: the mean of some students' weights, of the newest three unless the options say otherwise.

    Where the model has grown in between, those like the first of them.
    """

    Config = Students

    def __init__(self, config: Students, context: CycleContext) -> None:
        self.config = config

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        entries = alike(self.config.pick(pool, default=3))
        return [_teacher(entries)] if entries else []


class Ema:
    """One teacher: an exponential moving average over the students' weights, from the oldest to the newest.

    The momentum teacher of MPL (arXiv:2106.08922) and Kaizen (arXiv:2106.07759), a step a cycle: it is
    ``decay`` · (that of the cycle before) + (1 - ``decay``) · (the newest student), and begins as the oldest.
    """

    class Config(Options):
        """How far it looks back.

        Attributes:
            decay: of what was before; 0 is the newest student alone.
            newest: students that it goes over at most; None is all of the run that have the newest one's shape.
        """

        decay: float = Field(default=0.5, ge=0, lt=1)
        newest: int | None = Field(default=None, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        entries = alike(pool.newest(self.config.newest))
        return [_teacher(entries, ema_shares(len(entries), self.config.decay))] if entries else []


class Ensemble:
    """Several teachers: some students, of which each labels by itself; the newest two by default."""

    Config = Students

    def __init__(self, config: Students, context: CycleContext) -> None:
        self.config = config

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        return [_teacher([entry]) for entry in self.config.pick(pool, default=2)]


class External:
    """Recognisers from outside the pool, best first."""

    class Config(Options):
        """How long they label.

        Attributes:
            teachers: how their texts become a label is ``recogniser.vote``.
            student: the builder that makes of the pool what joins them or takes over.
            join: from this cycle on the student labels too, after them.
            until: from this cycle on it labels instead of them. None is never, for both.
        """

        teachers: list[Spec] = Field(
            default_factory=lambda: [Spec(kind="moonshine"), Spec(kind="pocketsphinx")],
            min_length=1,
            validate_default=True,
        )
        student: Spec = Field(default=Spec(kind="latest"), validate_default=True)
        join: int | None = Field(default=None, ge=1)
        until: int | None = Field(default=None, ge=1)

        @field_validator("student", mode="before")
        @classmethod
        def _named(cls, student: Any) -> Any:
            return {"kind": student} if isinstance(student, str) else student

        @field_validator("student")
        @classmethod
        def _from_the_pool(cls, student: Spec) -> Spec:
            if student.kind == "external":
                raise ValueError("kind: a builder that makes teachers of the pool")
            return plugins.BUILDERS.check(student)

        @field_validator("teachers")
        @classmethod
        def _known(cls, teachers: list[Spec]) -> list[Spec]:
            return [TEACHERS.check(teacher) for teacher in teachers]

    def __init__(self, config: Config, context: CycleContext) -> None:
        def begun(cycle: int | None) -> bool:
            return cycle is not None and context.cycle >= cycle

        self.teachers = [] if begun(config.until) else config.teachers
        self.with_student = begun(config.join) or begun(config.until)
        self.student: plugins.Builder = plugins.BUILDERS.build(config.student, context)

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        return [*self.teachers, *(self.student(pool) if self.with_student else ())]


def ema_shares(count: int, decay: float) -> list[float]:
    """Return what each of ``count`` checkpoints counts for in their moving average, newest first."""
    shares = [(1 - decay) * decay**age for age in range(count - 1)]
    return [*shares, decay ** (count - 1)]


def _teacher(entries: Sequence[Entry], shares: Sequence[float] | None = None) -> Spec:
    """Describe a teacher in full, so that what labelled can be read from the run's folder."""
    options: dict[str, Any] = {"entries": [str(entry.path.absolute()) for entry in entries]}
    options |= {"shares": list(shares)} if shares is not None else {}
    return Spec(kind="pool_model", **options, decode=entries[0].config().decode.dump())
