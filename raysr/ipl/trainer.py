"""The default trainer: data parallel through Ray Train, decoder weights chosen on dev, then the pool."""

import os
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field
from safetensors.torch import load_file

from raysr.corpus.disk import append_row, replacing
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.ipl.context import CycleContext
from raysr.ipl.distributions import distributions_folder
from raysr.ipl.handover import MANIFESTS, Batches, Start
from raysr.ipl.mixing import TrainingSource, training_sources
from raysr.ipl.stop import collapsed
from raysr.ipl.tuning import TuningConfig, tune
from raysr.model.model import AsrModel
from raysr.pool import Entry, EntryConfig
from raysr.text.tokeniser import Tokeniser
from raysr.train.job import Scaling, SourceConfig, TrainConfig, TrainJob
from raysr.train.local import fit_local
from raysr.train.network.settings import NetworkConfig
from raysr.train.reading.reader import FeatureReader
from raysr.train.reading.stream import Streamed
from raysr.train.start import transplant

STREAMED_FOR_CMVN = 2000
"""Utterances, drawn by the run's seed, whose mean and deviation do for all where features are not stored."""


class DdpTrainer:
    """Trains with :mod:`raysr.train` on Ray's workers."""

    class Config(TrainConfig):
        """A training, who carries it out, and what is tried on dev.

        Attributes:
            steps_by_cycle: replaces ``steps`` cycle by cycle, the last one staying.
            workers: of Ray Train; ``local`` trains in this process without Ray.
            network: over which several hosts talk.
        """

        steps_by_cycle: list[int] = Field(default_factory=list)
        workers: Scaling = Scaling()
        local: bool = False
        network: NetworkConfig = NetworkConfig()
        tuning: TuningConfig = TuningConfig()

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config, self.context = config, context
        self.cache = FeatureCache(context.cache, context.features)
        self.out = (context.folder / "train").absolute()

    def __call__(self, start: Start, batches: Batches) -> Entry:
        c = self.context
        parts = {name: self._readable(batches, name) for name in MANIFESTS}
        labelled, pseudo, rehearsal = parts.values()
        if not labelled and not pseudo:
            raise RunError(
                f"cycle {c.cycle} has nothing to train on: no labelled audio, and no pseudo-label was kept"
            )
        tokeniser = c.materials.tokeniser([*(labelled or pseudo), *rehearsal])
        init = self._init(start, tokeniser, [*labelled, *pseudo])
        job = self._job(init, training_sources(batches, parts))
        weights = self._fit(job)
        model = AsrModel(c.model, tokeniser.vocab_size)
        model.load_state_dict(load_file(weights))
        lm = c.materials.lm(tokeniser, labelled, pseudo)
        decode = c.decode
        metrics: dict[str, float] = {}
        if dev := self._dev:
            c.progress.say("  choosing decoder weights on dev")
            decode, metrics = tune(model, tokeniser, lm, dev, self.cache, decode, self.config.tuning)
        facts = {"cycle": c.cycle, "step": job.train.steps, "parents": list(start.parents), **metrics}
        before = [entry.metrics for entry in c.pool.entries() if entry.unfit is None]
        if collapse := collapsed(facts, before, c.stop):
            facts["unfit"] = collapse.reason
        entry_config = EntryConfig(model=c.model, fbank=c.features, decode=decode)
        return c.pool.publish(c.student, model, tokeniser, lm, facts, entry_config)

    def _init(self, start: Start, tokeniser: Tokeniser, utterances: Sequence[Utterance]) -> Path:
        """Return the weights that training starts from, complete and for the run's tokens."""
        if start.weights and not start.tokeniser:
            return start.weights
        reader: FeatureReader = self.cache
        if self.config.reading.stream:
            reader = Streamed(self.context.features)
            enough = min(len(utterances), STREAMED_FOR_CMVN)
            utterances = random.Random(self.context.seed).sample(list(utterances), enough)
        scratch = self.context.materials.scratch(self.context.model, utterances, reader, tokeniser.vocab_size)
        if start.weights is None or start.tokeniser is None:
            return scratch
        path = self.out / "init.safetensors"
        if not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(transplant(start.weights, Tokeniser.load(start.tokeniser), scratch, tokeniser))
        return path

    def _job(self, init: Path, sources: Sequence[TrainingSource]) -> TrainJob:
        c, config = self.context, self.config
        options = {name: getattr(config, name) for name in TrainConfig.model_fields}
        if config.steps_by_cycle:
            options["steps"] = config.steps_by_cycle[min(c.cycle, len(config.steps_by_cycle) - 1)]
        augment = config.augment
        waveform = augment.waveform.located(Path.cwd())
        waveform.check_files()
        options["augment"] = augment.model_copy(update={"waveform": waveform})
        taught = distributions_folder(c.folder / "predictions")
        return TrainJob(
            out=str(self.out),
            init=str(init.absolute()),
            tokeniser=str(c.materials.tokeniser_path.absolute()),
            cache=str(c.cache.absolute()),
            distributions=[str(taught.absolute())] if c.distillation.word and taught.is_dir() else [],
            distillation=c.distillation,
            sources=[self._source(number, source) for number, source in enumerate(sources)],
            features=c.features,
            model=c.model,
            train=TrainConfig(**options),
            dev=self._dev_manifest() if config.keep_best and self._dev else None,
            network=config.network,
            timeout_s=config.workers.timeout_s,
            seed=c.seed + c.cycle,
        )

    def _dev_manifest(self) -> str:
        path = self.out / "dev.jsonl"
        write_jsonl(path, self._dev)
        return str(path)

    def _source(self, number: int, source: TrainingSource) -> SourceConfig:
        name = source.name if source.name in MANIFESTS else f"source-{number}"  # a tag may be no file's name
        path = self.out / f"{name}.jsonl"
        write_jsonl(path, source.utterances)
        return SourceConfig(name=source.name, manifest=str(path), share=source.share)

    def _fit(self, job: TrainJob) -> Path:
        self.out.mkdir(parents=True, exist_ok=True)
        with self.context.progress.follow_training(self.out / "metrics.jsonl", job.train.steps):
            if self.config.local:
                return fit_local(job)
            from raysr.train.ray_trainer import fit

            return fit(job, self.config.workers, self.context.student)

    def _readable(self, batches: Batches, part: str) -> list[Utterance]:
        """Return the utterances with features, all where those are streamed; others go to ``train/left-out.jsonl``."""
        manifest = getattr(batches, part)
        if manifest is None:
            return []
        utterances = list(open_manifest(manifest))
        if self.config.reading.stream:
            return utterances
        with self.context.progress.track(f"features ({part})", len(utterances)) as update:
            errors = self.cache.ensure(
                utterances, workers=os.cpu_count() or 1, progress=lambda done, _: update(done, "")
            )
        if errors:
            self._report(errors)
        return [u for u in utterances if u.id not in errors]

    def _report(self, errors: dict[str, str]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        for name, reason in errors.items():
            append_row(self.out / "left-out.jsonl", {"id": name, "reason": reason})
        self.context.progress.say(
            f"  {len(errors)} utterances cannot be read and are left out: {self.out}/left-out.jsonl"
        )

    @cached_property
    def _dev(self) -> list[Utterance]:
        errors = self.cache.ensure(self.context.dev, workers=os.cpu_count() or 1)
        return [u for u in self.context.dev if u.text and u.id not in errors]
