"""What a plug-in may know of the run and the cycle that it works in."""

from dataclasses import dataclass, field
from pathlib import Path

from raysr.audio.fbank import FbankConfig
from raysr.corpus.manifest import Manifest, open_manifest
from raysr.corpus.recordings import Digests
from raysr.corpus.utterance import Utterance
from raysr.decode.recognise import DecodeConfig
from raysr.ipl.canary import Judged, canary_utterances, read_canary
from raysr.ipl.earlier import Earlier
from raysr.ipl.materials import Materials
from raysr.ipl.progress import Progress
from raysr.ipl.stop import StopConfig
from raysr.ipl.voting import NEAREST, Vote
from raysr.model.config import ModelConfig
from raysr.pool import Pool
from raysr.train.distillation import DistillationConfig


def student_name(cycle: int) -> str:
    """Return the name that a cycle's student has in the pool."""
    return f"cycle-{cycle:03d}"


@dataclass(frozen=True)
class CycleContext:
    """The second argument of every plug-in: ``Plugin(config, context)``, built anew for every cycle.

    Attributes:
        cycle: counted from 0.
        first_cycle: the first cycle that labels.
        folder: of the cycle; a plug-in may write files of its own there.
        seed: of the run; mix the cycle in where draws should differ from cycle to cycle.
        pool: the model pool.
        cache: folder of the run's feature cache.
        materials: what is made once and then kept: tokeniser, a fresh student, language model.
        features, model, decode: as configured for the run.
        progress: where to tell the user how it goes.
        dev: transcribed utterances that decoder weights are chosen on.
        labelled: what is trained on with its own transcripts, when there is any.
        canary_size: how many utterances of dev the teachers label too, at most.
        vote: how several teachers' texts become one label.
        stop: when the run is over; a trainer marks a student that has collapsed (see :class:`raysr.pool.Entry`).
        distillation: what a student learns of its teachers beside labels.
    """

    cycle: int
    first_cycle: int
    folder: Path
    seed: int
    pool: Pool
    cache: Path
    materials: Materials
    features: FbankConfig
    model: ModelConfig
    decode: DecodeConfig
    progress: Progress
    dev: Manifest | tuple[()] = ()
    labelled: Manifest | None = None
    canary_size: int = 0
    vote: Vote = NEAREST
    stop: StopConfig = field(default_factory=StopConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    @property
    def labelling_round(self) -> int:
        """How many cycles have labelled before this one."""
        return max(0, self.cycle - self.first_cycle)

    @property
    def canary(self) -> list[Judged]:
        """What this cycle's teachers said of the canary, with its references; empty until they have labelled."""
        return read_canary(self.folder / "canary", self.vote)

    @property
    def earlier(self) -> Earlier:
        """What the cycles before this one have left."""
        return Earlier(self.folder.parent, self.cycle)

    @property
    def digests(self) -> Digests:
        """Hashes of audio, known to all cycles."""
        return Digests(self.cache / "audio-hashes.jsonl")

    def utterances(self) -> dict[str, Utterance]:
        """Return what is selected in this cycle, and its canary, by id."""
        path = self.folder / "selection.jsonl"
        selected = open_manifest(path) if path.exists() else ()
        return {u.id: u for u in selected} | canary_utterances(self.folder / "canary")

    @property
    def student(self) -> str:
        """The name that this cycle's student has in the pool."""
        return student_name(self.cycle)
