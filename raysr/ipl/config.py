"""A run's configuration: one typed tree, read from YAML, in which every plug-in checks its own part."""

from functools import reduce
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, field_validator, model_validator

from raysr.audio.fbank import FbankConfig
from raysr.audio.speech_segments import SegmentConfig
from raysr.cluster import ClusterConfig
from raysr.config import Config, Slot, Spec, load, merged
from raysr.decode.recognise import DecodeConfig
from raysr.ipl import plugins
from raysr.ipl.lm import LmConfig
from raysr.ipl.stop import StopConfig
from raysr.ipl.tracking.trackers import Kind
from raysr.ipl.voting import Vote
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import TokeniserConfig
from raysr.train.distillation import DistillationConfig

SLOTS: dict[str, Slot] = {
    "selector": plugins.SELECTORS,
    "builder": plugins.BUILDERS,
    "recogniser": plugins.RECOGNISERS,
    "filter": plugins.FILTERS,
    "batcher": plugins.BATCHERS,
    "initializer": plugins.INITIALIZERS,
    "trainer": plugins.TRAINERS,
}
MAY_CHANGE_BY_CYCLE = {*SLOTS, "model", "decode", "distillation"} - {"selector"}
Paths = str | list[str]


class RunPart(Config):
    """Where a run lives and how long it goes on.

    Attributes:
        dir: the run's folder; a relative one is in the working folder, in a Ray job in ``RAYSR_STORAGE``.
        store: an object store, such as ``s3://bucket/runs/mine``, that keeps the folder as well: a run whose folder
            is lost is fetched from there.
        cycles: turns of the loop.
        seed: of every draw.
        tracking: where the run's numbers go as well: ``tensorboard``, ``ray`` (its dashboard and Prometheus),
            ``mlflow``, ``wandb``.
        canary: transcribed utterances of dev that the teachers of every cycle label too, at most; filters and the
            report see by them what a label is worth. 0 does without.
    """

    dir: str
    store: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9+.-]*://.+")
    cycles: int = Field(default=3, ge=1)
    seed: int = 1
    canary: int = Field(default=200, ge=0)
    tracking: list[Kind] = Field(default=["tensorboard", "ray"])


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
    """Everything that a run is configured by.

    ``from_cycle`` changes parts of it, from a cycle on: ``{2: {trainer: {augment: {spec: {time_masks: 2}}}}}``.
    """

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
    distillation: DistillationConfig = DistillationConfig()
    stop: StopConfig = StopConfig()
    from_cycle: dict[int, dict[str, Any]] = Field(default_factory=dict)
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
        if self.distillation.word and self.model.ctc_weight == 1:
            raise ValueError(
                "distillation.word: model.ctc_weight 1 leaves no attention decoder to distil into word by word"
            )
        if self.distillation.sequence and not (self.data.demo or self.data.labelled):
            raise ValueError("distillation.sequence: it is for labelled audio, and data.labelled names none")
        for cycle in sorted(self.from_cycle):
            self._check_changes(cycle)
        return self

    def _check_changes(self, cycle: int) -> None:
        if fixed := sorted(self.from_cycle[cycle].keys() - MAY_CHANGE_BY_CYCLE):
            known = ", ".join(sorted(MAY_CHANGE_BY_CYCLE))
            raise ValueError(f"from_cycle.{cycle}.{fixed[0]}: only these may change from a cycle on: {known}")
        now = self.at(cycle)
        starts_from_before = now.initializer.kind in {"previous", "average"}
        if cycle > 0 and starts_from_before and not _like(now.model, self.at(cycle - 1).model):
            raise ValueError(
                f"from_cycle.{cycle}.model: its weights have other shapes or heads than the student's that initializer "
                f"'{now.initializer.kind}' starts from; set from_cycle.{cycle}.initializer: {{kind: scratch}}"
            )

    def at(self, cycle: int) -> "RunConfig":
        """Return the configuration of a cycle."""
        changes = [self.from_cycle[number] for number in sorted(self.from_cycle) if number <= cycle]
        if not changes:
            return self
        return RunConfig.parse(
            reduce(merged, changes, self.dump() | {"from_cycle": {}}), f"from_cycle, as of cycle {cycle}"
        )

    @property
    def first_cycle(self) -> int:
        """The first cycle that labels."""
        return int(self.selector.options.get("first_cycle", 0))

    @property
    def relabel(self) -> float:
        """The share of what is labelled already that gets fresh labels."""
        return float(self.selector.options.get("relabel", 1.0))

    @property
    def vote(self) -> Vote:
        """How several teachers' texts become one label; the default for a recogniser that does not say."""
        given = self.recogniser.options.get("vote")
        return Vote.parse({"kind": given} if isinstance(given, str) else given, "recogniser.vote")


def read_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Read a run's configuration from YAML, with ``dotted.key=value`` overrides."""
    return load(RunConfig, path, overrides)


def _like(model: ModelConfig, other: ModelConfig) -> bool:
    """Return whether one model can go on with the other's weights."""
    return model.structure == other.structure and _shapes(model) == _shapes(other)


def _shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's weights, without making them."""
    with torch.device("meta"):
        weights = AsrModel(model, vocab_size=8).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
