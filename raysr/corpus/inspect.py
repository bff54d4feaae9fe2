"""What is in a manifest: amounts, durations, speakers, tags, and what should be mended before it is used."""

import os
from array import array
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raysr.corpus import places
from raysr.corpus.importers.checks import main_scripts, other_script, script_of, too_long
from raysr.corpus.importers.report import Problem
from raysr.corpus.manifest import Manifest
from raysr.corpus.utterance import Utterance

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_EXAMPLES = 1000


@dataclass(frozen=True)
class Summary:
    """What ``raysr data inspect`` shows.

    Attributes:
        utterances, hours: how much there is.
        durations: quantile → seconds.
        sample_rates: Hz → utterances.
        speakers: how many different ones are named.
        languages: language → utterances.
        tags: key → value → utterances.
        mixed: utterances that become a mixture when they are loaded.
        with_text: share of the utterances that have a transcript.
        words, vocabulary: running and different words of the transcripts.
        counts: kind of problem → how often.
        problems: what should be mended; at most a thousand rows of each kind.
    """

    utterances: int
    hours: float
    durations: dict[float, float]
    sample_rates: dict[int, int]
    speakers: int
    languages: dict[str, int]
    tags: dict[str, dict[str, int]]
    mixed: int
    with_text: float
    words: int
    vocabulary: int
    counts: dict[str, int]
    problems: list[Problem]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def inspect(manifest: Manifest) -> Summary:
    """Walk once through a manifest and sum up what it holds; audio is looked for, not read."""
    tally = _Tally()
    for utterance in manifest:
        tally.add(utterance)
    return tally.summary()


class _Tally:
    def __init__(self) -> None:
        self._durations = array("d")
        self._sample_rates: Counter[int] = Counter()
        self._ids: set[str] = set()
        self._speakers: set[str] = set()
        self._languages: Counter[str] = Counter()
        self._tags: dict[str, Counter[str]] = defaultdict(Counter)
        self._words: Counter[str] = Counter()
        self._mixed = 0
        self._texts = 0
        self._scripts: Counter[str] = Counter()
        self._texts_in: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._present: dict[str, bool] = {}
        self._counts: Counter[str] = Counter()
        self._problems: list[Problem] = []

    def add(self, utterance: Utterance) -> None:
        self._durations.append(utterance.duration)
        self._sample_rates[utterance.sample_rate] += 1
        self._mixed += utterance.mix is not None
        if utterance.speaker is not None:
            self._speakers.add(utterance.speaker)
        if utterance.language is not None:
            self._languages[utterance.language] += 1
        for key, value in utterance.tags.items():
            self._tags[key][value] += 1
        if utterance.id in self._ids:
            self._note("duplicate id", utterance.id, "comes twice: ids must differ")
        self._ids.add(utterance.id)
        if not self._is_present(utterance.audio):
            self._note("no audio", utterance.id, f"{utterance.audio}: no such file")
        if utterance.duration <= 0:
            self._note("no audio", utterance.id, "lasts 0 s: leave it out")
        elif utterance.text is not None:
            self._add_text(utterance.id, utterance.text, utterance.duration)

    def summary(self) -> Summary:
        seconds = np.asarray(self._durations)
        main = main_scripts(self._scripts)
        for script in sorted(set(self._scripts) - main):
            for name, text in self._texts_in[script]:
                self._note("other script", name, other_script(text, main) or "")
        return Summary(
            utterances=len(seconds),
            hours=float(seconds.sum()) / 3600,
            durations={q: float(np.quantile(seconds, q)) for q in QUANTILES} if len(seconds) else {},
            sample_rates=dict(self._sample_rates.most_common()),
            speakers=len(self._speakers),
            languages=dict(self._languages.most_common()),
            tags={key: dict(values.most_common()) for key, values in self._tags.items()},
            mixed=self._mixed,
            with_text=self._texts / max(1, len(seconds)),
            words=self._words.total(),
            vocabulary=len(self._words),
            counts=dict(self._counts.most_common()),
            problems=self._problems,
        )

    def _add_text(self, name: str, text: str, seconds: float) -> None:
        self._texts += 1
        self._words.update(text.split())
        long = too_long(text, seconds)
        if long:
            self._note("transcript too long", name, long)
        script = script_of(text)
        if script is not None:
            self._scripts[script] += 1
            if len(self._texts_in[script]) < _EXAMPLES:
                self._texts_in[script].append((name, text))

    def _is_present(self, audio: str) -> bool:
        if audio not in self._present:
            self._present[audio] = places.is_uri(audio) or os.path.isfile(audio)
        return self._present[audio]

    def _note(self, kind: str, name: str, reason: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= _EXAMPLES:
            self._problems.append(Problem(kind, name, reason))
