"""Captions of finished segments, as SubRip (srt) and WebVTT. Pure, no sockets.

A caption has at most two lines of 42 characters and stays for at most seven seconds, as broadcasters have it (BBC,
Netflix), and for at least one where the next one lets it.
"""

import html
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from raysr.decode.words import Word
from raysr.stream.events import Final

LINE, LINES = 42, 2
LONGEST_S, SHORTEST_S = 7.0, 1.0


class Cue(NamedTuple):
    """Lines that are shown from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues(finals: Iterable[Final]) -> list[Cue]:
    """Return the captions of segments, which come in order."""
    runs = list(chain.from_iterable(_runs(final.words) for final in finals))
    following = chain((run[0].start for run in runs[1:]), [float("inf")])
    return [
        Cue(run[0].start, max(run[-1].end, min(run[0].start + SHORTEST_S, next_)), tuple(_lines(run)))
        for run, next_ in zip(runs, following, strict=False)
    ]


def srt(finals: Iterable[Final]) -> str:
    """Return the captions of segments as a SubRip file."""
    blocks = []
    for number, cue in enumerate(cues(finals), 1):
        blocks.append("\n".join([str(number), _span(cue, ","), *cue.lines, ""]))
    return "\n".join(blocks)


def vtt(finals: Iterable[Final]) -> str:
    """Return the captions of segments as a WebVTT file."""
    blocks = ["WEBVTT\n"]
    for cue in cues(finals):
        lines = [html.escape(line, quote=False) for line in cue.lines]
        blocks.append("\n".join([_span(cue, "."), *lines, ""]))
    return "\n".join(blocks)


def _runs(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Cut the words of a segment into captions that are about equally long, each as long as it may be."""
    for fewest in range(1, len(words) + 1):
        most = -(-sum(len(word.text) + 1 for word in words) // fewest)
        runs = list(_filled(words, most))
        if len(runs) <= fewest:
            yield from runs
            return


def _filled(words: Sequence[Word], most: int) -> Iterator[list[Word]]:
    """Fill captions with words up to ``most`` characters or a word more, and no further than a caption holds."""
    run: list[Word] = []
    for word in words:
        if run and (not _fits([*run, word]) or sum(len(w.text) + 1 for w in run) >= most):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _fits(words: Sequence[Word]) -> bool:
    return len(_lines(words)) <= LINES and words[-1].end - words[0].start <= LONGEST_S


def _lines(words: Sequence[Word]) -> list[str]:
    return textwrap.wrap(
        " ".join(word.text for word in words), LINE, break_long_words=False, break_on_hyphens=False
    )


def _span(cue: Cue, mark: str) -> str:
    return f"{_time(cue.start, mark)} --> {_time(cue.end, mark)}"


def _time(seconds: float, mark: str) -> str:
    milliseconds = round(1000 * seconds)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"
