"""How a training reads its features, as its configuration says it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from raysr.audio.fbank import FbankConfig
from raysr.config import Config
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.train.reading.disk import OnDisk
from raysr.train.reading.faults import FaultTolerant, Unreadable
from raysr.train.reading.memory import GB, InMemory
from raysr.train.reading.reader import FeatureReader
from raysr.train.reading.stream import Streamed


class ReadingConfig(Config):
    """Where a rank's features come from, the same bits in any case, and how far ahead they are read."""

    stream: bool = False
    """Compute features from the audio when they are wanted, instead of all of them before the training."""
    cache: Literal["none", "disk"] = "none"
    """``disk`` keeps what ``stream`` computes, so that it is computed once."""
    disk_gb: float = Field(default=100.0, gt=0)
    """The most that ``cache: disk`` keeps, for all ranks that share the folder together."""
    load_to_memory: bool = False
    """Keep features in memory from their first visit on."""
    memory_gb: float = Field(default=4.0, gt=0)
    """The most that ``load_to_memory`` may take in each rank."""
    batches_ahead: int = Field(default=4, ge=1)
    """Batches that are ready, or being made, while one is trained on."""
    threads: int = Field(default=2, ge=1)
    """Batches that are made at once in each rank."""

    @model_validator(mode="after")
    def _stream_to_disk(self) -> Self:
        if self.cache == "disk" and not self.stream:
            raise ValueError("cache: disk keeps what is streamed: set stream: true as well")
        return self


@contextmanager
def open_reader(
    config: ReadingConfig,
    features: FbankConfig,
    cache: str | Path,
    utterances: Sequence[Utterance],
    tell: Callable[[str, str], None],
    warn: Callable[[str], None],
) -> Iterator[FeatureReader]:
    """Yield the reader that ``config`` asks for; what waits to be written is written when the block ends.

    Args:
        config: of the reading.
        features: how they are made.
        cache: folder of the feature cache.
        utterances: all that will be asked for.
        tell: called with the id and the reason of each utterance that cannot be read while training.
        warn: called with the reason when the cache on disk can keep no more.

    Raises:
        CorpusError: the features take more memory than they may.
    """
    with ExitStack() as stack:
        reader: FeatureReader = Streamed(features) if config.stream else FeatureCache(cache, features)
        if config.cache == "disk":
            on_disk = OnDisk(reader, cache, utterances, round(config.disk_gb * GB), warn)
            reader = stack.enter_context(on_disk)
        if config.load_to_memory:
            reader = InMemory(reader, utterances, round(config.memory_gb * GB))
        if config.stream:
            reader = FaultTolerant(reader, Unreadable(len(utterances), tell))
        yield reader
