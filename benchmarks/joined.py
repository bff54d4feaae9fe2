"""The demo corpus with consecutive utterances joined until each is ten seconds or longer, as streams are.

A joined utterance takes turns of several people, each with the room, noise or music of its own; between them is a
short pause. The condition `music` of dev and tests is mixed into the joined speech, one piece for all of it.
"""

import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from raysr.audio.encode import wav_bytes
from raysr.corpus.demo import DemoCorpus
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance
from raysr.text.normalise import normalise

RATE = 16000
SECONDS = 10.0
PAUSE = (0.2, 0.6)  # seconds
HISS = 1e-4  # of full scale: a pause is never digital silence


@dataclass(frozen=True)
class JoinedCorpus:
    """Utterances with their texts: ``train`` is all that is there to train on, by its truth where it has no labels.

    ``unnamed`` is made of those utterances of it that hold no open name.
    """

    train: list[Utterance]
    unnamed: list[Utterance]
    dev: Mapping[str, list[Utterance]]
    tests: Mapping[str, list[Utterance]]

    def __iter__(self) -> Iterator[Utterance]:
        return chain(self.train, self.unnamed, *self.dev.values(), *self.tests.values())


def joined_corpus(corpus: DemoCorpus, folder: Path) -> JoinedCorpus:
    """Return the joined corpus in ``folder``, writing what is missing of it."""
    train, unnamed = training_utterances(corpus).values()
    music: Mapping[str, Any] = corpus.description["tests"]["music"]["mix"]
    dev, test = _part(folder / "dev", corpus.dev["clean"]), _part(folder / "test", corpus.tests["clean"])
    return JoinedCorpus(
        train=_part(folder / "train", train),
        unnamed=_part(folder / "unnamed", unnamed),
        dev={"clean": dev, "music": _under(music, dev)},
        tests={"clean": test, "music": _under(music, test)},
    )


def training_utterances(corpus: DemoCorpus) -> dict[str, list[Utterance]]:
    """Return the utterances that ``train`` and ``unnamed`` are made of."""
    spoken = (u.with_text(corpus.truth[u.id]) for u in corpus.unlabelled)
    train = [*corpus.labelled, *spoken]
    return {"train": train, "unnamed": [u for u in train if not open_names(corpus, u)]}


def open_names(corpus: DemoCorpus, utterance: Utterance) -> list[str]:
    """Return the open names in an utterance's text, each once."""
    said = normalise(utterance.text or "").split()
    return [word for word in dict.fromkeys(said) if word in corpus.open_names]


def groups(utterances: Iterable[Utterance], seconds: float = SECONDS) -> list[list[Utterance]]:
    """Return consecutive utterances in groups of ``seconds`` or more; the last one takes what is left over."""
    found: list[list[Utterance]] = [[]]
    for utterance in utterances:
        if sum(u.duration for u in found[-1]) >= seconds:
            found.append([])
        found[-1].append(utterance)
    if len(found) > 1 and sum(u.duration for u in found[-1]) < seconds:
        left_over = found.pop()
        found[-1] += left_over
    return found


def join(name: str, group: list[Utterance]) -> tuple[Utterance, bytes]:
    """Return one utterance ``name`` of several, and its WAV file."""
    draws = np.random.default_rng(zlib.crc32(name.encode()))
    pieces: list[np.ndarray] = []
    for utterance in group:
        pause = round(RATE * draws.uniform(*PAUSE)) if pieces else 0
        pieces += [draws.normal(scale=HISS, size=pause), load_waveform(utterance)]
    samples = np.concatenate(pieces)
    text = " ".join(u.text for u in group if u.text)
    return Utterance(id=name, audio="", duration=len(samples) / RATE, text=text), wav_bytes(samples)


def _part(folder: Path, utterances: Iterable[Utterance]) -> list[Utterance]:
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        write_shards(
            partial,
            (join(f"{folder.name}-{n:03d}", group) for n, group in enumerate(groups(utterances))),
        )
        partial.rename(folder)
    return list(open_manifest(folder))


def _under(mix: Mapping[str, Any], utterances: Iterable[Utterance]) -> list[Utterance]:
    return [
        replace(u, id=f"{u.id}-music", mix={**mix, "seed": zlib.crc32(u.id.encode())}) for u in utterances
    ]
