"""The conventional recogniser that :mod:`benchmarks.weak` learns names from: PocketSphinx as its trade would have it.

Its n-gram and dictionary come from a text that names the words it may hear. Its acoustic model is adapted to the
labelled audio, as it is and with rooms, music and noise of the kinds that are in the demo corpus's unlabelled audio.
Its word posteriors, of which low ones say too little, are calibrated on dev.
"""

import hashlib
import json
import math
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.adapted_sphinx import adapt
from raysr.corpus.demo import demo_corpus
from raysr.corpus.disk import replacing
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.decode.calibration import Calibration
from raysr.decode.lexicon import FIRST_WORD
from raysr.decode.ngram import Ngram
from raysr.evaluate.calibration import JudgedWords, fit, right_words
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform
from raysr.teachers.pocketsphinx import PocketSphinx

COPIES = 4  # of the labelled audio, each in other surroundings, that the acoustic model is adapted to as well
FURTHER = {"priya": "P R IY AH", "yuki": "Y UW K IY"}  # names that the dictionary of the wheel lacks
SURE = 1e-4  # posteriors nearer to 0 or 1 than this are all alike
Floats = NDArray[np.float64]


class Remembering(PocketSphinx):
    """PocketSphinx that hears a recording once for all arms, seeds and cycles: it says the same every time."""

    class Config(PocketSphinx.Config):
        """``heard``: the folder for what it has said; ``calibration``: a file of :func:`write_teacher`'s."""

        heard: str
        calibration: str | None = None

    def __init__(self, config: Config, context: TeacherContext) -> None:
        super().__init__(config, context)
        self._heard = Path(config.heard) / self.version
        self._heard.mkdir(parents=True, exist_ok=True)
        self._calibration: Calibration | None = None
        if config.calibration:
            text = Path(config.calibration).read_text()
            self._calibration = Calibration.model_validate_json(text)
            self.version += "+" + hashlib.sha256(text.encode()).hexdigest()[:8]

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        outputs = [self._recalled(waveform) for waveform in waveforms]
        return [calibrated(output, self._calibration) for output in outputs] if self._calibration else outputs

    def _recalled(self, waveform: Waveform) -> TeacherOutput:
        path = self._heard / hashlib.sha256(waveform.tobytes()).hexdigest()
        if not path.exists():
            [output] = super().transcribe([waveform])
            with replacing(path) as file:
                pickle.dump(output, file)
        with path.open("rb") as file:
            output: TeacherOutput = pickle.load(file)
            return output


def write_teacher(folder: Path, text: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Write what the recogniser needs to hear ``text``; return its options, as it comes and adapted.

    A folder that has the parts already keeps them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted({word for sentence in text for word in sentence.split()})
    files = {"lm": folder / "names.arpa", "dictionary": folder / "names.dict"}
    write_arpa(files["lm"], text, words)
    files["dictionary"].write_text("".join(pronunciations(set(words))))
    options = {"heard": str(folder / "heard"), **{name: str(path) for name, path in files.items()}}
    hmm, calibration = folder / "hmm", folder / "calibration.json"
    if not hmm.exists():
        labelled = list(demo_corpus().labelled)
        adapt([*labelled, *(u for copy in range(COPIES) for u in in_other_surroundings(labelled, copy))], hmm)
    adapted = {**options, "hmm": str(hmm)}
    if not calibration.exists():
        with replacing(calibration) as file:
            file.write(calibrate(Remembering(Remembering.Config(**adapted), TeacherContext())).encode())
    return {"as it comes": options, "adapted": {**adapted, "calibration": str(calibration)}}


def in_other_surroundings(utterances: Sequence[Utterance], seed: int) -> Iterator[Utterance]:
    """Yield utterances in simulated rooms, with music or noise, or with both, drawn as for the demo corpus."""
    draws = random.Random(seed)
    for utterance in utterances:
        mix: dict[str, Any] = {"seed": draws.randrange(1 << 31)}
        kinds = draws.choice((("room",), ("music",), ("noise",), ("room", "music"), ("room", "noise"), ()))
        if "room" in kinds:
            distance, volume = draws.uniform(0.3, 1.5), draws.choice((30, 60, 120))
            mix["room"] = {"rt60": draws.uniform(0.15, 0.5), "distance": distance, "volume": volume}
        if "music" in kinds:
            mix["music"] = {"snr_db": draws.uniform(3, 20)}
        if "noise" in kinds:
            mix["noise"] = {
                "snr_db": draws.uniform(3, 20),
                "colour": draws.choice(("white", "pink", "brown")),
            }
        yield replace(utterance, mix=mix) if kinds else utterance


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
    """Yield lines of a dictionary for these words: PocketSphinx's own, and what it lacks of names."""
    from pocketsphinx import get_model_path

    with Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as file:
        yield from (line for line in file if line.split(maxsplit=1)[0].partition("(")[0] in words)
    yield from (f"{word} {phones}\n" for word, phones in FURTHER.items() if word in words)


def calibrate(teacher: Remembering) -> str:
    """Return the calibration of a teacher's word confidences on dev, as JSON."""
    evidence, right = [np.zeros((0, 4))], list[bool]()
    for part in demo_corpus().dev.values():
        for utterance in part:
            [output] = teacher.transcribe([load_waveform(utterance)])
            evidence.append(evidence_of(output))
            right += right_words(utterance.text or "", output.text.split())
    found = fit(JudgedWords(np.concatenate(evidence), np.array(right, dtype=bool)))
    if found is None:
        raise SystemExit(
            "error: hardly a word of dev was recognised, so that confidences cannot be calibrated"
        )
    return json.dumps(found.model_dump())


def calibrated(output: TeacherOutput, calibration: Calibration) -> TeacherOutput:
    """Return what was said with the probability of each word that it is right, and the logarithm of their mean."""
    c = calibration
    log_odds = evidence_of(output) @ np.array([c.agreement, c.acoustic, c.utterance, c.length]) + c.bias
    sure = 1 / (1 + np.exp(-log_odds))
    if not len(sure):
        return output
    return replace(output, confidences=tuple(map(float, sure)), normalised_score=math.log(float(sure.mean())))


def evidence_of(output: TeacherOutput) -> Floats:
    """Return what speaks for each of W words, (W, 4): its posterior, nothing, the mean of the others', its length.

    Posteriors are as log-odds. Columns are those of :class:`raysr.decode.calibration.Calibration`.
    """
    words = output.text.split()
    if not words:
        return np.zeros((0, 4))
    if len(output.confidences) != len(words):
        raise ValueError(f"{len(output.confidences)} confidences of {len(words)} words: {output.text!r}")
    posteriors = np.clip(np.array(output.confidences), SURE, 1 - SURE)
    odds = np.log(posteriors / (1 - posteriors))
    return np.column_stack(
        [odds, np.zeros(len(words)), np.full(len(words), odds.mean()), np.log([len(word) for word in words])]
    )
