"""What augmentation and unlabelled audio are worth by condition: music, babble, rooms, calls, accents, names.

python -m benchmarks.conditions --seeds 1 2 3 --json results/conditions.json

Four arms of the demo's recipe with the same updates: trained on the labelled audio alone, or by pseudo-labels of the
unlabelled audio too; each with nothing done to the audio that is trained on, or with noise and music behind it, and a
part of it in rooms and on the telephone. SpecAugment and tempo are in all of them. :mod:`benchmarks.conditions_sets`
says which conditions the unlabelled audio has. Every model is scored on every set of it, greedily and with a language
model of the labelled transcripts: word error rate, of speech that switches languages mixed error rate, fillers left out
on both sides.

augment_music5_gain    errors in music at 5 dB that augmentation saves the supervised arm: (without - with) / without
ipl_music5_gain        of those of the supervised arm with augmentation, what IPL with augmentation saves
ipl_music5_low         the lower end of its 95% interval: utterances drawn, all seeds of one together
clean_change           the same, on clean speech, of augmentation and of IPL: below 0 where they cost
gains                  all of these by set and method; `wer` by arm, method, set and seed
names                  names, over all seeds, that no labelled transcript has: how many, their recall and precision

All figures of the first three are with the language model. Finished cells and what they have recognised are kept in
`--work`, see :mod:`benchmarks.arms`. Needs `raysr[voices]`.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.arms import CELL, NEVER, RECIPE, Comparison
from benchmarks.code import code_hash
from benchmarks.conditions_sets import condition_sets, without_fillers
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.evaluate.bootstrap import Interval, bootstrap, pool_runs
from raysr.evaluate.evaluate import METHODS
from raysr.evaluate.hypotheses import Hypotheses, write_hypotheses
from raysr.evaluate.mixed import mixed_counts
from raysr.evaluate.outcome import Outcome
from raysr.evaluate.rare_words import RareWords, rare_words
from raysr.ipl.config import read_config
from raysr.model.chunking import CHUNKING
from raysr.pool import Pool, load_entry
from raysr.stream.recognising import recognise_set

COMMON = ["trainer.steps_by_cycle=[2000, 2000, 2000]", "run.canary=0", "stop.enabled=false"]
PLAIN, AUGMENTED = "", " + augmentation"
WAVEFORM: Mapping[str, Any] = {
    "share": 0.5,
    "room": {"share": 0.5},
    "walk": {"share": 0.15},
    "noise": {"share": 0.3, "snr_db": [5, 20]},
    "band": {"share": 0.1},
    "codec": {"share": 0.25, "kinds": ["alaw", "mulaw", "gsm", "opus"], "bit_rate": [8000, 24_000]},
    "gain_db": {"share": 0.3},
}
HARDER = {
    PLAIN: ["trainer.augment.background.share=0"],
    AUGMENTED: [
        "trainer.augment.background={share: 0.6, music: 0.7, snr_db: [0, 20]}",
        f"trainer.augment.waveform={json.dumps(WAVEFORM)}",
    ],
}
SUPERVISED, IPL = "supervised", "ipl"
ARMS: Mapping[str, Sequence[str]] = {SUPERVISED: [NEVER], IPL: []}
GAINS = {
    "augment": (SUPERVISED + PLAIN, SUPERVISED + AUGMENTED),
    "ipl": (SUPERVISED + AUGMENTED, IPL + AUGMENTED),
    "ipl without augmentation": (SUPERVISED + PLAIN, IPL + PLAIN),
    "both": (SUPERVISED + PLAIN, IPL + AUGMENTED),
}
FIXED = ("run.cycles", "trainer.steps", "trainer.augment.background", "trainer.augment.waveform")
PARTS_OF_CLEAN = ("accents", "names")
LM, CLEAN, MUSIC = "lm", "clean", "music5"
Sets = Mapping[str, Sequence[Utterance]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/benchmarks/conditions"), help="finished cells"
    )
    parser.add_argument("--jobs", type=int, help="cells side by side; as many as there are cores by default")
    parser.add_argument("overrides", nargs="*", help="of the recipe, in every arm: dotted.key=value")
    options = parser.parse_args()
    if fixed := [o for o in options.overrides if o.startswith(FIXED)]:
        parser.error(f"{fixed[0]}: cycles, updates and what is done to the audio are set by the arms")
    work = options.work.absolute()
    sets = condition_sets(work / f"sets-{key()}")
    cache = FeatureCache(work / "features", read_config(RECIPE, options.overrides).features)
    if unread := cache.ensure([u for part in sets.values() for u in part], os.cpu_count() or 1):
        raise SystemExit(f"error: {unread}")
    cells: dict[tuple[str, int], Path] = {}
    for harder, how in HARDER.items():
        arms = {arm + harder: chosen for arm, chosen in ARMS.items()}
        comparison = Comparison(work, arms, [*COMMON, *how, *options.overrides], students=True)
        cells |= comparison.run(options.seeds, options.jobs)
    jobs = options.jobs or os.cpu_count()
    with ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)
    ) as workers:
        list(workers.map(partial(recognise, sets=sets, features=work / "features"), cells.values()))
    results = summarise(cells, options.seeds, sets)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def key() -> str:
    """Return what names the sets, and what is recognised of them: a hash of code and corpus."""
    code = code_hash([*CELL, "benchmarks.conditions"], [RECIPE])
    return hashlib.sha256(f"{code} {demo_corpus().hash}".encode()).hexdigest()[:12]


def heard(cell: Path) -> Path:
    """Return the folder of what a cell's student has recognised."""
    return cell / f"heard-{key()}"


