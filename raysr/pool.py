"""The model pool: all checkpoints that teachers are built from, students start from, and Serve serves.

An entry is a folder that appears whole or not at all, with a manifest of the hashes of its files.
"""

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from raysr.audio.fbank import FbankConfig
from raysr.config import Config
from raysr.corpus.disk import naming_full_disk, sync
from raysr.decode.lm_file import StoredLm, file_name, load_lm
from raysr.decode.recognise import DecodeConfig
from raysr.errors import ConfigError, PoolError
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.model.streaming import StreamingStep
from raysr.text.tokeniser import Tokeniser

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 2
"""It changes when the same weights would compute something else: in 1 a Conformer that streams was causal."""
WEIGHTS = "model.safetensors"
TOKENISER = "tokenizer.model"
CONFIG = "config.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class EntryConfig(Config):
    """How an entry's model is built, fed and decoded."""

    model: ModelConfig = ModelConfig()
    fbank: FbankConfig = FbankConfig()
    decode: DecodeConfig = DecodeConfig()


@dataclass(frozen=True)
class Entry:
    """A published checkpoint; ``weights_hash`` is the SHA-256 of its weights.

    One whose metrics say under ``unfit`` why it should not be used is kept, but never taken for the newest or best.
    """

    name: str
    path: Path
    metrics: Mapping[str, Any]
    weights_hash: str
    files: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def unfit(self) -> str | None:
        """Why it should not be used, such as a student that has collapsed; None: it may be."""
        return self.metrics.get("unfit")

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def tokeniser(self) -> Path:
        return self.path / TOKENISER

    def config(self) -> EntryConfig:
        """Read how the entry is built, fed and decoded; raise :class:`PoolError` if it cannot be."""
        try:
            return EntryConfig.parse(yaml.safe_load((self.path / CONFIG).read_text()), str(self.path))
        except (OSError, ConfigError, yaml.YAMLError) as error:
            raise PoolError(f"pool entry {self.path} cannot be loaded: {error}") from error

    def verify(self) -> "Entry":
        """Return the entry; raise :class:`PoolError` naming the file that is not as published."""
        for name, expected in self.files.items():
            if not (self.path / name).is_file():
                raise PoolError(
                    f"pool entry {self.path}: {name} is missing; remove the entry or publish it again"
                )
            if _sha256(self.path / name) != expected:
                raise PoolError(
                    f"pool entry {self.path}: {name} is damaged; remove the entry or publish it again"
                )
        return self


@dataclass
class Recogniser:
    """A loaded entry: everything needed to turn features into text."""

    model: AsrModel
    tokeniser: Tokeniser
    lm: StoredLm | None
    config: EntryConfig
    step: StreamingStep | None = None
    """Takes the place of the model's own encoder in streams of the context it was made for."""


class Parameters(Protocol):
    """Anything with weights, such as a model."""

    def state_dict(self) -> Mapping[str, Tensor]: ...


