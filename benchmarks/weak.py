"""Weak distillation on the demo corpus: what a conventional teacher's names are worth to a student.

python -m benchmarks.weak --json results/weak.json

The labelled transcripts hold none of the open names, which are a twentieth of the words elsewhere. Both teachers get
the same text and the same list: the transcripts, and of every listed name a few sentences of theirs in which it takes
the place of a name of its kind. The list has the open names and over ten times as many that nobody says. The student
that labels itself reads the text as its language model, letter by letter, and so can write any word; the conventional
recogniser (PocketSphinx, :mod:`benchmarks.conventional`) gets a trigram of that text, with pronunciations from its own
dictionary. But for the arm that takes it as it comes, both have learned from the labelled audio and know from dev what
their confidences are worth. At test every student has the language model of that text. All arms go on from the same
first student, with the same updates:

control            never labels
self               the student labels
not adapted        PocketSphinx labels as it comes
conventional       PocketSphinx labels
surest of both     of each utterance the one whose words are surer
rover of both      they vote word by word, by their confidences and a little by their order
self, new words    the student labels; labels with words that no transcript has count `WEIGHT` times
rover, new words   the same of the vote
oracle             the hidden truth: what labels can teach at all in these updates
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field

from benchmarks.arms import NEVER, Comparison, cycle_reports, scored_rows
from benchmarks.code import ROOT, code_hash
from benchmarks.conventional import write_teacher
from raysr.config import Config as Options
from raysr.corpus.demo import demo_corpus
from raysr.corpus.demo.words import KNOWN_NAMES, OPEN_NAMES
from raysr.corpus.utterance import Utterance
from raysr.evaluate.rare_words import RareWords, rare_words
from raysr.ipl.context import CycleContext

DISTRACTING: Mapping[str, Sequence[str]] = {
    kind: names.split()
    for kind, names in yaml.safe_load((ROOT / "benchmarks" / "names.yaml").read_text()).items()
}
SENTENCES = 3  # of the text, for each name of the list
WEIGHT = 4.0  # of a label with a new word
COMMON = ["trainer.steps_by_cycle=[2000, 2000, 2000]", "run.canary=0", "stop.enabled=false"]
METHODS, SETS = ("greedy", "lm"), ("clean", "music", "engine")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="some of the arms")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/weak"), help="finished cells")
    parser.add_argument("--jobs", type=int, help="cells side by side; as many as there are cores by default")
    options = parser.parse_args()
    work, text = options.work.absolute(), text_with_names()
    # a teacher of other code or of another text is another one, and so are the cells that name its folder
    made_of = "\n".join([code_hash(["benchmarks.conventional"]), *text])
    teacher = write_teacher(work / f"teacher-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}", text)
    names = work / "names.txt"
    names.write_text("\n".join(text) + "\n")
    chosen = {name: how for name, how in arms(teacher).items() if not options.only or name in options.only}
    if not chosen:
        raise SystemExit(f"error: --only knows {', '.join(arms(teacher))}")
    comparison = Comparison(work, chosen, [*COMMON, f"lm.text={names}"], [names])
    results = summarise(comparison.run(options.seeds, options.jobs), options.seeds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def arms(teacher: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the arms: who labels in the two cycles that do, and how two become one."""

    def taught(which: str = "adapted", **more: int) -> str:
        options = {"kind": "benchmarks.conventional:Remembering", **teacher[which]}
        return f"builder={json.dumps({'kind': 'external', 'teachers': [options], **more})}"

    rover = [taught(join=1), "recogniser.vote={kind: rover, alpha: 0.5}"]
    new_words = "batcher.weight={kind: 'benchmarks.weak:NewWords'}"
    return {
        "control": [NEVER],
        "self": [],
        "not adapted": [taught("as it comes")],
        "conventional": [taught()],
        "surest of both": [taught(join=1), "recogniser.vote=surest"],
        "rover of both": rover,
        "self, new words": [new_words],
        "rover, new words": [*rover, new_words],
        "oracle": ["recogniser={kind: benchmarks.truth:Truth}", "filter=[{kind: empty}]"],
    }


