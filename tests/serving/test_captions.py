"""Captions hold every word once, in order, and no more than can be read."""

import re

from hypothesis import given
from hypothesis import strategies as st

from raysr.decode.words import Word
from raysr.serving.captions import LINE, LINES, LONGEST_S, SHORTEST_S, cues, srt, vtt
from raysr.stream.events import Final, GrowingText, Partial, transcript


def segment(words: list[Word]) -> Final:
    text = " ".join(word.text for word in words)
    return Final("s", 0, "m", words[0].start, words[-1].end, text, tuple(words), 1.0, "endpoint")


@st.composite
def segments(draw: st.DrawFn) -> list[Final]:
    found, now = [], 0.0
    for _ in range(draw(st.integers(0, 4))):
        words = []
        for _ in range(draw(st.integers(1, 30))):
            now += draw(st.floats(0, 2))
            end = now + draw(st.floats(0.01, 2))
            words.append(Word(draw(st.text("abcde<&", min_size=1, max_size=20)), now, end, 1.0))
            now = end
        found.append(segment(words))
    return found


@given(segments())
def test_every_word_comes_once_and_captions_fit_and_do_not_overlap(finals: list[Final]) -> None:
    found = cues(finals)
    said = [word for final in finals for word in final.words]
    assert " ".join(" ".join(cue.lines) for cue in found).split() == [word.text for word in said]
    for cue, next_ in zip(found, [*found[1:], None], strict=False):
        words = " ".join(cue.lines).split()
        assert len(cue.lines) <= LINES or len(words) == 1
        assert all(len(line) <= LINE for line in cue.lines)
        assert cue.end - cue.start <= LONGEST_S + 1e-9
        assert next_ is None or cue.end <= next_.start
        shortest = min(cue.start + SHORTEST_S, next_.start if next_ else float("inf"))
        assert cue.end >= shortest - 1e-9


def test_a_segment_too_long_for_one_caption_is_cut_evenly() -> None:
    words = [Word("abcdefg", 0.3 * n, 0.3 * n + 0.2, 1.0) for n in range(12)]  # 95 characters
    assert [len(" ".join(cue.lines).split()) for cue in cues([segment(words)])] == [6, 6]


def test_srt_and_vtt_are_written_as_players_read_them() -> None:
    finals = [
        segment([Word("a<b", 0.5, 0.7, 1.0)]),
        segment([Word("late", 3661.0, 3662.0004, 1.0)]),
    ]
    assert srt(finals) == (
        "1\n00:00:00,500 --> 00:00:01,500\na<b\n\n2\n01:01:01,000 --> 01:01:02,000\nlate\n"
    )
    assert vtt(finals) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\na&lt;b\n\n01:01:01.000 --> 01:01:02.000\nlate\n"
    )
    assert srt([]) == ""
    assert re.fullmatch(r"WEBVTT\n", vtt([]))


@given(st.lists(st.tuples(st.lists(st.text("ab ", max_size=8), max_size=4), st.booleans()), max_size=5))
def test_growing_text_takes_nothing_back(said: list[tuple[list[str], bool]]) -> None:
    growing, told, finals = GrowingText(), "", []
    for number, (pieces, empty) in enumerate(said):
        text = "" if empty else "".join(pieces)
        stable = ""
        for piece in [] if empty else pieces:
            stable += piece
            told += growing.push(Partial("s", number, "m", 0, 1, stable, "volatile"))
        final = Final("s", number, "m", 0, 1, text, (), 1.0, "endpoint")
        told += growing.push(final)
        finals.append(final)
    assert told == transcript(list(finals))
