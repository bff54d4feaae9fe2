"""Filters by what a label says: nothing, the same again and again, what nobody says, or in another script."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field

from raysr.config import Config as Options
from raysr.corpus.importers.checks import script_of_letter
from raysr.ipl.context import CycleContext
from raysr.ipl.filters.each import each
from raysr.ipl.filters.length import transcribed
from raysr.ipl.loops import commonest_run
from raysr.ipl.predictions import Prediction
from raysr.teachers.base import TeacherOutput
from raysr.text.normalise import normalise
from raysr.text.sentences import read_sentences

PHRASES = (  # what recognisers trained on subtitles write over silence and music
    "thank you for watching",
    "thanks for watching",
    "please subscribe",
    "please subscribe to my channel",
    "like and subscribe",
    "see you in the next video",
    "subtitles by the amara org community",
)
STRAY = 0.001  # share of letters below which a script is a slip of the pen


class Empty:
    """Drops empty labels."""

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        return each(predictions, lambda _, label: None if label.text.strip() else "empty label")


class Loop:
    """Drops labels in which some run of ``n`` words comes more than ``times`` times: decoders loop.

    After Kahn et al. 2019 (arXiv:1909.09116), but of whole words: "is is" is not in "this is his".
    """

    class Config(Options):
        n: int = Field(default=2, ge=1)
        times: int = Field(default=3, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        def reason(_: Prediction, label: TeacherOutput) -> str | None:
            run, count = commonest_run(label.text, self.config.n)
            return f"'{run}' comes {count} times" if count > self.config.times else None

        return each(predictions, reason)


class Ended:
    """Drops labels whose attention search ran into its length limit instead of coming to an end.

    After Kahn et al. 2019 (arXiv:1909.09116). Teachers that read frame by frame always come to the end of the audio.
    """

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        def reason(_: Prediction, label: TeacherOutput) -> str | None:
            return f"no end after {len(label.tokens)} tokens" if label.ended is False else None

        return each(predictions, reason)


class Hallucination:
    """Drops labels that look made up: few different words, a word out of all proportion, a known phrase.

    The rules for Whisper of NVIDIA's speech data processor. Those about words mean nothing where words are not
    separated by blanks: switch them off there.
    """

    class Config(Options):
        """What is suspicious.

        Attributes:
            unique: share of different words in a label that is too low; 0 is off. Labels of one or two words pass.
            longest: letters of a word that are too many; 0 is off.
            stretch: by how many times the longest word may exceed the next; 0 is off.
            phrases: labels that nobody said, or a file of them, one a line; they are normalised as labels are.
        """

        unique: float = Field(default=0.4, ge=0, le=1)
        longest: int = Field(default=25, ge=0)
        stretch: float = Field(default=3.0, ge=0)
        phrases: str | list[str] = Field(default_factory=lambda: list(PHRASES))

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config
        self.phrases = frozenset(map(normalise, _lines(config.phrases)))

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        return each(predictions, lambda _, label: self._reason(label.text))

    def _reason(self, text: str) -> str | None:
        c, words = self.config, text.split()
        if not words:
            return None
        if normalise(text) in self.phrases:
            return f"'{text}' is a phrase that recognisers make up"
        share = len(set(words)) / len(words)
        if share <= c.unique:
            return f"{share:.0%} of {len(words)} words are different, {c.unique:.0%} or less"
        *_, second, longest = ["", *sorted(words, key=len)]
        if 0 < c.longest <= len(longest):
            return f"a word of {len(longest)} letters, {c.longest} or more"
        stretch = (len(longest) - len(second)) / len(second) if second else 0.0
        if 0 < c.stretch <= stretch:
            return f"'{longest}' is {stretch:.1f} times longer than the next word, {c.stretch:g} or more"
        return None


class Script:
    """Drops labels with letters of scripts that do not belong: another language, or a teacher that guesses one."""

    class Config(Options):
        """Which letters belong.

        Attributes:
            allowed: Unicode's names of scripts, such as ``[latin, cyrillic]``; CJK is one with the Japanese
                syllabaries. None takes those of one letter in a thousand or more of transcribed audio, labelled or
                else dev.
            foreign: share of a label's letters that may be of others.
        """

        allowed: list[str] | None = None
        foreign: float = Field(default=0.0, ge=0, lt=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config, self.context = config, context

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        def reason(_: Prediction, label: TeacherOutput) -> str | None:
            letters = Counter(script_of_letter(letter) for letter in label.text if letter.isalpha())
            foreign = {name: count for name, count in letters.items() if name not in self.scripts}
            share = sum(foreign.values()) / max(1, letters.total())
            if share <= self.config.foreign:
                return None
            return f"{share:.0%} of the letters are {max(foreign, key=lambda n: (foreign[n], n)).title()}"

        return each(predictions, reason)

    @cached_property
    def scripts(self) -> frozenset[str]:
        """The scripts that belong, in capitals."""
        if self.config.allowed is not None:
            return frozenset(name.upper() for name in self.config.allowed)
        texts = (u.text or "" for u in transcribed(self.context, "script.allowed"))
        counts = Counter(script_of_letter(letter) for text in texts for letter in text if letter.isalpha())
        return frozenset(name for name, count in counts.items() if count >= STRAY * counts.total())


def _lines(phrases: str | list[str]) -> list[str]:
    return phrases if isinstance(phrases, list) else read_sentences(Path(phrases))
