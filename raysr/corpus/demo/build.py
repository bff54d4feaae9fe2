"""Builds the demo corpus: ``python -m raysr.corpus.demo.build OUT``.

Needs ``raysr[voices]`` (espeak-ng), flite, and festival with the voice ked. Text, voices and
recipes follow from one seed, so that a second build differs only where an engine does.
"""

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from raysr.audio.encode import encode_opus
from raysr.corpus.demo import voices
from raysr.corpus.demo.grammar import FRAMES, Grammar, names
from raysr.corpus.manifest import write_truth
from raysr.corpus.shards import write_shards
from raysr.corpus.synthesis.engines import SAMPLE_RATE, Line
from raysr.corpus.synthesis.speakers import Speakers, levelled, trimmed
from raysr.corpus.synthesis.voices import Voice
from raysr.corpus.utterance import Utterance

_SEED = 2022
_BITRATE = 16000
_MUSIC = {"music": {"snr_db": 10.0}}


@dataclass(frozen=True)
class Part:
    """A part of the corpus: how many utterances, whose, with which names, and what is mixed in."""

    name: str
    count: int
    voices: Sequence[Voice]
    open_names: bool = True
    mixed_share: float = 0.0
    truth_apart: bool = False


PARTS = (
    Part("labelled", 310, voices.LABELLED, open_names=False),
    Part("unlabelled", 1200, voices.UNLABELLED, mixed_share=0.65, truth_apart=True),
    Part("dev", 150, voices.DEV),
    Part("test", 528, voices.TEST),
    Part("engine", 200, voices.ENGINE),
)
CONDITIONS = {
    "dev": {"clean": {"shards": "dev", "mix": None}, "music": {"shards": "dev", "mix": _MUSIC}},
    "tests": {
        "clean": {"shards": "test", "mix": None},
        "music": {"shards": "test", "mix": _MUSIC},
        "engine": {"shards": "engine", "mix": None},
    },
}


def build(out: Path, scale: float = 1.0) -> None:
    """Write the corpus to ``out``, replacing what is there; ``scale`` shrinks every part."""
    out.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    described: dict[str, Any] = {}
    for number, part in enumerate(PARTS):
        part = replace(part, count=max(1, round(part.count * scale)))
        seed = _SEED + number
        texts = list(islice(Grammar(seed, part.open_names).sentences(taken), part.count))
        taken.update(texts)
        utterances = _utterances(part, texts, random.Random(seed))
        shutil.rmtree(out / part.name, ignore_errors=True)
        write_shards(out / part.name, utterances)
        described[part.name] = _description(part, [u for u, _ in utterances])
        if part.truth_apart:
            write_truth(
                out / part.name / "truth.jsonl",
                [(u.id, text) for (u, _), text in zip(utterances, texts, strict=True)],
            )
        print(part.name, described[part.name], flush=True)
    corpus = {
        "seed": _SEED,
        "frames": len(FRAMES),
        "open_names": sorted(names(open_only=True)),
        "parts": described,
    }
    (out / "corpus.json").write_text(json.dumps({**corpus, **CONDITIONS}, indent=1) + "\n")


def _utterances(part: Part, texts: Sequence[str], draws: random.Random) -> list[tuple[Utterance, bytes]]:
    """Return the part's utterances with their encoded audio, voices taking turns in random order."""
    cast = [part.voices[n % len(part.voices)] for n in range(len(texts))]
    draws.shuffle(cast)
    lines = [
        Line(text, voice, voice.rate * draws.uniform(0.9, 1.1))
        for text, voice in zip(texts, cast, strict=True)
    ]
    levels = [draws.uniform(-30, -20) for _ in lines]
    mixes = [_recipe(draws) if draws.random() < part.mixed_share else None for _ in lines]
    width = len(str(len(lines) - 1))
    result = []
    with Speakers() as speakers:
        spoken = speakers.speak(lines)
    for number, samples in enumerate(spoken):
        line = lines[number]
        samples = levelled(trimmed(samples), levels[number])
        utterance = Utterance(
            id=f"{part.name}-{number:0{width}d}",
            audio="",
            duration=len(samples) / SAMPLE_RATE,
            text=None if part.truth_apart else line.text,
            speaker=line.voice.speaker,
            language="en",
            tags={"engine": line.voice.engine, "mix": _condition(mixes[number])},
            mix=mixes[number],
        )
        result.append((utterance, encode_opus(samples, _BITRATE)))
    return result


def _recipe(draws: random.Random) -> dict[str, Any]:
    """Return what is mixed into an utterance: at least one of room, noise and music."""
    recipe: dict[str, Any] = {"seed": draws.randrange(1 << 31)}
    parts = draws.choice(
        (("music",), ("music",), ("noise",), ("room", "music"), ("room", "noise"), ("room",))
    )
    if "room" in parts:
        rt60, distance = round(draws.uniform(0.15, 0.5), 2), round(draws.uniform(0.3, 1.5), 1)
        recipe["room"] = {"rt60": rt60, "distance": distance, "volume": draws.choice((30, 60, 120))}
    if "noise" in parts:
        colour = draws.choice(("white", "pink", "pink", "brown"))
        recipe["noise"] = {"snr_db": round(draws.uniform(5, 20), 1), "colour": colour}
    if "music" in parts:
        recipe["music"] = {"snr_db": round(draws.uniform(5, 20), 1)}
    recipe["gain_db"] = round(draws.uniform(-6, 3), 1)
    return recipe


def _condition(recipe: dict[str, Any] | None) -> str:
    """Return what is mixed in, as ``room+music``, to group results by."""
    return "+".join(part for part in ("room", "noise", "music") if part in (recipe or {})) or "clean"


def _description(part: Part, utterances: Sequence[Utterance]) -> dict[str, Any]:
    return {
        "utterances": len(utterances),
        "minutes": round(sum(u.duration for u in utterances) / 60, 1),
        "voices": [voice.speaker for voice in part.voices],
        "open_names": part.open_names,
        "mixed": sum(u.mix is not None for u in utterances),
    }


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build the demo corpus from synthesised voices.")
    parser.add_argument("out", type=Path, help="folder to write; parts already there are replaced")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the utterances to build")
    arguments = parser.parse_args()
    build(arguments.out, arguments.scale)


if __name__ == "__main__":
    main()
