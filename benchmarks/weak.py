"""Weak distillation on the demo corpus: what a conventional teacher's names are worth to a student.

python -m benchmarks.weak --json results/weak.json

The labelled transcripts hold none of the open names, which are a twentieth of the words elsewhere. Both teachers get
the same text and the same list: the transcripts, and of every listed name a few sentences of theirs in which it takes
the place of a name of its kind. The list has the open names and over ten times as many that nobody says. The student
that labels itself reads the text as its language model, letter by letter, and so can write any word; the conventional
recogniser (PocketSphinx) gets a trigram of that text, with pronunciations from its own dictionary. Both have learned
from the labelled audio, with noise and music behind it (:mod:`benchmarks.adapted_sphinx` says what that needs). At test
every student has the language model of that text. All arms go on from the same first student, with the same updates:

control            never labels
self               the student labels
not adapted        PocketSphinx labels as it comes
conventional       PocketSphinx labels
rover of both      they vote word by word, by their confidences
surest of both     of each utterance the one whose words are surer
surest, then self  the same, but the second time the student labels alone
"""

import argparse
import hashlib
import json
import pickle
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.adapted_sphinx import adapt
from benchmarks.arms import NEVER, Comparison, cycle_reports, scored_rows
from benchmarks.code import ROOT
from raysr.corpus.demo import demo_corpus
from raysr.corpus.demo.words import KNOWN_NAMES, OPEN_NAMES
from raysr.corpus.disk import replacing
from raysr.corpus.utterance import Utterance
from raysr.decode.lexicon import FIRST_WORD
from raysr.decode.ngram import Ngram
from raysr.evaluate.rare_words import RareWords, rare_words
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform
from raysr.teachers.pocketsphinx import PocketSphinx

DISTRACTING: Mapping[str, Sequence[str]] = {
    kind: names.split()
    for kind, names in yaml.safe_load((ROOT / "benchmarks" / "names.yaml").read_text()).items()
}
SENTENCES = 3  # of the text, for each name of the list
NOISY_COPIES = 2  # of the labelled audio, that PocketSphinx is adapted to as well
COMMON = ["trainer.steps_by_cycle=[2000, 2000, 2000]", "run.canary=0", "stop.enabled=false"]
METHODS, SETS = ("greedy", "lm"), ("clean", "music", "engine")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/weak"), help="finished cells")
    parser.add_argument("--jobs", type=int, help="cells side by side; as many as there are cores by default")
    options = parser.parse_args()
    files = write_files(options.work.absolute())
    comparison = Comparison(
        options.work, arms(files), [*COMMON, f"lm.text={files['text']}"], list(files.values())
    )
    results = summarise(comparison.run(options.seeds, options.jobs), options.seeds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def arms(files: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return the arms: who labels in the two cycles that do, and how two become one."""
    sphinx = (
        f"kind: 'benchmarks.weak:Remembering', heard: {files['lm'].with_name('heard')}, "
        f"lm: {files['lm']}, dictionary: {files['dictionary']}"
    )

    def taught(hmm: Path | None = files["means"].parent, **more: int) -> str:
        teacher = f"{{{sphinx}, hmm: {hmm}}}" if hmm else f"{{{sphinx}}}"
        options = "".join(f", {name}: {value}" for name, value in more.items())
        return f"builder={{kind: external, teachers: [{teacher}]{options}}}"

    return {
        "control": [NEVER],
        "self": [],
        "not adapted": [taught(None)],
        "conventional": [taught()],
        "rover of both": [taught(join=1), "recogniser.vote={kind: rover, alpha: 0.3}"],
        "surest of both": [taught(join=1), "recogniser.vote=surest"],
        "surest, then self": [taught(join=1, until=2), "recogniser.vote=surest"],
    }


class Remembering(PocketSphinx):
    """PocketSphinx that hears a recording once for all arms, seeds and cycles: it says the same every time."""

    class Config(PocketSphinx.Config):
        """``heard``: the folder for what it has said."""

        heard: str

    def __init__(self, config: Config, context: TeacherContext) -> None:
        super().__init__(config, context)
        self._heard = Path(config.heard) / self.version
        self._heard.mkdir(parents=True, exist_ok=True)

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return [self._recalled(waveform) for waveform in waveforms]

    def _recalled(self, waveform: Waveform) -> TeacherOutput:
        path = self._heard / hashlib.sha256(waveform.tobytes()).hexdigest()
        if not path.exists():
            [output] = super().transcribe([waveform])
            with replacing(path) as file:
                pickle.dump(output, file)
        with path.open("rb") as file:
            output: TeacherOutput = pickle.load(file)
            return output


def write_files(folder: Path) -> dict[str, Path]:
    """Write the text that both teachers read, and PocketSphinx's: a trigram, a dictionary and an acoustic model."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "text": folder / "names.txt",
        "lm": folder / "names.arpa",
        "dictionary": folder / "names.dict",
        "means": folder / "hmm" / "means",
    }
    transcribed = list(demo_corpus().labelled)
    if not files["means"].exists():
        copies = [u for copy in range(NOISY_COPIES) for u in with_backgrounds(transcribed, copy)]
        adapt([*transcribed, *copies], files["means"].parent)
    labelled = [u.text or "" for u in transcribed]
    text = [*labelled, *with_names(labelled)]
    files["text"].write_text("\n".join(text) + "\n")
    words = sorted({word for sentence in text for word in sentence.split()})
    write_arpa(files["lm"], text, words)
    files["dictionary"].write_text("".join(pronunciations(set(words))))
    return files


def with_backgrounds(utterances: Sequence[Utterance], seed: int) -> Iterator[Utterance]:
    """Yield utterances with music or noise behind them, as often and as loud as in the student's augmentation."""
    draws = random.Random(seed)
    for utterance in utterances:
        snr_db = draws.uniform(3, 20)
        colour = draws.choice(("white", "pink", "brown"))
        music = draws.random() < 0.6
        part = {"music": {"snr_db": snr_db}} if music else {"noise": {"snr_db": snr_db, "colour": colour}}
        yield replace(utterance, mix={"seed": draws.randrange(1 << 31), **part})


def with_names(labelled: Sequence[str]) -> Iterator[str]:
    """Yield labelled sentences in which a listed name takes the place of a name of its kind."""
    draws = random.Random(0)
    for kind, known in KNOWN_NAMES.items():
        holding = [(s, name) for s in labelled for name in known if name in s.split()]
        for name in [*OPEN_NAMES[kind], *DISTRACTING[kind]]:
            for sentence, said in draws.sample(holding, SENTENCES):
                yield " ".join(name if word == said else word for word in sentence.split())


def write_arpa(path: Path, text: Sequence[str], words: Sequence[str]) -> None:
    """Write a trigram of words."""
    ids = {word: number for number, word in enumerate(words, FIRST_WORD)}
    model = Ngram.train([[ids[w] for w in s.split()] for s in text], 3, len(ids) + FIRST_WORD)
    model.save(path)
    spelled = {str(number): word for word, number in ids.items()}
    lines = []
    for line in path.read_text().splitlines():
        prob, tab, rest = line.partition("\t")
        gram, second, backoff = rest.partition("\t")
        lines.append(prob + tab + " ".join(spelled.get(w, w) for w in gram.split(" ")) + second + backoff)
    path.write_text("\n".join(lines) + "\n")


def pronunciations(words: set[str]) -> Iterator[str]:
    """Yield the lines of PocketSphinx's own dictionary for these words; what it lacks it cannot say."""
    from pocketsphinx import get_model_path

    with Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as file:
        yield from (line for line in file if line.split(maxsplit=1)[0].partition("(")[0] in words)


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
