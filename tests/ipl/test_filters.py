"""Filters drop what they say they drop, give a reason, and decide the same every time."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.config import Spec
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError
from raysr.ipl.decisions import decide, one_each
from raysr.ipl.plugins import FILTERS
from raysr.ipl.predictions import Prediction, TeacherHypothesis
from raysr.ipl.voting import Vote
from raysr.teachers.base import TeacherOutput

LABELLED = [
    Utterance(f"l{n}", "/l.wav", 1.0, text="ab" * (n + 1)) for n in range(10)
]  # 2, 4, … 20 characters a second


def filter_(kind: str, labelling_round: int = 0, utterances: Sequence[Utterance] = (), **options):
    context = SimpleNamespace(
        labelling_round=labelling_round,
        labelled=LABELLED,
        dev=(),
        utterances=lambda: {u.id: u for u in utterances},
    )
    return FILTERS.build(Spec(kind=kind, **options), context)


def said(
    name: str,
    *texts: str,
    seconds: float = 2.0,
    score: float | None = None,
    heads: float | None = None,
    **more: Any,
):
    outputs = [
        TeacherOutput(text=t, normalised_score=score, ctc_attention_agreement=heads, **more) for t in texts
    ]
    return Prediction(
        name, 0, seconds, tuple(TeacherHypothesis(f"t{n}", "", o) for n, o in enumerate(outputs))
    )


@given(st.lists(st.floats(-10, 0), min_size=1, max_size=30), st.sampled_from([0.25, 0.5, 0.8, 1.0]))
def test_score_keeps_exactly_the_best_share(scores: list[float], keep: float) -> None:
    predictions = [said(f"u{n:02d}", "words", score=s) for n, s in enumerate(scores)]
    dropped = filter_("score", keep=keep)(predictions)
    kept = [s for n, s in enumerate(scores) if f"u{n:02d}" not in dropped]
    assert len(kept) == max(1, round(keep * len(scores)))
    assert not kept or min(kept) >= max([scores[int(name[1:])] for name in dropped], default=-99)


@pytest.mark.parametrize(("labelling_round", "kept"), [(0, 5), (1, 8), (2, 9), (7, 9)])
def test_score_follows_its_schedule_over_the_cycles_that_label(labelling_round: int, kept: int) -> None:
    predictions = [said(f"u{n}", "words", score=-n) for n in range(10)]
    assert 10 - len(filter_("score", labelling_round)(predictions)) == kept


def test_scores_are_ranked_among_labels_of_the_same_teacher() -> None:
    def row(number: int, teacher: str, version: str, score: float | None, vote: Vote) -> Prediction:
        ctc = score if teacher == "student" else None
        output = TeacherOutput("a b", normalised_score=score, ctc=ctc)
        failed = TeacherHypothesis("other", "1", TeacherOutput(error="broken"))
        said = (failed, TeacherHypothesis(teacher, version, output))
        return Prediction(f"{teacher}{version}-{number}", 0, 1.0, said, vote=vote)

    scales = {("sphinx", "1"): 0.01, ("whisper", "1"): 1.0, ("whisper", "2"): 10.0, ("student", "3"): 100.0}
    for vote in (Vote(kind="nearest"), Vote(kind="first")):
        rows = [row(n, *whose, -n * unit, vote) for whose, unit in scales.items() for n in range(1, 5)]
        dropped = filter_("score", keep=0.5)(rows)
        assert dropped.keys() == {f"{t}{v}-{n}" for t, v in scales for n in (3, 4)}
        assert dropped["sphinx1-3"] == "score -0.030 below the best 50% of sphinx 1"
        # students of whatever cycle score alike, such as those whose labels were carried over
        older = [row(n, "student", "2", -100 * n - 50, vote) for n in range(1, 5)]
        assert filter_("score", keep=0.5)([*rows[-4:], *older]).keys() == {
            f"student{v}-{n}" for v in (2, 3) for n in (3, 4)
        }
    # rover gives them one scale, on which all of these are equals
    voted = [replace(p, vote=Vote(kind="rover")) for p in rows]
    assert filter_("score", keep=0.5)(voted).keys() == {p.id for p in sorted(voted, key=lambda p: p.id)[8:]}


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
        ("score", {"threshold": -0.5}, said("good", "a", score=-0.5), said("bad", "a", score=-0.51)),
        (
            "confidence",
            {"least": 0.7},  # the geometric mean of 0.5 and 1 is 0.707
            said("good", "a", confidences=(0.5, 1.0)),
            said("bad", "a", confidences=(0.48, 1.0)),
        ),
        (
            "confidence",
            {"of": "minimum", "least": 0.5},
            said("good", "a", confidences=(0.5, 1.0)),
            said("bad", "a", confidences=(0.4, 1.0)),
        ),
        ("confidence", {}, said("good", "a", confidences=(0.9,)), said("bad", "a")),
        (
            "lm_agreement",
            {"max_cer": 10},
            said("good", "0123456789", text_without_lm="012345678"),
            said("bad", "0123456789", text_without_lm="01234567"),
        ),
        ("lm_agreement", {}, said("good", "", text_without_lm=""), said("bad", "a")),
        ("ended", {}, said("good", "a", ended=None), said("bad", "a a", ended=False)),
        ("hallucination", {}, said("good", "no no maybe"), said("bad", "no no no")),
        (
            "hallucination",
            {},
            said("good", "a" * 24 + " " + "b" * 10),
            said("bad", "a" * 25 + " " + "b" * 10),
        ),
        ("hallucination", {}, said("good", "abc abcdefghijk"), said("bad", "abc abcdefghijkl")),
        (
            "hallucination",
            {"phrases": ["Thank you!"]},
            said("good", "thank you all"),
            said("bad", "thank you"),
        ),
        ("script", {"allowed": ["Latin"]}, said("good", "naïve"), said("bad", "наивный a")),
        ("script", {}, said("good", "learned"), said("bad", "学んだ")),
        ("script", {"foreign": 0.5}, said("good", "abв"), said("bad", "aбв")),
        ("character_rate", {"learn": 0.01}, said("good", "a" * 30), said("bad", "a" * 42)),
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
    with pytest.raises(ConfigError, match="threshold takes the place of keep"):
        FILTERS.check(Spec(kind="score", keep=0.5, threshold=-1))
    with pytest.raises(ConfigError, match="tag:NAME"):
        FILTERS.check(Spec(kind="score", keep=0.5, by="room"))
    checked = FILTERS.check(Spec(kind="score"))
    assert FILTERS.check(checked) == checked


def test_what_is_learned_needs_transcribed_audio() -> None:
    context = SimpleNamespace(labelled=None, dev=[Utterance("d", "/d.wav", 1.0)])
    for spec in (Spec(kind="script"), Spec(kind="character_rate", learn=0.1)):
        with pytest.raises(ConfigError, match=r"name data\.labelled or data\.dev"):
            FILTERS.build(spec, context)([said("a", "a")])


@given(st.lists(st.tuples(st.floats(0.1, 20), st.sampled_from("ab")), min_size=1, max_size=40))
def test_a_share_by_stratum_is_kept_in_each(found: list[tuple[float, str]]) -> None:
    utterances = [
        Utterance(f"u{n:02d}", "/a.wav", seconds, tags={"room": room})
        for n, (seconds, room) in enumerate(found)
    ]
    rows = [said(u.id, "word", seconds=u.duration, score=-u.duration) for u in utterances]
    strata = {
        "duration": lambda u: sum(u.duration >= edge for edge in (2.0, 5.0)),
        "tag:room": lambda u: u.tags["room"],
    }
    for by, of in strata.items():
        dropped = filter_("score", keep=0.5, by=by, edges=[2, 5], utterances=utterances)(rows)
        kept = Counter(of(u) for u in utterances if u.id not in dropped)
        assert kept == {name: max(1, round(0.5 * n)) for name, n in Counter(map(of, utterances)).items()}


@given(st.text("abc ", max_size=12), st.text("abc ", max_size=12))
def test_agreement_without_the_language_model_is_the_character_error_rate(label: str, read: str) -> None:
    row = said("u", label, text_without_lm=read)
    cer = 100 * jiwer.cer(label, read) if label.strip() else 100.0 * len(read)
    reasons = filter_("lm_agreement", max_cer=25)([row])
    if label.strip() == label and label and read.strip() == read and "  " not in label + read:
        assert bool(reasons) == (cer > 25)


def test_a_label_of_several_teachers_agrees_with_their_nearest_reading() -> None:
    row = Prediction(
        "u",
        0,
        1.0,
        (
            TeacherHypothesis("moonshine", "1", TeacherOutput("good morning")),
            TeacherHypothesis("a", "1", TeacherOutput("good evening", text_without_lm="good mornin")),
        ),
    )
    assert filter_("lm_agreement", max_cer=10)([row]) == {}
    assert filter_("lm_agreement", max_cer=5)([row]).keys() == {"u"}


OUTPUTS = st.builds(
    TeacherOutput,
    text=st.text("ab да", max_size=12),
    normalised_score=st.none() | st.sampled_from([-0.1, -0.5, -1.0]),
    confidences=st.lists(st.sampled_from([0.1, 0.6, 0.9]), max_size=3).map(tuple),
    ctc_attention_agreement=st.none() | st.sampled_from([0.0, 0.7, 1.0]),
    text_without_lm=st.none() | st.text("ab ", max_size=12),
    ended=st.none() | st.booleans(),
    error=st.none() | st.just("lost"),
)
ROWS = st.lists(
    st.tuples(st.lists(OUTPUTS, min_size=1, max_size=3), st.sampled_from([0.5, 2.0, 7.0])), max_size=12
)
CHAINS = [
    [
        {"kind": "empty"},
        {"kind": "loop", "n": 1, "times": 2},
        {"kind": "ended"},
        {"kind": "score", "keep": 0.5},
    ],
    [{"kind": "score", "keep": 0.6, "by": "duration"}, {"kind": "confidence"}, {"kind": "script"}],
    [{"kind": "agreement"}, {"kind": "agreement", "between": "heads"}, {"kind": "lm_agreement"}],
    [{"kind": "character_rate", "learn": 0.1}, {"kind": "hallucination"}, {"kind": "duration", "max": 5}],
]


@given(ROWS, st.sampled_from(CHAINS), st.randoms())
def test_decisions_depend_on_the_predictions_alone_and_not_on_their_order(
    found: list[tuple[list[TeacherOutput], float]], chain: list[dict[str, Any]], order: random.Random
) -> None:
    rows = [
        Prediction(f"u{n:02d}", 0, seconds, tuple(TeacherHypothesis("t", "1", o) for o in outputs))
        for n, (outputs, seconds) in enumerate(found)
    ]

    def decided(predictions: Sequence[Prediction]) -> dict[str, Any]:
        rules = {spec["kind"] + str(n): filter_(**spec) for n, spec in enumerate(chain)}
        return {d.id: d for d in decide(predictions, rules, "h")}

    first = decided(rows)
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert decided(shuffled) == first == decided(rows)
    assert first.keys() == {row.id for row in rows}
    for row in rows:
        decision = first[row.id]
        assert decision.status == ("failed" if row.label is None else decision.status)
        assert (decision.reason is None) == (decision.status == "kept")
        assert (decision.rule is None) == (decision.status != "filtered")
    selected = [*(row.id for row in rows), "never labelled"]
    final = one_each([(name, 1.0) for name in selected], first.values(), "h")
    assert [d.id for d in final] == selected
    assert final[-1].status == "failed"


def test_filters_of_single_labels_commute() -> None:
    rows = [
        said(f"u{n}", text, seconds=s)
        for n, (text, s) in enumerate(
            itertools.product(["", "a", "a a a a a", "да", "no no no"], [0.2, 1.0, 9.0])
        )
    ]
    kinds = ["empty", "duration", "character_rate", "hallucination", "script"]
    kept = {
        frozenset(d.id for d in decide(rows, {k: filter_(k) for k in chain}, "h") if d.status == "kept")
        for chain in itertools.permutations(kinds)
    }
    assert len(kept) == 1


def test_an_unknown_filter_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        FILTERS.check(Spec(kind="scor"))
