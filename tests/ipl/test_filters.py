"""Filters drop what they say they drop, give a reason, and decide the same every time."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.ipl.plugins import FILTERS
from raysr.ipl.predictions import Prediction, TeacherHypothesis
from raysr.teachers.base import TeacherOutput


def filter_(kind: str, labelling_round: int = 0, **options):
    return FILTERS.build(Spec(kind=kind, **options), SimpleNamespace(labelling_round=labelling_round))


def said(
    name: str, *texts: str, seconds: float = 2.0, score: float | None = None, heads: float | None = None
):
    outputs = [TeacherOutput(text=t, normalised_score=score, ctc_attention_agreement=heads) for t in texts]
    return Prediction(
        name, 0, seconds, tuple(TeacherHypothesis(f"t{n}", "", o) for n, o in enumerate(outputs))
    )


@given(st.lists(st.floats(-10, 0), min_size=1, max_size=30), st.sampled_from([0.25, 0.5, 0.8, 1.0]))
def test_score_keeps_exactly_the_best_share(scores: list[float], keep: float) -> None:
    predictions = [said(f"u{n:02d}", "words", score=s) for n, s in enumerate(scores)]
    dropped = filter_("score", keep=keep)(predictions)
    kept = [s for n, s in enumerate(scores) if f"u{n:02d}" not in dropped]
    assert len(kept) == round(keep * len(scores))
    assert not kept or min(kept) >= max([scores[int(name[1:])] for name in dropped], default=-99)


@pytest.mark.parametrize(("labelling_round", "kept"), [(0, 5), (1, 8), (2, 9), (7, 9)])
def test_score_follows_its_schedule_over_the_cycles_that_label(labelling_round: int, kept: int) -> None:
    predictions = [said(f"u{n}", "words", score=-n) for n in range(10)]
    assert 10 - len(filter_("score", labelling_round)(predictions)) == kept


def test_agreement_compares_the_first_two_teachers() -> None:
    predictions = [
        said("same", "a b c d", "a b c d"),
        said("close", "a b c d", "a b c x"),
        said("alone", "a"),
    ]
    assert filter_("agreement", max_wer=25)(predictions).keys() == {"alone"}
    assert filter_("agreement", max_wer=20)(predictions).keys() == {"alone", "close"}


def test_agreement_of_several_teachers_is_that_of_the_label_with_its_nearest() -> None:
    predictions = [said("two", "x y", "a b", "a b"), said("none", "a b", "c d", "e f")]
    assert filter_("agreement", max_wer=50)(predictions).keys() == {"none"}
    silent = [said("silent", "", "", "a"), said("one silent", "", "a")]
    assert filter_("agreement", max_wer=50)(silent).keys() == {"one silent"}


def test_agreement_compares_the_heads_of_one_teacher() -> None:
    predictions = [said("good", "a", heads=0.9), said("bad", "a", heads=0.4), said("none", "a")]
    assert filter_("agreement", between="heads", max_wer=20)(predictions).keys() == {"bad", "none"}


def test_two_silent_teachers_agree() -> None:
    assert filter_("agreement")([said("a", "", ""), said("b", "", "words")]).keys() == {"b"}


@pytest.mark.parametrize(
    ("kind", "options", "good", "bad"),
    [
        ("empty", {}, said("good", "word"), said("bad", "  ")),
        ("character_rate", {"min": 2, "max": 10}, said("good", "abcdefgh"), said("bad", "ab")),
        ("character_rate", {"min": 2, "max": 10}, said("good", "abcdefgh"), said("bad", "abcdefgh" * 9)),
        (
            "loop",
            {"n": 2, "times": 2},
            said("good", "so it goes so it goes"),
            said("bad", "so it so it so it"),
        ),
        ("duration", {"min": 1, "max": 3}, said("good", "a"), said("bad", "a", seconds=0.5)),
        ("duration", {"min": 1, "max": 3}, said("good", "a"), said("bad", "a", seconds=3.5)),
    ],
)
def test_a_filter_drops_the_bad_and_says_why(
    kind: str, options: dict, good: Prediction, bad: Prediction
) -> None:
    rule = filter_(kind, **options)
    first = rule([good, bad])
    assert first.keys() == {"bad"}
    assert first["bad"]
    assert rule([good, bad]) == first


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="keep"):
        FILTERS.check(Spec(kind="score", keep=[0.5, 1.5]))


def test_an_unknown_filter_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        FILTERS.check(Spec(kind="scor"))
