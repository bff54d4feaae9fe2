"""A conventional recogniser as teacher: PocketSphinx, an HMM with a pronunciation dictionary and an n-gram.

The wheel carries an American English model. Its word posteriors (``Segment.prob``) rank utterances well on
clean speech and say nothing at 0 dB of music.
"""

import hashlib
import logging
import math
import re
import tempfile
import threading
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform, one_by_one
from raysr.teachers.pronunciations import Pronunciations, check_arpa, missing_words, words_of_lm
from raysr.teachers.scores import confidences_of
from raysr.text.normalise import normalise

log = logging.getLogger(__name__)

SHORTEST = 1600  # samples: under a tenth of a second there is no word
FLOOR = 1e-30
FILLERS = ("<", "[", "++")
_ALTERNATE = re.compile(r"(?<=.)\(\d+\)$")
_STRESS = re.compile(r"(?<=[A-Z])[012]$")


class PocketSphinx:
    """PocketSphinx with its own model, or with a user's parts."""

    class Config(Options):
        """Whose parts it decodes with, and how.

        Attributes:
            hmm: folder of an acoustic model; None is the wheel's, American English, as for the next two.
            dictionary: pronunciations in the form of the CMU's; words that it lacks cannot be recognised.
            lm: a language model in ARPA form (also .gz), or one of PocketSphinx's binary forms.
            words: further pronunciations, such as of names; those that the language model lacks join it.
            words_weight: what such a word is worth: the probability of an average word, so many times.
            language_weight, word_insertion_penalty: of the search, as PocketSphinx's ``lw`` and ``wip``.
            beam: probability of the least likely state that is followed, relative to the best; None for its own.
            nbest: transcripts that are kept.
        """

        hmm: str | None = None
        dictionary: str | None = None
        lm: str | None = None
        words: str | None = None
        words_weight: float = Field(default=1.0, gt=0)
        language_weight: float | None = Field(default=None, gt=0)
        word_insertion_penalty: float | None = Field(default=None, gt=0)
        beam: float | None = Field(default=None, gt=0, lt=1)
        nbest: int = Field(default=1, ge=1)

    name = "pocketsphinx"

    def __init__(self, config: Config, context: TeacherContext) -> None:
        try:
            import pocketsphinx
        except ModuleNotFoundError:
            raise ConfigError(
                "teacher 'pocketsphinx' needs its package: pip install 'raysr[teachers]'"
            ) from None
        self.config = config
        self._sphinx: Any = pocketsphinx
        self._lm = _place(config.lm or pocketsphinx.get_model_path("en-us/en-us.lm.bin"))
        lm_words = words_of_lm(self._lm) if config.lm or config.words else None
        self._decoder, added = self._load(lm_words)
        self._use_lm(lm_words, added)
        # a decoder is one search: threads take turns
        self._lock = threading.Lock()
        own = [_place(path) for path in (config.hmm, config.dictionary, config.lm, config.words) if path]
        self.version = "+".join([metadata.version("pocketsphinx"), *map(_hash, own)])

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        with self._lock:
            return one_by_one(self._recognise, waveforms)

    def _load(self, lm_words: Sequence[str] | None) -> tuple[Any, list[str]]:
        """Return a decoder with its dictionary and no language model yet, and the words added to it."""
        c = self.config
        if not (c.dictionary or c.words or c.lm):
            return self._new(), []
        phones, pronunciations = _Phones(self._new), Pronunciations()
        pronunciations.read(
            _place(c.dictionary or self._sphinx.get_model_path("en-us/cmudict-en-us.dict")), phones
        )
        added = pronunciations.read(_place(c.words), phones) if c.words else []
        if c.lm and lm_words is not None:
            _report_missing(c.lm, lm_words, pronunciations)
        with tempfile.NamedTemporaryFile("w", suffix=".dict", encoding="utf-8") as file:
            file.writelines(pronunciations.lines())
            file.flush()
            return self._new(dict=file.name), added

    def _new(self, **more: Any) -> Any:
        c = self.config
        options = {
            "hmm": str(_place(c.hmm)) if c.hmm else None,
            "lw": c.language_weight,
            "wip": c.word_insertion_penalty,
            "beam": c.beam,
            **more,
        }
        given = {name: value for name, value in options.items() if value is not None}
        try:
            return self._sphinx.Decoder(samprate=16000, loglevel="FATAL", lm=None, **given)
        except (RuntimeError, ValueError) as error:
            what = f"the acoustic model {c.hmm}" if c.hmm else "its model"
            raise ConfigError(f"teacher 'pocketsphinx': {what} cannot be loaded ({error})") from None

    def _use_lm(self, lm_words: Sequence[str] | None, added: Sequence[str]) -> None:
        try:
            lm = self._sphinx.NGramModel(
                self._decoder.get_config(), self._decoder.get_logmath(), str(self._lm)
            )
        except ValueError:
            if lm_words is not None:
                check_arpa(self._lm)
            raise ConfigError(f"{self._lm}: PocketSphinx cannot read this language model") from None
        if added and lm_words is None:
            raise ConfigError(
                f"{self._lm}: its words cannot be listed; give an ARPA file where words join it"
            )
        known = {word.lower() for word in lm_words or ()}
        for word in added:
            if word.lower() not in known:  # adding one that is there would damage the model
                lm.add_word(word, self.config.words_weight)
        self._decoder.add_lm("main", lm)
        self._decoder.activate_search("main")

    def _recognise(self, waveform: Waveform) -> TeacherOutput:
        if len(waveform) < SHORTEST:
            return TeacherOutput()
        decoder = self._decoder
        decoder.reinit_feat()  # its front end remembers: without this the result depends on what came before
        decoder.start_utt()
        decoder.process_raw((np.clip(waveform, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        if best is None:
            return TeacherOutput()
        text = normalise(best.hypstr)
        words = [
            (_ALTERNATE.sub("", s.word), min(1.0, float(s.prob)))
            for s in decoder.seg()
            if not s.word.startswith(FILLERS)
        ]
        mean = sum(p for _, p in words) / max(1, len(words))
        return TeacherOutput(
            text=text,
            score=math.log(max(best.score, FLOOR)),
            normalised_score=math.log(max(mean, FLOOR)),
            confidences=confidences_of(text, words) or tuple(p for _, p in words),
            nbest=self._nbest(),
        )

    def _nbest(self) -> tuple[tuple[str, float], ...]:
        if self.config.nbest == 1:
            return ()
        found = zip(self._decoder.nbest(), range(self.config.nbest), strict=False)
        return tuple((normalise(h.hypstr), math.log(max(h.score, FLOOR))) for h, _ in found if h is not None)


class _Phones:
    """Which phones an acoustic model has: asked by a word of each, since it does not list them."""

    def __init__(self, new: Any) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".dict") as empty:
            self._decoder = new(dict=empty.name)
        self._known: dict[str, str | None] = {}

    def __call__(self, phone: str) -> str | None:
        """Return the model's name of a phone; the CMU's have a digit for stress where most models have none."""
        if phone not in self._known:
            names = (phone, _STRESS.sub("", phone))
            self._known[phone] = next((name for name in names if self._has(name)), None)
        return self._known[phone]

    def _has(self, phone: str) -> bool:
        try:
            self._decoder.add_word(f"phone {len(self._known)} {phone}", phone, False)
        except RuntimeError:
            return False
        return True


def _report_missing(lm: str, words: Sequence[str], known: Pronunciations) -> None:
    count, first = missing_words(words, known)
    if not count:
        return
    listed = ", ".join(first) + (", …" if count > len(first) else "")
    message = f"{lm}: {count} of {len(words)} words have no pronunciation and cannot be recognised: {listed}"
    if count == len(words):
        raise ConfigError(f"{message}; give a dictionary of this language")
    log.warning("%s; give them one in words", message)


def _place(path: str) -> Path:
    return Path(path).expanduser()


def _hash(path: Path) -> str:
    """Return a short hash of a file, or of the files in a folder and their names."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return hashlib.sha256("".join(f"{f.name} {_hash(f)}\n" for f in files).encode()).hexdigest()[:12]
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
