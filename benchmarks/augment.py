"""What making audio harder on the fly costs: seconds of a core for an hour of audio, part by part.

python -m benchmarks.augment --json results/augment.json

Each part is done to the same demo utterances by itself, then all of them as `benchmarks.conditions` draws them; what
reading the audio and computing its features takes is the row `features`, and part of all the others. Rounds are
interleaved; the figures are medians over rounds. One thread.
"""

import argparse
import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.conditions import WAVEFORM
from raysr.audio.augment import augment
from raysr.audio.draws import PARTS, WaveformConfig
from raysr.audio.fbank import Fbank
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance

CODECS = ("mulaw", "gsm", "opus", "mp3")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--utterances", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    utterances = list(islice(demo_corpus().labelled, options.utterances))
    hours = sum(u.duration for u in utterances) / 3600
    recipes = {name: WaveformConfig.parse(parts) for name, parts in arms().items()}
    taken: dict[str, list[float]] = {name: [] for name in recipes}
    for number in range(options.rounds + 1):
        for name, recipe in recipes.items():
            started = time.process_time()
            make(recipe, utterances, number)
            if number:  # the first round generates what is kept
                taken[name].append((time.process_time() - started) / hours)
    results = {name: round(statistics.median(times), 2) for name, times in taken.items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print("| part | core seconds an hour | beyond features |\n|---|---|---|")
    for name, seconds in results.items():
        print(f"| {name} | {seconds} | {seconds - results['features']:.2f} |")


def arms() -> dict[str, dict[str, Any]]:
    """Return what is done in each row."""
    alone = {part: {part: {}} for part in PARTS if part not in ("babble", "codec")}
    codecs = {f"codec {kind}": {"codec": {"kinds": [kind]}} for kind in CODECS}
    return {
        "features": {"share": 0.0},
        **{name: {"share": 1.0, **parts} for name, parts in {**alone, **codecs}.items()},
        "as drawn in benchmarks.conditions": WAVEFORM,
    }


def make(recipe: WaveformConfig, utterances: list[Utterance], number: int) -> None:
    """Make features of each utterance once, with draws of a round."""
    fbank = Fbank()
    for place, utterance in enumerate(utterances):
        samples = load_waveform(utterance)
        drawn = recipe.draw(1000 * number + place)
        fbank(torch.from_numpy(samples if drawn is None else augment(samples, drawn)))


if __name__ == "__main__":
    main()
