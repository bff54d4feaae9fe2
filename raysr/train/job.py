"""What one training takes: a plain, typed description that any process can pick up and carry out."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysr.audio.background import BackgroundConfig
from raysr.audio.draws import WaveformConfig
from raysr.audio.fbank import FbankConfig
from raysr.audio.specaugment import SpecAugmentConfig
from raysr.audio.warp import WarpConfig
from raysr.config import Config, Spec
from raysr.model.config import ModelConfig
from raysr.train.distillation import DistillationConfig
from raysr.train.exchange.base import EXCHANGES
from raysr.train.network.settings import NetworkConfig
from raysr.train.reading.options import ReadingConfig


class OptimiserConfig(Config):
    """AdamW; weight decay is applied to matrices alone, never to biases, norms or embeddings of one dimension."""

    kind: Literal["adamw", "zero", "onebit_adam"] = "adamw"
    """``zero``: each rank keeps its share of the optimiser's states (ZeRO, stage 1), for half as much traffic again.
    ``onebit_adam``: after ``freeze_step`` steps ranks send the signs of momenta, a thirtieth of gradients' bytes.
    """
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(5.0, gt=0, description="largest gradient norm over all parameters")
    freeze_step: int = Field(200, ge=1)
    """Steps of Adam before ``onebit_adam`` freezes variances; those of warm-up should be among them."""


class ScheduleConfig(Config):
    """Linear warm-up from zero, then `kind` down to `final_share` of the peak learning rate."""

    kind: Literal["cosine", "linear", "constant", "noam"] = "cosine"
    """``noam``: by the inverse square root of the step, however many are to come, and never below the final share."""
    warmup_steps: int = Field(200, ge=0)
    final_share: float = Field(0.0, ge=0, le=1)


class AugmentConfig(Config):
    """What is done to an utterance at every visit: to its audio, or to the features that are kept, after the cache.

    ``waveform`` reads the audio again and takes a core's time for it; the others cost next to nothing.
    """

    waveform: WaveformConfig = WaveformConfig()
    background: BackgroundConfig = BackgroundConfig()
    spec: SpecAugmentConfig = SpecAugmentConfig()
    warp: WarpConfig = WarpConfig()


class TrainConfig(Config):
    """The part of a training that a user chooses.

    A *step* is one optimiser update over a **global** batch of `batch_seconds` of audio, whatever the number of
    workers: the batch is split over the ranks, and the gradient is that of the mean loss over the whole batch. The
    learning rate belongs to that batch, and stays as it is when workers come or go.
    """

    steps: int = Field(2000, gt=0)
    batch_seconds: Annotated[float, Field(gt=0)] | Literal["auto"] = 15.0
    """Audio of a global batch, padding included; `auto`: the most that fits into memory, found before the training."""
    micro_batch_seconds: float | None = Field(None, gt=0)
    """A rank's part of a batch goes through the model in pieces of no more audio; None: in one."""
    max_padding: float = Field(0.25, ge=0, lt=1, description="largest part of a global batch that is padding")
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    emulate_precision: bool = False
    """Take a precision that the device has no hardware for, to try it out: ten times slower than fp32 and more."""
    comm: Spec = Field(default_factory=lambda: Spec(kind="none"))
    """How the replicas stay one: see :mod:`raysr.train.exchange`."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """The student is the exponential moving average of the weights, with this decay a step; of rank 0's where replicas
    train apart."""
    augment: AugmentConfig = AugmentConfig()
    reading: ReadingConfig = ReadingConfig()
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints a restart resumes from")
    keep_newest: int = Field(2, ge=1, description="checkpoints kept whatever they are worth")
    keep_best: int = Field(0, ge=0, description="checkpoints of the lowest loss on dev kept beside them")
    final: Literal["last", "best"] = "last"
    """Which checkpoint is the student: the last one, or that of the lowest loss on dev."""
    log_every: int = Field(50, gt=0)
    keep_bad_batches: int = Field(0, ge=0)
    """How many of the batches whose gradients were not finite each rank writes down, under `bad-batches`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        EXCHANGES.check(self.comm)
        if self.final == "best" and not self.keep_best:
            raise ValueError("final: best needs the best checkpoints: set keep_best to 1 or more")
        if self.final == "best" and self.comm.kind in ("local_sgd", "diloco"):
            raise ValueError(
                f"final: best: between the meetings of comm.kind {self.comm.kind} the loss on dev is of no one model: "
                "set it to last"
            )
        if self.optimiser.kind == "onebit_adam" and self.comm.kind not in ("none", "fp16", "bf16"):
            raise ValueError(
                f"optimiser onebit_adam compresses what it sends: comm.kind {self.comm.kind} has nothing left to do; "
                "set it to none, fp16 or bf16, by which the steps before freeze_step go"
            )
        if self.optimiser.kind == "zero" and self.comm.kind in ("local_sgd", "diloco"):
            raise ValueError(
                f"optimiser zero has one state for all ranks, and comm.kind {self.comm.kind} one for each"
            )
        if self.batch_seconds == "auto" and self.micro_batch_seconds is not None:
            raise ValueError("batch_seconds: auto finds the pieces, too: leave out micro_batch_seconds")
        return self


class SourceConfig(Config):
    """Utterances of one kind: a JSONL manifest whose texts are trained on, and their share of a batch's seconds.

    An utterance's `loss_weight`, in its manifest, is what its loss counts beside the others'; 1 where there is none.
    """

    name: str
    manifest: str
    share: float = Field(1.0, gt=0)


class TrainJob(Config):
    """Everything that :func:`raysr.train.loop.train` needs; paths are absolute, so that any worker can open them.

    `init` is a safetensors file with a complete state of the student (weights and CMVN): where it comes from is
    the Initializer's business. `distributions` are the folders that word-level distillation reads. `dev` is a
    manifest with texts whose loss is computed at every checkpoint. `timeout_s` is how long ranks wait for each other.
    """

    out: str
    init: str
    tokeniser: str
    cache: str
    sources: list[SourceConfig] = Field(min_length=1)
    distributions: list[str] = Field(default_factory=list)
    distillation: DistillationConfig = DistillationConfig()
    features: FbankConfig = FbankConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    dev: str | None = None
    network: NetworkConfig = NetworkConfig()
    timeout_s: float = Field(120.0, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _best_on_dev(self) -> Self:
        if self.train.keep_best and self.dev is None:
            raise ValueError(
                "keep_best asks which checkpoints are the best: give utterances to tell it, as dev"
            )
        return self


class Scaling(Config):
    """The workers of a training.

    `min` below `max` makes it elastic: Ray Train goes on with what is there, from the last checkpoint.
    """

    min: int = Field(2, ge=1)
    max: int = Field(2, ge=1)
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    max_failures: int = Field(3, ge=0, description="worker failures a training survives")
    timeout_s: int = Field(120, gt=0, description="how long a collective may wait for a lost rank")
