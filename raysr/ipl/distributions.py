"""A cycle's teacher goes over the texts that its student will learn, and says at every token what else it expects.

Knows no Ray but for one function. Texts are those that are kept, after every vote and filter, and those of the
labelled audio; a block of them makes a file (see :mod:`raysr.train.distributions`), which a restart finds.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysr.cluster import root_cause
from raysr.config import Spec
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError, RaysrError, RunError
from raysr.model.distillation import Distributions
from raysr.pool import Pool
from raysr.teachers.base import TEACHERS, DistributionTeacher, TeacherContext
from raysr.text.normalise import normalise
from raysr.text.tokeniser import Tokeniser
from raysr.train.distributions import SUFFIX, Row, TokenDistributions, write_distributions

log = logging.getLogger(__name__)

BLOCK = 500  # utterances a task goes over: worth loading the teacher for, little to lose
IN_FLIGHT = 256  # tasks: enough for any cluster, little for the driver to hold


@dataclass(frozen=True)
class Forcing:
    """One teacher, forced over texts.

    Attributes:
        teacher: a description of it.
        tokeniser: the run's, which has to be the teacher's too.
        cache: folder of feature caches.
        k: how many of its likeliest tokens are kept at each place.
        folder: that the files go to.
    """

    teacher: Spec
    tokeniser: Path
    cache: Path
    k: int
    folder: Path

    def missing(self, utterances: Sequence[Utterance]) -> list[list[Utterance]]:
        """Return the blocks of these utterances that have no file yet."""
        blocks = [list(utterances[first : first + BLOCK]) for first in range(0, len(utterances), BLOCK)]
        return [block for block in blocks if not self._path(block).exists()]

    def __call__(self, block: Sequence[Utterance]) -> int:
        """Write a block's file and return its rows; what cannot be read, or makes the teacher fail, has none."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        teacher: DistributionTeacher = TEACHERS.build(self.teacher, TeacherContext(device))
        tokeniser = Tokeniser.load(self.tokeniser)
        _check_tokeniser(teacher.tokeniser.contract(), tokeniser, teacher.name)
        cache = FeatureCache(self.cache, teacher.fbank)
        errors = cache.ensure(block)
        readable = [u for u in block if u.id not in errors]
        texts = [tokeniser.encode(normalise(u.text or "")) for u in readable]
        found = _distributions(teacher, [cache.get(u) for u in readable], texts, self.k)
        rows = [
            Row(u.id, text, _stored(each))
            for u, text, each in zip(readable, texts, found, strict=True)
            if each is not None
        ]
        write_distributions(self._path(block), rows, min(self.k, tokeniser.vocab_size), tokeniser)
        return len(rows)

    def _path(self, block: Sequence[Utterance]) -> Path:
        names = "\n".join(f"{u.id}\t{u.text}" for u in block)
        return self.folder / f"{hashlib.sha256(names.encode()).hexdigest()[:24]}{SUFFIX}"


def distributions_folder(predictions: Path) -> Path:
    """Return the folder beside a cycle's predictions that the distributions are in."""
    return predictions.with_name(f"{predictions.name}-distributions")


def force(
    forcing: Forcing, blocks: Sequence[Sequence[Utterance]], resources: tuple[float, float] | None
) -> Iterator[int]:
    """Yield how many texts each block has, as they are done: here, or as tasks of the connected cluster.

    ``resources`` are the CPUs and GPUs that a task takes of the cluster; None stays in this process.
    """
    if resources is None:
        yield from map(forcing, blocks)
        return
    import ray
    import ray.exceptions

    cpus, gpus = resources
    task = ray.remote(max_retries=3, num_cpus=cpus, num_gpus=gpus)(_force)
    waiting: list[Any] = []
    todo = iter(blocks)
    try:
        while True:
            waiting += [task.remote(forcing, block) for block in islice(todo, IN_FLIGHT - len(waiting))]
            if not waiting:
                return
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    except ray.exceptions.RayError as error:
        raise RunError(f"distillation.word failed: {root_cause(error)}; start again to go on") from error


def _force(forcing: Forcing, block: Sequence[Utterance]) -> int:
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    return forcing(block)


def distribution_teacher(teachers: Sequence[Spec], tokeniser: Path) -> Spec:
    """Return the first teacher that has distributions over the run's tokens.

    Raises:
        ConfigError: none has; says of each why.
    """
    reasons = []
    for spec in teachers:
        try:
            _check(spec, tokeniser)
        except RaysrError as error:
            reasons.append(f"{spec.kind}: {error}")
        else:
            return spec
    raise ConfigError(
        f"distillation.word needs a teacher with the run's tokens and an attention decoder ({'; '.join(reasons)}); "
        "take a student of this run, or distil by sequence"
    )


def _check(spec: Spec, tokeniser: Path) -> None:
    teacher = TEACHERS.resolve(spec.kind)
    if not hasattr(teacher, "distributions"):
        raise ConfigError("it has texts alone")
    if not tokeniser.exists():
        raise ConfigError(
            "the run has no tokeniser yet: train on labelled audio first (selector.first_cycle: 1)"
        )
    for path in map(Path, spec.options.get("entries", ())):
        entry = Pool(path.parent).get(path.name)
        _check_tokeniser(Tokeniser.load(entry.tokeniser).contract(), Tokeniser.load(tokeniser), entry.name)
        if entry.config().model.ctc_weight == 1:
            raise ConfigError(f"{entry.name} has no attention decoder (model.ctc_weight: 1)")


def _check_tokeniser(contract: str, tokeniser: Tokeniser, name: str) -> None:
    if contract != tokeniser.contract():
        raise ConfigError(f"the tokens of {name} are not the run's")


def _distributions(
    teacher: DistributionTeacher, features: Sequence[Tensor], texts: Sequence[Sequence[int]], k: int
) -> Sequence[Distributions | None]:
    """Ask for all at once; when that fails in halves, so that only the culprit has none."""
    try:
        return teacher.distributions(features, texts, k)
    except RaysrError:
        raise
    except Exception as error:
        if len(texts) <= 1:
            log.warning("no distributions: %s: %s", type(error).__name__, error)
            return [None] * len(texts)
    half = len(texts) // 2
    parts = ((features[:half], texts[:half]), (features[half:], texts[half:]))
    return [found for part in parts for found in _distributions(teacher, *part, k)]


def _stored(found: Distributions) -> TokenDistributions:
    log_probs = found.log_probs.half().numpy()
    if found.ids is None:
        ids = np.broadcast_to(np.arange(log_probs.shape[-1], dtype=np.int32), log_probs.shape).copy()
    else:
        ids = found.ids.int().numpy()
    return TokenDistributions(log_probs, ids)