class Pool:
    """A folder of entries."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def publish(
        self,
        name: str,
        model: Parameters,
        tokeniser: Tokeniser,
        lm: StoredLm | None,
        metrics: Mapping[str, Any],
        config: EntryConfig | Mapping[str, Any],
    ) -> Entry:
        """Write an entry and make it visible in one step.

        Raises:
            PoolError: the name is taken or not a plain file name, or the pool cannot be written.
            CorpusError: the disk is full.
        """
        if not _NAME.fullmatch(name):
            raise PoolError(f"pool entry '{name}': a name is letters, digits, dots, dashes and underscores")
        if (self.root / name).exists():
            raise PoolError(f"pool entry {self.root / name} exists already; entries never change")
        config = (
            config if isinstance(config, EntryConfig) else EntryConfig.parse(config, f"pool entry {name}")
        )
        partial = self.root / f".{name}.{uuid.uuid4().hex[:8]}.partial"
        try:
            with naming_full_disk(self.root):
                partial.mkdir(parents=True)
                save_file(
                    {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()},
                    partial / WEIGHTS,
                )
                tokeniser.save(partial / TOKENISER)
                (partial / CONFIG).write_text(yaml.safe_dump(config.dump(), sort_keys=False))
                (partial / "metrics.json").write_text(json.dumps(dict(metrics), indent=2))
                if lm is not None:
                    lm.save(partial / file_name(lm))
                hashes = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
                (partial / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": hashes}, indent=2))
                for file in [*partial.iterdir(), partial]:
                    sync(file)
                partial.rename(self.root / name)
                sync(self.root)
        except OSError as error:
            raise PoolError(
                f"pool entry {self.root / name} cannot be written: {error.strerror or error}"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self.get(name)

    def get(self, name: str) -> Entry:
        """Return an entry by name; raise :class:`PoolError` when it is missing, incomplete or of another format."""
        path = self.root / name
        if not path.is_dir():
            known = ", ".join(self._names()) or "none"
            raise PoolError(f"pool {self.root} has no entry '{name}'; entries: {known}")
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            files, found = manifest["files"], manifest.get("format", 1)
            metrics = json.loads((path / "metrics.json").read_text())
            entry = Entry(name, path, metrics, files[WEIGHTS], files)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PoolError(
                f"pool entry {path} is incomplete: {error!r}; remove it or publish it again"
            ) from None
        if found != FORMAT:
            raise PoolError(
                f"pool entry {path} is of format {found}, this raysr reads {FORMAT}: train it again"
            )
        return entry

    def entries(self) -> list[Entry]:
        """Return the entries that can be read, oldest first: by cycle, then step, then name."""
        found = []
        for name in self._names():
            try:
                found.append(self.get(name))
            except PoolError as error:
                log.warning("skipped: %s", error)
        return sorted(found, key=lambda e: (e.metrics.get("cycle", 0), e.metrics.get("step", 0), e.name))

    def latest(self) -> Entry | None:
        """Return the newest fit entry that is as published; damaged ones are passed over with a warning."""
        return next(iter(self.newest(1)), None)

    def best(self, metric: str = "dev_wer") -> Entry | None:
        """Return the fit and sound entry with the lowest ``metric``; of equals the newest."""
        return next(iter(self.best_of(1, metric)), None)

    def best_of(self, count: int, metric: str = "dev_wer") -> list[Entry]:
        """Return up to ``count`` fit and sound entries, that with the lowest ``metric`` first; of equals the newest."""
        scored = [e for e in self._fit() if isinstance(e.metrics.get(metric), int | float)]
        return list(islice(_sound(sorted(scored, key=lambda e: e.metrics[metric])), count))

    def newest(self, count: int | None = None) -> list[Entry]:
        """Return up to ``count`` fit and sound entries, newest first; None returns all."""
        return list(islice(_sound(self._fit()), count))

    def _fit(self) -> list[Entry]:
        return [entry for entry in self.entries()[::-1] if entry.unfit is None]

    def _names(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(
            path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )


def load_entry(entry: Entry, device: str = "cpu") -> Recogniser:
    """Load an entry in evaluation mode, after verifying its hashes.

    Raises:
        PoolError: a file is missing, damaged, or does not fit the model that the configuration describes.
    """
    config = entry.verify().config()
    try:
        tokeniser = Tokeniser.load(entry.tokeniser)
        model = AsrModel(config.model, tokeniser.vocab_size)
        model.load_state_dict(load_file(entry.weights))
        lm = load_lm(entry.path, tokeniser)
    except (ConfigError, RuntimeError, ValueError) as error:
        raise PoolError(f"pool entry {entry.path} cannot be loaded: {error}") from error
    return Recogniser(model.to(device).eval(), tokeniser, lm, config)


def average(entries: Sequence[Entry], shares: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Return the mean of the entries' weights, computed in float64; what is no real number is the first's.

    Args:
        entries: at least one.
        shares: what each counts for, in their order; they add up to 1. None counts all alike.

    Raises:
        PoolError: they differ in shape or in their tokens, or one is damaged.
    """
    check_alike(entries)
    shares = [1 / len(entries)] * len(entries) if shares is None else shares
    first = load_file(entries[0].verify().weights)
    real = {name: tensor for name, tensor in first.items() if tensor.is_floating_point()}
    total = {name: tensor.double() * shares[0] for name, tensor in real.items()}
    for entry, share in zip(entries[1:], shares[1:], strict=True):
        weights = load_file(entry.verify().weights)
        for name, tensor in total.items():
            tensor.add_(weights[name].double(), alpha=share)
    return first | {name: tensor.to(first[name].dtype) for name, tensor in total.items()}


def check_alike(entries: Sequence[Entry]) -> None:
    """Raise :class:`PoolError` naming the entry whose weights cannot be averaged with those of the first."""
    if not entries:
        raise PoolError("no pool entries to average")
    for entry in entries[1:]:
        if difference := _difference(entry, entries[0]):
            raise PoolError(
                f"pool entry {entry.path} has {difference} {entries[0].path}: they cannot be averaged"
            )


def alike(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries whose weights can be averaged with those of the first: a model may grow within a run."""
    found = []
    for entry in entries:
        if difference := _difference(entry, entries[0]):
            log.info(
                "pool entry %s has %s %s: it is left out of the average",
                entry.path,
                difference,
                entries[0].name,
            )
        else:
            found.append(entry)
    return found


def _difference(entry: Entry, first: Entry) -> str | None:
    one, other = entry.config(), first.config()
    if _shapes(entry) != _shapes(first) or one.model.structure != other.model.structure:
        return "another shape than"
    if one.fbank != other.fbank:
        return "other features than"
    return "other tokens than" if entry.files.get(TOKENISER) != first.files.get(TOKENISER) else None


def _shapes(entry: Entry) -> dict[str, list[int]]:
    """Read the shapes of an entry's weights without the weights."""
    try:
        with safe_open(entry.weights, "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PoolError(f"pool entry {entry.path} cannot be loaded: {error}") from error


def _sound(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Pass over damaged entries with a warning."""
    for entry in entries:
        try:
            yield entry.verify()
        except PoolError as error:
            log.warning("skipped: %s", error)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
