"""How far word confidences can be believed, before and after calibration, on the demo corpus.

python -m benchmarks.confidence --json results/confidence.json --plot results/confidence.svg

A pool entry, or the last student of the demo's recipe trained without Ray, recognises the test sets with its own
decoding, twice: whole, as its calibration was fitted, and as a stream in chunks. Before: the geometric mean of the CTC
posteriors of a word's tokens. After: the entry's calibration, or, of an entry that has none, one fitted on the dev set.
Right are the words that the alignment behind the word error rate matches. *Utterance* is the mean difference between an
utterance's confidence and its share of right words. `--plot` draws the reliability diagram.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from benchmarks.arms import WITHOUT_RAY, Comparison, run_recipe
from raysr.cli.common import pick_entry
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.calibration import Calibration
from raysr.decode.events import Final
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.recognise import recognise, recognise_masked
from raysr.decode.words import best_words
from raysr.evaluate.calibration import fit, judge, right_words
from raysr.evaluate.plots import reliability_diagram
from raysr.evaluate.reliability import Reliability, reliability
from raysr.model.chunking import CHUNKING
from raysr.pool import Recogniser, load_entry

Nbest = Sequence[Hypothesis]
GREY = "#7f7f7f"  # readable on a page of either colour


@dataclass(frozen=True)
class Measured:
    """What the confidences of words are worth, and how far those of utterances are from their share of right words."""

    words: Reliability
    utterance_error: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--pool", type=Path, help="a model pool; without one the demo's recipe is trained")
    parser.add_argument("--model", default="latest", help="an entry by name, `latest` or `best`")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/confidence"), help="kept files")
    parser.add_argument("--plot", type=Path, help="an SVG of the reliability diagram")
    options = parser.parse_args()
    entry = pick_entry(options.pool or trained_pool(options.work), options.model)
    recogniser = load_entry(entry)
    cache = FeatureCache(options.work / "features", recogniser.config.fbank)
    corpus = demo_corpus()
    calibration = recogniser.config.decode.calibration or fitted(
        recogniser, list(chain.from_iterable(corpus.dev.values())), cache
    )
    sets = {name: list(corpus.tests[test]) for test in corpus.tests for name in (test, f"{test}, in chunks")}
    measured = {}
    for name, utterances in sets.items():
        cache.ensure(utterances)
        found = segments(recogniser, utterances, cache, in_chunks=name.endswith("in chunks"))
        measured[name] = measure(recogniser, [u.text or "" for u in utterances], found, calibration)
    results = {
        "entry": entry.name,
        "calibration": calibration.dump(),
        "sets": {name: {when: asdict(r) for when, r in both.items()} for name, both in measured.items()},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        options.plot.write_text(diagram(measured).replace("currentColor", GREY) + "\n", encoding="utf-8")
    print(as_table(measured))


def trained_pool(work: Path) -> Path:
    """Return the pool of the demo's recipe, carried out in this process if it has not been."""
    folder = work / f"demo-{Comparison(work, {}).key(WITHOUT_RAY)}"
    run_recipe(work, folder, WITHOUT_RAY)
    return folder / "pool"


def fitted(recogniser: Recogniser, dev: Sequence[Utterance], cache: FeatureCache) -> Calibration:
    """Return a calibration fitted on the dev set."""
    cache.ensure(dev)
    nbest = [segment for parts in segments(recogniser, dev, cache, in_chunks=False) for segment in parts]
    calibration = fit(judge(recogniser.tokeniser, nbest, [u.text or "" for u in dev]))
    if calibration is None:
        raise SystemExit(
            "error: the model recognises too few words of the dev set to calibrate it; train it longer"
        )
    return calibration


def segments(
    recogniser: Recogniser, utterances: Sequence[Utterance], cache: FeatureCache, in_chunks: bool
) -> list[list[Nbest]]:
    """Return the n-best lists of the segments of every utterance; heard whole, it is one segment."""
    r, features = recogniser, [cache.get(u) for u in utterances]
    if not in_chunks:
        return [[nbest] for nbest in recognise(r.model, r.tokeniser, features, r.config.decode, r.lm)]
    events = (recognise_masked(r.model, r.tokeniser, r.lm, f, *CHUNKING, r.config.decode) for f in features)
    return [[event.nbest for event in found if isinstance(event, Final)] for found in events]


def measure(
    recogniser: Recogniser,
    references: Sequence[str],
    found: Iterable[Sequence[Nbest]],
    calibration: Calibration,
) -> dict[str, Measured]:
    """Return what the confidences are worth before and after calibration."""
    right: list[list[bool]] = []
    confidences: dict[str, list[list[float]]] = {"before": [], "after": []}
    for reference, parts in zip(references, found, strict=True):
        for when, used in (("before", None), ("after", calibration)):
            words = [w for nbest in parts for w in best_words(recogniser.tokeniser, nbest, 1.0, 0.0, used)]
            confidences[when].append([word.confidence for word in words])
        right.append(right_words(reference, [word.text for word in words]))
    return {
        when: Measured(
            reliability(list(chain.from_iterable(values)), list(chain.from_iterable(right))),
            float(np.mean([abs(np.mean(c) - np.mean(r)) for c, r in zip(values, right, strict=True) if r])),
        )
        for when, values in confidences.items()
    }


def diagram(measured: Mapping[str, Mapping[str, Measured]]) -> str:
    """Return an SVG of the sets heard whole, before and after."""
    series = {
        f"{name}, {when}": [(b.confidence, b.right) for b in m.words.bins]
        for name, both in measured.items()
        if not name.endswith("in chunks")
        for when, m in both.items()
    }
    return reliability_diagram("confidence", series)


def as_table(measured: Mapping[str, Mapping[str, Measured]]) -> str:
    """Return all sets as Markdown."""
    lines = [
        "| set | words right | | calibration error | Brier | NCE | AUC | utterance |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name, both in measured.items():
        for when, m in both.items():
            r = m.words
            values = [r.calibration_error, r.brier, r.cross_entropy, r.area, m.utterance_error]
            cells = [name, f"{100 * r.right:.1f}%", when, *(f"{value:.3f}" for value in values)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