def recognise(cell: Path, sets: Sets, features: Path) -> None:
    """Write what a cell's student makes of each set, those that are missing."""
    (entry,) = Pool(cell / "pool").entries()
    recogniser = load_entry(entry)
    cache = FeatureCache(features, recogniser.config.fbank)
    folder = heard(cell)
    folder.mkdir(exist_ok=True)
    for name, utterances in sets.items():
        if name not in PARTS_OF_CLEAN and not (file := folder / f"{name}.jsonl").exists():
            made = [recognise_set(recogniser, name, utterances, m, CHUNKING, cache) for m in METHODS]
            write_hypotheses(file, made)
    print(f"{cell.name}: recognised", flush=True)


def outcome(cell: Path, name: str, method: str, utterances: Sequence[Utterance]) -> Outcome:
    """Return what a cell's student made of a set, as it is scored."""
    of = CLEAN if name in PARTS_OF_CLEAN else name
    made = Hypotheses.read(heard(cell) / f"{of}.jsonl").of(of, method, [u.id for u in utterances])
    said = [u.with_text(without_fillers(u.text or "")) for u in utterances]
    return Outcome.of(
        name, method, said, [replace(one, text=without_fillers(one.text), words=()) for one in made]
    )


def summarise(cells: Mapping[tuple[str, int], Path], seeds: Sequence[int], sets: Sets) -> dict[str, Any]:
    """Return error rates, what each step saves with its interval, and the recall of names."""
    arms = list(dict.fromkeys(arm for arm, _ in cells))
    wer: dict[str, Any] = {arm: {method: {} for method in METHODS} for arm in arms}
    gains: dict[str, Any] = {what: {method: {} for method in METHODS} for what in GAINS}
    names: dict[str, Any] = {arm: {} for arm in arms}
    for method in METHODS:
        for name, utterances in sets.items():
            errors: dict[str, np.ndarray] = {}
            for arm in arms:
                made = [outcome(cells[arm, seed], name, method, utterances) for seed in seeds]
                counts = [[mixed_counts(row) for row in one.rows] for one in made]
                errors[arm] = np.array([[count.errors for count in one] for one in counts])
                said = sum(count.reference for count in counts[0])
                wer[arm][method][name] = [round(float(wrong.sum()) / said, 4) for wrong in errors[arm]]
                if name == "names":
                    names[arm][method] = _recall(made)
            for what, (before, after) in GAINS.items():
                gains[what][method][name] = _rounded(saved(errors[before], errors[after]))
    return {
        "seeds": list(seeds),
        "augment_music5_gain": gains["augment"][LM][MUSIC]["estimate"],
        "ipl_music5_gain": gains["ipl"][LM][MUSIC]["estimate"],
        "ipl_music5_low": gains["ipl"][LM][MUSIC]["low"],
        "clean_change": {what: gains[what][LM][CLEAN] for what in ("augment", "ipl")},
        "gains": gains,
        "wer": wer,
        "names": names,
        "sets": {name: len(utterances) for name, utterances in sets.items()},
        "code": key(),
    }


def saved(before: np.ndarray, after: np.ndarray) -> Interval:
    """Return the share of errors (S, N) that are no longer made, with its paired 95% interval."""
    columns = [pool_runs(before), pool_runs(before) - pool_runs(after)]

    def share(errors: np.ndarray, fewer: np.ndarray) -> np.ndarray:
        return np.divide(fewer, errors, out=np.full_like(errors, np.nan), where=errors > 0)

    return bootstrap(columns, share, draws=10_000, level=0.95, seed=0)


def _recall(made: Sequence[Outcome]) -> dict[str, float | None]:
    wanted = demo_corpus().open_names
    texts = [(row.reference, row.hypothesis) for one in made for row in one.rows]
    found: RareWords = rare_words([said for said, _ in texts], [heard for _, heard in texts], wanted)
    return {"said": found.said, "recall": found.recall, "precision": found.precision}


def _rounded(interval: Interval) -> dict[str, float]:
    return {part: round(getattr(interval, part), 4) for part in ("estimate", "low", "high")}


def as_table(results: Mapping[str, Any]) -> str:
    """Return a Markdown table a method: error rates in %, means over seeds, and what each step saves, in %."""
    arms = list(results["wer"])
    lines: list[str] = []
    for method in METHODS:
        heads = [method, *arms, *GAINS]
        lines += ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
        for name in results["sets"]:
            cells = [f"{100 * np.mean(results['wer'][arm][method][name]):.1f}" for arm in arms]
            for what in GAINS:
                gain = {
                    part: f"{100 * value:.0f}" for part, value in results["gains"][what][method][name].items()
                }
                cells.append(f"{gain['estimate']} ({gain['low']} to {gain['high']})")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
