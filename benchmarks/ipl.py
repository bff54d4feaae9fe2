"""What iterative pseudo-labelling is worth on the demo corpus: policies between two bounds, alike in the rest.

python -m benchmarks.ipl --seeds 1 2 3 --json results/ipl.json

Every arm is the demo's recipe with the same updates (more than in the demo, which has twelve minutes),
augmentation, language model and schedule, and goes on from the same first student, trained on the labelled audio:

control        never labels: each cycle trains on the labelled audio again
ipl            the recipe as it is: the newest student labels twice, and goes on learning
averaged       eight short cycles; the mean of the newest three labels, in each half of the utterances anew
ema            eight short cycles; a moving average over the students labels all of them
ema_of_four    the same with four cycles, each twice as long
noisy_student  every generation starts afresh, with more noise
no_filter      `ipl`, but it keeps every label that is not empty
oracle         trains on the hidden truth instead of labels

The best policy for a decoding is the one whose last students make the fewest errors on dev with it; the tests only
score it.
See :mod:`benchmarks.arms` for what is kept between calls.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arms import CELL, NEVER, RECIPE, Comparison, cycle_reports, dev_wer, scored_rows
from benchmarks.code import code_hash
from raysr.evaluate.bootstrap import Interval, recovery_interval

SHORT = ["run.cycles=9", "trainer.steps_by_cycle=[2000, 500]", "filter.3.keep=[0.6, 0.7, 0.75, 0.8, 0.85]"]
POLICIES: Mapping[str, Sequence[str]] = {
    "ipl": [],
    "averaged": [*SHORT, "builder={kind: average, newest: 3}", "selector.relabel=0.5"],
    "ema": [*SHORT, "builder={kind: ema, decay: 0.5}"],
    "ema_of_four": [
        "run.cycles=5",
        "trainer.steps_by_cycle=[2000, 1000]",
        "filter.3.keep=[0.6, 0.7, 0.8, 0.85]",
        "builder={kind: ema, decay: 0.5}",
    ],
    "noisy_student": [
        "initializer={kind: scratch}",
        "trainer.steps_by_cycle=[2000, 1000, 3000]",
        "from_cycle={1: {trainer: {augment: {background: {share: 0.5}, spec: {freq_masks: 1, time_masks: 1}}}}}",
    ],
}
ARMS: Mapping[str, Sequence[str]] = {
    "control": [NEVER],
    **POLICIES,
    "no_filter": ["filter=[{kind: empty}]"],
    "oracle": ["recogniser={kind: benchmarks.truth:Truth}", "filter=[{kind: empty}]"],
}
COMMON = ["trainer.steps_by_cycle=[2000, 2000, 2000]", "run.canary=0", "stop.enabled=false"]
METHODS = ("greedy", "lm")
SETS = ("clean", "music")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/ipl"), help="finished cells")
    parser.add_argument("--jobs", type=int, help="cells side by side; as many as there are cores by default")
    parser.add_argument("overrides", nargs="*", help="of the recipe, in every arm: dotted.key=value")
    options = parser.parse_args()
    if fixed := [o for o in options.overrides if o.startswith(("run.cycles", "trainer.steps"))]:
        parser.error(f"{fixed[0]}: cycles and updates are set by the arms, so that they stay equal")
    comparison = Comparison(options.work, ARMS, [*COMMON, *options.overrides])
    results = summarise(comparison.run(options.seeds, options.jobs), options.seeds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def summarise(cells: Mapping[tuple[str, int], Path], seeds: Sequence[int]) -> dict[str, Any]:
    """Return WER by arm, seed, method and set, and WRR pooled over seeds with its paired interval."""
    wer: dict[str, Any] = {}
    wrr: dict[str, Any] = {}
    for method in METHODS:
        for name in SETS:
            errors = {
                arm: np.array([_errors(cells[arm, seed], method, name) for seed in seeds]) for arm in ARMS
            }
            for arm, counts in errors.items():
                rates = counts[:, 0].sum(1) / counts[:, 1].sum(1)
                wer.setdefault(arm, {}).setdefault(method, {})[name] = [
                    round(float(rate), 4) for rate in rates
                ]
            for arm in (*POLICIES, "no_filter"):
                interval = recovery_interval(
                    errors["control"][:, 0], errors[arm][:, 0], errors["oracle"][:, 0]
                )
                wrr.setdefault(arm, {}).setdefault(method, {})[name] = _rounded(interval)
    reports = {name: cycle_reports(cell) for name, cell in cells.items()}
    dev = {
        method: {arm: float(np.mean([dev_wer(cells[arm, seed])[method] for seed in seeds])) for arm in ARMS}
        for method in METHODS
    }
    best = {method: min(POLICIES, key=dev[method].__getitem__) for method in METHODS}
    return {
        "seeds": list(seeds),
        "best_policy": best,
        "dev_wer": {m: {arm: round(wer, 4) for arm, wer in found.items()} for m, found in dev.items()},
        "wrr": {m: {s: wrr[best[m]][m][s]["estimate"] for s in SETS} for m in METHODS},
        "intervals": wrr,
        "wer": wer,
        "label_wer": {
            f"{arm}-{seed}": [cycle["label_wer"] for cycle in reports[arm, seed]]
            for arm in (*POLICIES, "no_filter")
            for seed in seeds
        },
        "code": code_hash(CELL, [RECIPE]),
    }


def _errors(cell: Path, method: str, name: str) -> tuple[list[int], list[int]]:
    """Return errors and reference words of every utterance, in the order of the ids."""
    rows = scored_rows(cell, method, name)
    return [r["errors"] for r in rows], [r["words"] for r in rows]


def _rounded(interval: Interval) -> dict[str, float | None]:
    """Return an interval for JSON; WRR is undefined, None, where the oracle is no better than the control."""
    values = {part: getattr(interval, part) for part in ("estimate", "low", "high")}
    return {part: round(value, 3) if np.isfinite(value) else None for part, value in values.items()}


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown: WER in %, mean over seeds, then WRR."""
    columns = [(method, name) for method in METHODS for name in SETS]
    lines = [
        "| arm | " + " | ".join([*(f"dev {m}" for m in METHODS), *(f"{m} {s}" for m, s in columns)]) + " |",
        "|---" * (len(METHODS) + len(columns) + 1) + "|",
    ]
    for arm in ARMS:
        means = [f"{100 * np.mean(results['wer'][arm][m][s]):.1f}" for m, s in columns]
        dev = [f"{100 * results['dev_wer'][m][arm]:.1f}" for m in METHODS]
        lines.append(f"| {arm} | " + " | ".join([*dev, *means]) + " |")
    for arm, found in results["intervals"].items():
        shown = [{part: _shown(value) for part, value in found[m][s].items()} for m, s in columns]
        cells = [f"{wrr['estimate']} ({wrr['low']}–{wrr['high']})" for wrr in shown]
        lines.append(f"| WRR {arm} |" + " – |" * len(METHODS) + " " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
