"""The measures of a cycle's labels, against counting by hand and an independent edit distance."""

import difflib

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.corpus.utterance import Utterance
from raysr.ipl.decisions import Decision
from raysr.ipl.labels import characters_per_second, measure_labels


def decisions(*texts: str | None, status: str = "kept", seconds: float = 2.0) -> list[Decision]:
    return [
        Decision(f"u{n}", "failed" if text is None else status, text, None, None, seconds, "")  # type: ignore[arg-type]
        for n, text in enumerate(texts)
    ]


def test_what_was_labelled_is_measured_and_what_failed_is_not() -> None:
    dropped = Decision("x", "filtered", "ten", "low score", -3.0, 1.0, "")
    made = [*decisions("one two", "", None, "a b a b a b a b"), dropped]
    found = measure_labels(made, prior=4.5)
    assert found["labels"] == 4
    assert found["empty_rate"] == 1 / 4
    assert found["loop_rate"] == 1 / 4
    assert found["kept_share"] == 3 / 5
    assert found["characters_per_s"] == (6 + 0 + 8 + 3) / 7
    assert found["labelled_characters_per_s"] == 4.5
    assert found["drift"] is None
    assert found["canary_label_wer"] is None


def test_nothing_offered_is_nothing_measured() -> None:
    found = measure_labels([])
    assert found.pop("labels") == 0
    assert not any(value is not None for value in found.values())


@given(st.lists(st.tuples(st.text("ab ", max_size=8), st.text("ab ", max_size=8)), min_size=1, max_size=6))
def test_drift_is_the_share_of_characters_that_changed(pairs: list[tuple[str, str]]) -> None:
    now, before = zip(*pairs, strict=True)
    drift = measure_labels(decisions(*now), decisions(*before))["drift"]
    edits = sum(_edits(a, b) for a, b in pairs)
    assert drift == pytest.approx(edits / max(1, sum(max(len(a), len(b)) for a, b in pairs)))
    assert 0 <= drift <= 1


def _edits(a: str, b: str) -> int:
    """Levenshtein's recurrence, written out."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


def test_drift_is_over_what_both_cycles_labelled() -> None:
    assert difflib.SequenceMatcher(None, "one", "one").ratio() == 1
    assert measure_labels(decisions("one", "two"), decisions("one", None))["drift"] == 0
    assert (
        measure_labels(decisions("one"), [Decision("else", "kept", "one", None, None, 1, "")])["drift"]
        is None
    )


def test_held_out_labels_are_scored_by_words() -> None:
    pairs = [("one two three", "one three"), ("four", "for")]
    found = measure_labels([], canary=pairs)["canary_label_wer"]
    assert found == pytest.approx(jiwer.wer([r for r, _ in pairs], [h for _, h in pairs]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b a b a b a b", True),
        ("a b a b a b", False),
        ("no no no no no", True),
        ("one", False),
        ("", False),
    ],
)
def test_a_loop_is_two_words_that_come_more_than_three_times(text: str, expected: bool) -> None:
    assert measure_labels(decisions(text))["loop_rate"] == expected


def test_the_usual_rate_is_that_of_transcripts_as_labels_are_written() -> None:
    spoken = [Utterance("a", "/a", 2.0, text="It's 2!"), Utterance("b", "/b", 1.0, text=None)]
    assert characters_per_second(spoken) == len("it'stwo") / 2
    assert characters_per_second([]) is None