class NewWords:
    """Weighs labels that have a word which no transcript of the labelled audio has."""

    class Config(Options):
        """``weight``: of such a label; others weigh 1."""

        weight: float = Field(default=WEIGHT, gt=0)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.weight = config.weight
        self.known = {word for u in context.labelled or () for word in (u.text or "").split()}

    def __call__(self, kept: Sequence[Utterance]) -> list[float]:
        return [1.0 if self.known.issuperset((u.text or "").split()) else self.weight for u in kept]


def text_with_names() -> list[str]:
    """Return the text that both teachers read."""
    labelled = [u.text or "" for u in demo_corpus().labelled]
    return [*labelled, *with_names(labelled)]


def with_names(labelled: Sequence[str]) -> Iterator[str]:
    """Yield labelled sentences in which a listed name takes the place of a name of its kind."""
    draws = random.Random(0)
    for kind, known in KNOWN_NAMES.items():
        holding = [(s, name) for s in labelled for name in known if name in s.split()]
        for name in [*OPEN_NAMES[kind], *DISTRACTING[kind]]:
            for sentence, said in draws.sample(holding, SENTENCES):
                yield " ".join(name if word == said else word for word in sentence.split())


def summarise(cells: Mapping[tuple[str, int], Path], seeds: Sequence[int]) -> dict[str, Any]:
    """Return WER, and recall of the open names over all sets, by arm and method, pooled over seeds."""
    wanted = demo_corpus().open_names
    found: dict[str, Any] = {}
    for arm in dict.fromkeys(name for name, _ in cells):
        by_method = {}
        for method in METHODS:
            rows = {name: [scored_rows(cells[arm, seed], method, name) for seed in seeds] for name in SETS}
            counts = [
                sum((counted(part[run], wanted) for part in rows.values()), RareWords())
                for run in range(len(seeds))
            ]
            total = sum(counts, RareWords())
            by_method[method] = {
                "wer": {name: [_wer(run) for run in runs] for name, runs in rows.items()},
                "rare_word_recall": round(total.recall or 0.0, 4),
                "recall_by_seed": [round(c.recall or 0.0, 4) for c in counts],
                "rare_word_precision": round(total.precision or 0.0, 4),
                "other_wer": round(total.other_wer or 0.0, 4),
                "names": total.said,
            }
        labels = [[cycle["label_wer"] for cycle in cycle_reports(cells[arm, seed])] for seed in seeds]
        found[arm] = {**by_method, "label_wer": labels}
    return {"seeds": list(seeds), "listed": _listed(), "arms": found}


def counted(rows: Sequence[Mapping[str, Any]], wanted: frozenset[str]) -> RareWords:
    """Count the wanted words of scored rows."""
    return rare_words([r["reference"] for r in rows], [r["hypothesis"] for r in rows], wanted)


def _wer(rows: Sequence[Mapping[str, Any]]) -> float:
    return round(sum(r["errors"] for r in rows) / sum(r["words"] for r in rows), 4)


def _listed() -> dict[str, int]:
    return {
        "open": sum(map(len, OPEN_NAMES.values())),
        "distracting": sum(map(len, DISTRACTING.values())),
    }


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown: in %, mean over seeds."""
    columns = [(method, name) for method in METHODS for name in SETS]
    heads = [f"{method} {name}" for method, name in columns]
    heads += [f"{what}, {method}" for method in METHODS for what in ("recall", "precision")]
    lines = ["| arm | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for arm, found in results["arms"].items():
        cells = [100 * np.mean(found[method]["wer"][name]) for method, name in columns]
        cells += [
            100 * found[method][key]
            for method in METHODS
            for key in ("rare_word_recall", "rare_word_precision")
        ]
        lines.append(f"| {arm} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
