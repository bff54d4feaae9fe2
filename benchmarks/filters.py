"""How well each quantity tells good labels from bad ones, over the labels of finished runs whose truth is known.

python -m benchmarks.filters runs/a runs/b --json results/filters.json

A good label has at most `--good` percent word errors. Labels of all runs are ranked by one quantity after the other:
the length-normalised score, the agreement of the CTC and attention heads (of teachers that decode with both:
`decode.method: rescore`), confidences, and what else the teachers gave. `area` is that under the ROC curve. Precision,
recall and label WER are told at equal shares kept: at `--shares`, and at those that agreement of the heads keeps when
at most so many percent of the words may be in dispute. Labels of one value that lie on the edge count in part, as if
drawn at random; one without the quantity is ranked last. Cycles are told apart, since labels get better; the runs of a
cycle are pooled, each ranked by itself. Intervals are 95%, paired, over utterances.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysr.config import read_yaml
from raysr.evaluate.reliability import area
from raysr.evaluate.wer import score
from raysr.ipl.canary import Judged, read_canary
from raysr.ipl.config import RunConfig
from raysr.ipl.corpora import open_corpora
from raysr.ipl.earlier import Earlier
from raysr.ipl.filters.quantities import QUANTITIES

Floats = NDArray[np.float64]
SHARES = (0.3, 0.5, 0.7, 0.9)
DISPUTED = (0.0, 10.0, 20.0, 40.0)  # percent of the words, at most
DRAWS = 1000


@dataclass(frozen=True)
class Labels:
    """The labels of one cycle of one run: word errors and reference words (N,), and each quantity (N,), NaN unknown."""

    errors: Floats
    words: Floats
    values: Mapping[str, Floats]

    @classmethod
    def of(cls, judged: Sequence[Judged]) -> "Labels":
        rows = [j for j in judged if j.prediction.label is not None]
        texts = [j.prediction.label.text for j in rows if j.prediction.label]
        scored = score([j.prediction.id for j in rows], [j.reference for j in rows], texts)
        found = {name: [measure(j.prediction) for j in rows] for name, measure in QUANTITIES.items()}
        return cls(
            np.array([s.words.errors for s in scored], np.float64),
            np.array([s.words.reference for s in scored], np.float64),
            {name: np.array(v, np.float64) for name, v in found.items() if any(x is not None for x in v)},
        )

    def good(self, limit: float) -> NDArray[np.bool_]:
        """Return which labels have at most ``limit`` percent word errors."""
        return 100 * self.errors <= limit * self.words

    def take(self, chosen: NDArray[np.intp]) -> "Labels":
        values = {name: v[chosen] for name, v in self.values.items()}
        return Labels(self.errors[chosen], self.words[chosen], values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, by one recipe")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--good", type=float, default=10.0, help="WER in percent up to which a label is good")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="kept, each above 0")
    parser.add_argument("--canary", action="store_true", help="judge by the canary and not by the truth")
    options = parser.parse_args()
    results = compare(read_runs(options.runs, options.canary), options.good, options.shares)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def read_runs(folders: Iterable[Path], canary: bool) -> dict[int, list[Labels]]:
    """Return the labels of every cycle, of one run after the other."""
    cycles: dict[int, list[Labels]] = {}
    for folder in folders:
        config = RunConfig.parse(read_yaml(folder / "config.yaml"), str(folder / "config.yaml"))
        truth = open_corpora(config.data).truth or {}
        earlier = Earlier(folder / "cycles", config.run.cycles)
        for cycle in earlier.cycles():
            known = [Judged(p, truth[p.id]) for p in earlier.predictions(cycle) if p.id in truth]
            canary_folder = folder / "cycles" / f"{cycle:03d}" / "canary"
            judged = read_canary(canary_folder, config.at(cycle).vote) if canary else known
            if judged:
                cycles.setdefault(cycle, []).append(Labels.of(judged))
    if not cycles:
        raise SystemExit(
            "error: no label here has a known truth: runs over the demo corpus or with data.truth do, or --canary"
        )
    return dict(sorted(cycles.items()))


def compare(cycles: Mapping[int, Sequence[Labels]], good: float, shares: Sequence[float]) -> dict[str, Any]:
    """Return what every quantity is worth in every cycle."""
    return {
        "good_wer": good,
        "cycles": {str(c): compare_cycle(runs, good, shares) for c, runs in cycles.items()},
    }


def compare_cycle(runs: Sequence[Labels], good: float, shares: Sequence[float]) -> dict[str, Any]:
    """Return what every quantity that all runs have is worth."""
    names = [name for name in QUANTITIES if all(name in run.values for run in runs)]
    chosen = {f"{share:g}": [share] * len(runs) for share in shares}
    if "heads" in names:
        for limit in DISPUTED:
            kept = [float((run.values["heads"] >= 1 - limit / 100 - 1e-9).mean()) for run in runs]
            chosen[f"heads within {limit:g}%"] = kept
    return {
        "labels": sum(len(run.errors) for run in runs),
        "good": float(np.mean(np.concatenate([run.good(good) for run in runs]))),
        "label_wer": float(sum(r.errors.sum() for r in runs) / sum(r.words.sum() for r in runs)),
        "quantities": {
            name: {
                "known": float(np.mean(np.concatenate([np.isfinite(run.values[name]) for run in runs]))),
                "area": mean_area(runs, name, good),
                "curve": [
                    kept_at(runs, name, good, [s] * len(runs)) for s in np.linspace(0.05, 1, 20).tolist()
                ],
                "at": {title: kept_at(runs, name, good, of) for title, of in chosen.items()},
            }
            for name in names
        },
        "area_over_score": {
            name: area_difference(runs, name, "score", good)
            for name in names
            if name != "score" and "score" in names
        },
    }


def mean_area(runs: Sequence[Labels], name: str, good: float) -> float:
    """Return the mean over runs of the area under the ROC curve of "good"."""
    return float(np.mean([area(ranked(run.values[name]), run.good(good)) for run in runs]))


def area_difference(runs: Sequence[Labels], name: str, other: str, good: float) -> list[float]:
    """Return the difference of two areas, and its paired bootstrap interval over utterances."""

    def difference(of: Sequence[Labels]) -> float:
        return mean_area(of, name, good) - mean_area(of, other, good)

    generator = np.random.default_rng(0)
    drawn = [
        difference([run.take(generator.integers(0, len(run.errors), len(run.errors))) for run in runs])
        for _ in range(DRAWS)
    ]
    return [round(float(x), 4) for x in (difference(runs), *np.quantile(drawn, [0.025, 0.975]))]


def kept_at(
    runs: Sequence[Labels], name: str, good: float, shares: Sequence[float]
) -> dict[str, float | None]:
    """Return precision and recall of "kept" as "good", and the WER of what is kept, with such a share of each run."""
    hits = errors = words = kept = right = 0.0
    for run, share in zip(runs, shares, strict=True):
        weight = weights(ranked(run.values[name]), share)
        is_good = run.good(good)
        kept, right = kept + weight.sum(), right + is_good.sum()
        hits += weight @ is_good
        errors, words = errors + weight @ run.errors, words + weight @ run.words
    total = sum(len(run.errors) for run in runs)
    return {
        "kept": round(float(kept / total), 4),
        "precision": round(float(hits / kept), 4) if kept else None,
        "recall": round(float(hits / right), 4) if right else None,
        "label_wer": round(float(errors / words), 4) if words else None,
    }


def weights(values: Floats, share: float) -> Floats:
    """Return how much of each label is kept (N,), in [0, 1], when the best ``share`` of them are."""
    left = share * len(values)
    weight = np.zeros(len(values))
    for value in np.unique(values)[::-1]:
        equal = values == value
        weight[equal] = min(1.0, left / equal.sum())
        left -= weight[equal].sum()
        if left <= 1e-9:
            break
    return weight


def ranked(values: Floats) -> Floats:
    """Return values in which unknown is the least."""
    return np.nan_to_num(values, nan=-1e9)


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = []
    for cycle, told in results["cycles"].items():
        titles = list(next(iter(told["quantities"].values()))["at"])
        lines += [
            f"cycle {cycle}: {told['labels']} labels, {told['good']:.1%} of them good "
            f"({results['good_wer']:g}% WER or less), label WER {told['label_wer']:.1%}",
            "",
            "| ranked by | ROC area | " + " | ".join(f"keep {title}" for title in titles) + " |",
            "|---" * (len(titles) + 2) + "|",
        ]
        for name, worth in told["quantities"].items():
            cells = [_cell(worth["at"][title]) for title in titles]
            lines.append(f"| {name} | {worth['area']:.3f} | " + " | ".join(cells) + " |")
        for name, (estimate, low, high) in told["area_over_score"].items():
            lines.append(f"area of {name} over that of score: {estimate:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append("")
    return "\n".join([*lines, "Cells: precision / recall / label WER."])


def _cell(worth: Mapping[str, float | None]) -> str:
    shown = [
        "–" if worth[k] is None else f"{100 * worth[k]:.1f}" for k in ("precision", "recall", "label_wer")
    ]
    return f"{' / '.join(shown)} ({100 * (worth['kept'] or 0):.0f}%)"


if __name__ == "__main__":
    main()
