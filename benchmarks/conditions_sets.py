"""Test sets of `benchmarks.conditions`: the same speech under many conditions, and speech of other kinds.

Most sets are the demo corpus's clean test utterances with something done to them. What a manifest's recipe can say is
mixed in when an utterance is loaded; what it cannot is written once. Speech that the demo corpus has not is synthesised
by voices of its test part. The unlabelled audio has music and noise at 5 to 20 dB, rooms with speakers up to 1.5 m away
and all accents, with other voices; it has no babble, calls, walks, fillers, restarts or Mandarin.
"""

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.two_languages import shards_once, two_languages
from raysr.audio.augment import Augmentation, augment
from raysr.audio.encode import encode_opus, flac_bytes
from raysr.corpus.demo import DemoCorpus, demo_corpus, voices
from raysr.corpus.demo.grammar import Grammar
from raysr.corpus.load import load_waveform
from raysr.corpus.synthesis.engines import SAMPLE_RATE, Line
from raysr.corpus.synthesis.speakers import Speakers, levelled, trimmed
from raysr.corpus.utterance import Utterance

MIXED: Mapping[str, Mapping[str, Any]] = {
    "music10": {"music": {"snr_db": 10.0}},
    "music5": {"music": {"snr_db": 5.0}},
    "music0": {"music": {"snr_db": 0.0}},
    "far": {"room": {"rt60": 0.5, "distance": 3.0, "volume": 80.0}},
}
DONE: Mapping[str, Mapping[str, Any]] = {
    "babble": {"babble": {"snr_db": 5.0, "talkers": 5}},
    "moving": {"walk": {"near": 0.5, "far": 4.0, "rt60": 0.5}},
    "telephone": {"band": {"low": 300, "high": 3400}, "codec": {"kind": "alaw"}},
}
SPONTANEOUS, SWITCHED = "spontaneous", "switched"
SPONTANEOUS_COUNT = 200
FILLERS = ("uh", "um", "er")
SEED = 77


def condition_sets(folder: Path) -> dict[str, list[Utterance]]:
    """Return the sets by name, writing what is missing of them in ``folder``.

    ``accents`` and ``names`` are parts of ``clean``: speakers with an accent that no labelled voice has, and
    utterances with a name that no labelled transcript has.
    """
    corpus = demo_corpus()
    clean = list(corpus.tests["clean"])
    talk = _talk(corpus, folder / "talk")
    sets = {"clean": clean}
    sets |= {name: [_with(u, name, mix) for u in clean] for name, mix in MIXED.items()}
    for name, recipe in DONE.items():
        sets[name] = shards_once(folder / name, partial(_done, clean, name, recipe, talk))
    heard = {_accent(voice.speaker) for voice in voices.LABELLED}
    espeak = [u for u in clean if u.tags["engine"] == "espeak"]
    sets["accents"] = [u for u in espeak if _accent(u.speaker or "") not in heard]
    sets["names"] = [u for u in clean if corpus.open_names.intersection((u.text or "").split())]
    sets["engine"] = list(corpus.tests["engine"])
    sets[SPONTANEOUS] = shards_once(folder / SPONTANEOUS, _spontaneous)
    both = two_languages(folder / "languages", wanted=["test"])["test"]
    sets[SWITCHED] = [u for u in both if u.tags["switched"] == "yes"]
    return sets


def disfluent(sentence: str, draws: random.Random) -> str:
    """Return a sentence as somebody says it who thinks meanwhile: with fillers, repetitions and a restart."""
    words = sentence.split()
    if draws.random() < 0.5:  # begin, and begin again
        begun = draws.randint(1, min(3, len(words)))
        words = [*words[:begun], draws.choice(FILLERS), *words]
    said: list[str] = []
    for word in words:
        chance = draws.random()
        if chance < 0.12:
            said.append(draws.choice(FILLERS))
        elif chance < 0.2:
            said.append(word)
        said.append(word)
    return " ".join(said)


def without_fillers(text: str) -> str:
    """Return normalised text as it is scored: whether a filler is written is a matter of taste."""
    return " ".join(word for word in text.split() if word not in FILLERS)


def _accent(speaker: str) -> str:
    """Return the accent of an espeak-ng voice of the demo corpus, such as ``espeak-en-gb-x-rp``."""
    return max((a for a in _ACCENTS if speaker.startswith(a + "-")), key=len, default=speaker)


_ACCENTS = {
    f"espeak-{voice.name.partition('+')[0]}".lower()
    for voice in (*voices.LABELLED, *voices.UNLABELLED, *voices.TEST)
    if voice.engine == "espeak"
}


def _with(utterance: Utterance, name: str, mix: Mapping[str, Any]) -> Utterance:
    seed = zlib.crc32(utterance.id.encode())
    return replace(utterance, id=f"{utterance.id}-{name}", mix={**mix, "seed": seed})


def _talk(corpus: DemoCorpus, folder: Path) -> Path:
    """Write the dev part's speech, whose voices no other part has, for babble."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.partial")
        unfinished.mkdir(parents=True, exist_ok=True)
        for utterance in corpus.dev["clean"]:
            (unfinished / f"{utterance.id}.flac").write_bytes(flac_bytes(load_waveform(utterance)))
        unfinished.rename(folder)
    return folder


def _done(
    clean: Sequence[Utterance], name: str, recipe: Mapping[str, Any], talk: Path
) -> Iterator[tuple[Utterance, bytes]]:
    if "babble" in recipe:
        recipe = {"babble": {**recipe["babble"], "files": str(talk)}}
    for utterance in clean:
        seed = zlib.crc32(utterance.id.encode())
        samples = augment(load_waveform(utterance), Augmentation.parse({**recipe, "seed": seed}, name))
        seconds = len(samples) / SAMPLE_RATE
        yield replace(utterance, id=f"{utterance.id}-{name}", duration=seconds), flac_bytes(samples)


def _spontaneous() -> Iterator[tuple[Utterance, bytes]]:
    draws = random.Random(SEED)
    cast = [voice for voice in voices.TEST if voice.engine == "espeak"]
    corpus = demo_corpus()
    parts = (corpus.labelled, *corpus.dev.values(), *corpus.tests.values())
    said = {u.text or "" for part in parts for u in part} | set(corpus.truth.values())
    texts = islice(Grammar(SEED, open_names=True).sentences(said), SPONTANEOUS_COUNT)
    lines = []
    for number, text in enumerate(texts):
        voice = cast[number % len(cast)]
        lines.append(Line(disfluent(text, draws), voice, voice.rate * draws.uniform(0.9, 1.1)))
    with Speakers() as speakers:
        spoken = speakers.speak(lines)
    for number, (line, samples) in enumerate(zip(lines, spoken, strict=True)):
        samples = levelled(trimmed(samples), draws.uniform(-30, -20))
        utterance = Utterance(
            id=f"{SPONTANEOUS}-{number:03d}",
            audio="",
            duration=len(samples) / SAMPLE_RATE,
            text=line.text,
            speaker=line.voice.speaker,
            language="en",
            tags={"engine": line.voice.engine},
        )
        yield utterance, encode_opus(samples, 24000)
