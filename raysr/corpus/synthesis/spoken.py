"""A corpus of spoken sentences: text in, labelled shards out, every sentence by a voice of its own.

A student that starts on it has learned to spell what it hears before the first real recording comes.
"""

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysr.audio.encode import encode_opus
from raysr.corpus.disk import naming_full_disk
from raysr.corpus.shards import ShardWriter
from raysr.corpus.synthesis.engines import SAMPLE_RATE, Line, is_installed
from raysr.corpus.synthesis.speakers import Speakers, levelled, trimmed
from raysr.corpus.synthesis.voices import draw
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.text.sentences import read_sentences

ENGINES = {"espeak": 1, "flite": 2}  # weights: flite's voices were made of recordings of people
SPEAKABLE = re.compile(r"[a-z' ]+")  # the voices are English
BITRATE = 24000
BLOCK = 200  # lines in memory at once
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SpokenReport:
    """What was written to ``out``, and why some sentences were not: reason to count."""

    out: Path
    utterances: int
    hours: float
    engines: Sequence[str]
    left_out: Mapping[str, int]


def speakable(sentences: Iterable[str], longest: int) -> tuple[list[str], Counter[str]]:
    """Return the sentences that can be spoken, each once, and a count of those left out by reason.

    Args:
        sentences: normalised, see :func:`raysr.text.sentences.read_sentences`.
        longest: characters of the longest one to take.
    """
    taken: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    for words in sentences:
        if not SPEAKABLE.fullmatch(words):
            left_out["letters that English has not"] += 1
        elif len(words) > longest:
            left_out[f"longer than {longest} characters"] += 1
        elif words in taken:
            left_out["said before"] += 1
        else:
            taken[words] = None
    return list(taken), left_out


def speak_corpus(
    text: Path,
    out: Path,
    *,
    prose: bool = False,
    utterances: int | None = None,
    short: float = 0.3,
    longest: int = 90,
    seed: int = 1,
    progress: Progress = lambda done, total: None,
) -> SpokenReport:
    """Speak the sentences of ``text`` into shards below ``out``, which appears whole or not at all.

    Args:
        text, prose: see :func:`raysr.text.sentences.read_sentences`.
        longest: see :func:`speakable`.
        out: a folder that does not exist yet.
        utterances: how many sentences to take, drawn at random; None takes all.
        short: share of the sentences of which one to three words alone are spoken, as commands and answers are.
        seed: of every draw.
        progress: told how many of how many are spoken.

    Raises:
        CorpusError: ``out`` exists, no engine is installed, or the text cannot be used.
    """
    if out.exists():
        raise CorpusError(f"{out} exists already: name another folder, or remove it")
    engines = [name for name in ENGINES if is_installed(name)]
    if not engines:
        raise CorpusError("no voice is installed: pip install 'raysr[voices]', or install flite")
    sentences, left_out = speakable(read_sentences(text, prose), longest)
    if not sentences:
        raise CorpusError(f"{text} holds no sentence to speak; give UTF-8 text with a sentence a line")
    draws = random.Random(seed)
    draws.shuffle(sentences)
    lines = [_line(sentence, engines, short, draws) for sentence in sentences[:utterances]]
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with naming_full_disk(partial):
            seconds = _write(partial, lines, draws, progress)
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return SpokenReport(out, len(lines), seconds / 3600, engines, left_out)


def _write(folder: Path, lines: Sequence[Line], draws: random.Random, progress: Progress) -> float:
    """Speak the lines into shards in ``folder`` and return the seconds of speech."""
    seconds = 0.0
    with Speakers() as speakers, ShardWriter(folder) as writer:
        for first in range(0, len(lines), BLOCK):
            block = lines[first : first + BLOCK]
            for number, samples in enumerate(speakers.speak(block), start=first):
                samples = levelled(trimmed(samples), draws.uniform(-30, -15))
                utterance = _utterance(f"spoken-{number:06d}", lines[number], len(samples) / SAMPLE_RATE)
                writer.add(utterance, encode_opus(samples, BITRATE))
                seconds += utterance.duration
            progress(first + len(block), len(lines))
    return seconds


def _line(sentence: str, engines: Sequence[str], short: float, draws: random.Random) -> Line:
    if draws.random() < short:
        words = sentence.split()
        first = draws.randrange(len(words))
        sentence = " ".join(words[first : first + draws.randint(1, 3)])
    [engine] = draws.choices(engines, [ENGINES[name] for name in engines])
    voice = draw(engine, draws)
    return Line(sentence, voice, voice.rate)


def _utterance(name: str, line: Line, duration: float) -> Utterance:
    return Utterance(
        id=name,
        audio="",
        duration=duration,
        text=line.text,
        speaker=line.voice.speaker,
        language="en",
        tags={"engine": line.voice.engine},
    )
