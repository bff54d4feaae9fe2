"""A run's configuration: one typed tree, read from YAML, in which every plug-in checks its own part."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from raysr.audio.fbank import FbankConfig
from raysr.audio.speech_segments import SegmentConfig
from raysr.cluster import ClusterConfig
from raysr.config import Config, Slot, Spec, load
from raysr.decode.recognise import DecodeConfig
from raysr.ipl import plugins
from raysr.ipl.lm import LmConfig
from raysr.model.config import ModelConfig
from raysr.text.tokeniser import TokeniserConfig

SLOTS: dict[str, Slot] = {
    "selector": plugins.SELECTORS,
    "builder": plugins.BUILDERS,
    "recogniser": plugins.RECOGNISERS,
    "filter": plugins.FILTERS,
    "batcher": plugins.BATCHERS,
    "initializer": plugins.INITIALIZERS,
    "trainer": plugins.TRAINERS,
}
Paths = str | list[str]


class RunPart(Config):
    """Where a run lives and how long it goes on.

    Attributes:
        dir: the run's folder; a relative one is in the working folder, in a Ray job in ``RAYSR_STORAGE``.
        cycles: turns of the loop.
        seed: of every draw.
    """

    dir: str
    cycles: int = Field(default=3, ge=1)
    seed: int = 1


class DataPart(Config):
    """The corpora, each a manifest or a list of them.

    Attributes:
        demo: take raysr's built-in corpus for whatever is not named here.
        labelled, unlabelled: to train on.
        dev: transcribed; decoder weights are chosen on it.
        tests: name → transcribed; every student is scored on them.
        truth: transcripts of the unlabelled audio, for scoring the pseudo-labels and nothing else.
    """

    demo: bool = False
    labelled: Paths | None = None
    unlabelled: Paths | None = None
    dev: Paths | None = None
    tests: dict[str, Paths] = Field(default_factory=dict)
    truth: str | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.demo or self.labelled or self.unlabelled):
            raise ValueError("name labelled or unlabelled audio, or set demo: true")
        return self


def _spec(kind: str, **options: Any) -> Spec:
    return Spec(kind=kind, **options)


def _default_filters() -> list[Spec]:
    return [_spec("empty"), _spec("loop"), _spec("character_rate"), _spec("score")]


class RunConfig(Config):
    """Everything that a run is configured by."""

    run: RunPart
    data: DataPart
    tokenizer: TokeniserConfig = TokeniserConfig()
    lm: LmConfig = LmConfig()
    segment: SegmentConfig = SegmentConfig()
    features: FbankConfig = FbankConfig()
    model: ModelConfig = ModelConfig()
    decode: DecodeConfig = DecodeConfig()
    selector: Spec = _spec("all")
    builder: Spec = _spec("latest")
    recogniser: Spec = _spec("ray")
    filter: list[Spec] = Field(default_factory=_default_filters)
    batcher: Spec = _spec("mixed")
    initializer: Spec = _spec("previous")
    trainer: Spec = _spec("ddp")
    cluster: ClusterConfig = Field(default_factory=lambda: ClusterConfig())

    @field_validator(*(set(SLOTS) - {"filter"}), mode="before")
    @classmethod
    def _default_kind(cls, value: Any, info: Any) -> Any:
        """Let a part be configured without repeating the default's name."""
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": cls.model_fields[info.field_name].default.kind, **value}
        return value

    @model_validator(mode="after")
    def _checked(self) -> Self:
        """Let every plug-in check its part, and fill in what it leaves to the default."""
        for name, slot in SLOTS.items():
            given = getattr(self, name)
            checked = [slot.check(s) for s in given] if isinstance(given, list) else slot.check(given)
            object.__setattr__(self, name, checked)
        if not (self.data.demo or self.data.labelled) and self.first_cycle:
            raise ValueError(
                "without labelled audio nothing can be trained first: set selector.first_cycle: 0 "
                "and builder: {kind: external}"
            )
        return self

    @property
    def first_cycle(self) -> int:
        """The first cycle that labels."""
        return int(self.selector.options.get("first_cycle", 0))


def read_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Read a run's configuration from YAML, with ``dotted.key=value`` overrides."""
    return load(RunConfig, path, overrides)
