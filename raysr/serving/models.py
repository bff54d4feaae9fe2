"""The model a replica serves: the newest good entry of the pool, loaded and warmed beside the one in use."""

import contextlib
import ctypes
import logging
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysr.errors import PoolError
from raysr.export.entry import load_step
from raysr.model.chunking import Chunking
from raysr.pool import TOKENISER, Entry, Pool, load_entry
from raysr.serving.promotion import PromotionConfig
from raysr.serving.settings import Engine
from raysr.stream.session import Session
from raysr.stream.streaming_model import StreamingModel

log = logging.getLogger(__name__)
WARM_S = 1.0
"""Of noise, beyond what the search takes to settle."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded and warmed model; ``since`` is when it went live, in seconds since the epoch."""

    streaming: StreamingModel
    since: float

    @property
    def version(self) -> str:
        """The name of its pool entry."""
        return self.streaming.version


class ModelWatcher:
    """Follows a pool: :meth:`poll` makes the newest good entry :attr:`current`, and remembers what it refused and why.

    At most two models are in memory: a newer one is loaded when the last stream has left the one before. An entry with
    other tokens than the one in use is no newer one of it: it has to be pinned.

    Args:
        pool: folder of the pool.
        entry: serve this entry only; None follows the newest.
        chunking: how streams will be cut.
        engine: what runs its encoder.
        slots: streams that hear with a model at the same time, at most.
        promotion: which entries are good enough to follow; None for all that can be served.
    """

    def __init__(
        self,
        pool: str,
        entry: str | None,
        chunking: Chunking,
        engine: Engine = "torch",
        slots: int = 1,
        promotion: PromotionConfig | None = None,
    ) -> None:
        self.current: ServedModel | None = None
        self.refused: dict[str, str] = {}
        self.trouble: str | None = None
        self._seen: tuple[str | None, dict[str, int]] | None = None
        self._pool = pool
        self.pinned = entry
        self._chunking = chunking
        self._engine: Engine = engine
        self._slots = slots
        self._promotion = promotion
        self._outdone: set[str] = set()
        self._resident: list[weakref.ref[StreamingModel]] = []
        self._waiting = False
        self._tokens: str | None = None

    def poll(self) -> bool:
        """Look at the pool once; return whether another model went live. Blocks for as long as loading takes."""
        self._let_go()
        pinned = self.pinned
        try:
            listing = self._listing()
            if (pinned, listing) == self._seen and not self._waiting:
                return False
            self._forget_refusals(listing)
            candidates = self._candidates(listing, pinned)
            self.trouble = None
        except (PoolError, OSError) as error:
            self._complain(str(error))
            return False
        self._seen, self._waiting = (pinned, listing), False
        for entry in candidates:
            if self.current is not None and entry.name == self.current.version:
                return False
            if entry.name in self.refused:
                continue
            if self.older:
                self._waiting = True
                return False
            if self._take(entry, pinned):
                return True
        return False

    @property
    def older(self) -> int:
        """How many models are in memory that some stream has not left yet, beside the one in use."""
        current = self.current.streaming if self.current else None
        return sum(model() not in (None, current) for model in self._resident)

    def pin(self, entry: str | None) -> None:
        """Serve another entry from the next look on; None follows the newest."""
        if entry != self.pinned:
            self.pinned = entry
            self.refused = {name: why for name, why in self.refused.items() if name != entry}

    def _listing(self) -> dict[str, int]:
        """Return the entries' names and times: the pool is read again only when these change."""
        root = Path(self._pool)
        if not root.is_dir():
            raise PoolError(f"there is no pool at {root}")
        return {
            item.name: item.stat().st_mtime_ns for item in root.iterdir() if not item.name.startswith(".")
        }

    def _forget_refusals(self, listing: Mapping[str, int]) -> None:
        """Give entries that were removed or published again another chance."""
        seen = self._seen[1] if self._seen else {}
        self.refused = {
            name: why for name, why in self.refused.items() if listing.get(name) == seen.get(name)
        }

    def _candidates(self, listing: Mapping[str, int], pinned: str | None) -> list[Entry]:
        """Return the entries, newest first; note those that cannot be read or should not be served."""
        pool = Pool(self._pool)
        if pinned is not None:
            return [pool.get(pinned)]
        entries = pool.entries()[::-1]
        for name in listing.keys() - {entry.name for entry in entries} - self.refused.keys():
            try:
                pool.get(name)
            except PoolError as error:
                self._refuse(name, str(error))
        for entry in entries:
            if entry.unfit is not None and entry.name not in self.refused:
                self._refuse(entry.name, entry.unfit)
        self._compare(entries)
        return entries

    def _compare(self, entries: Sequence[Entry]) -> None:
        """Refuse the entries that others outdo too far, as long as these are there."""
        for entry in entries:
            if entry.name in self.refused and entry.name not in self._outdone:
                continue
            objection = self._promotion.objection(entry, entries) if self._promotion else None
            if objection is None:
                self._outdone.discard(entry.name)
                self.refused.pop(entry.name, None)
            elif objection != self.refused.get(entry.name):
                self._outdone.add(entry.name)
                self._refuse(entry.name, objection)

    def _take(self, entry: Entry, pinned: str | None) -> bool:
        tokens = entry.files.get(TOKENISER)
        if self.current is not None and pinned is None and tokens != self._tokens:
            self._refuse(entry.name, f"it has other tokens than {self.current.version}; pin it to serve it")
            return False
        try:
            recogniser = load_entry(entry)
            if self._engine != "torch":
                recogniser.step = load_step(entry, self._chunking, self._engine)
            model = StreamingModel(recogniser, entry.name, self._chunking, self._slots)
            self._warm(model)
        except Exception as error:
            # Whatever is wrong with a new entry, the model in use goes on serving.
            self._refuse(entry.name, str(error) or type(error).__name__)
            return False
        self.current, self._tokens = ServedModel(model, time.time()), tokens
        self._resident.append(weakref.ref(model))
        log.info("pool entry %s is live", entry.name)
        return True

    def _let_go(self) -> None:
        """Give the memory of models that nobody hears with any more back to the system."""
        here = [model for model in self._resident if model() is not None]
        if len(here) < len(self._resident):
            self._resident = here
            with contextlib.suppress(OSError, AttributeError):  # of another C library than glibc
                ctypes.CDLL(None).malloc_trim(0)

    def _warm(self, model: StreamingModel) -> None:
        """Recognise some noise: the first client does not wait, and a broken model is found here.

        It is as long as it takes for the search to settle, so that nothing is left to be compiled.
        """
        session = Session(model)
        samples = round(16000 * (model.recogniser.config.decode.settle + WARM_S))
        session.push(np.random.default_rng(0).normal(0, 0.01, samples).astype(np.float32))
        session.finish()
        session.leave()

    def _refuse(self, name: str, reason: str) -> None:
        self.refused[name] = reason
        log.error("pool entry %s refused: %s", name, reason)

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.error("the pool cannot be read: %s", trouble)
        self.trouble = trouble
