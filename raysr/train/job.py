"""What one training takes: a plain, typed description that any process can pick up and carry out."""

from typing import Literal

from pydantic import Field

from raysr.audio.background import BackgroundConfig
from raysr.audio.fbank import FbankConfig
from raysr.audio.specaugment import SpecAugmentConfig
from raysr.audio.warp import WarpConfig
from raysr.config import Config
from raysr.model.config import ModelConfig
from raysr.train.distillation import DistillationConfig


class OptimiserConfig(Config):
    """AdamW; weight decay is applied to matrices alone, never to biases, norms or embeddings of one dimension."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(5.0, gt=0, description="largest gradient norm over all parameters")


class ScheduleConfig(Config):
    """Linear warm-up from zero, then `kind` down to `final_share` of the peak learning rate."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(200, ge=0)
    final_share: float = Field(0.0, ge=0, le=1)


class CommConfig(Config):
    """How gradients cross the network: `none` (plain all-reduce) or `fp16` (half the bytes)."""

    hook: Literal["none", "fp16"] = "none"
    bucket_mb: float = Field(25.0, gt=0)


class AugmentConfig(Config):
    """What is done to cached features at every visit, always after the cache."""

    background: BackgroundConfig = BackgroundConfig()
    spec: SpecAugmentConfig = SpecAugmentConfig()
    warp: WarpConfig = WarpConfig()


class TrainConfig(Config):
    """The part of a training that a user chooses.

    A *step* is one optimiser update over a **global** batch of `batch_seconds` of audio, whatever the number of
    workers: the batch is split over the ranks, and the gradient is that of the mean loss over the whole batch.
    """

    steps: int = Field(2000, gt=0)
    batch_seconds: float = Field(15.0, gt=0)
    max_padding: float = Field(0.25, ge=0, lt=1, description="largest part of a global batch that is padding")
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    comm: CommConfig = CommConfig()
    augment: AugmentConfig = AugmentConfig()
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints a restart resumes from")
    log_every: int = Field(50, gt=0)


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
    the Initializer's business. `distributions` are the folders that word-level distillation reads.
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
    seed: int = 0


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
