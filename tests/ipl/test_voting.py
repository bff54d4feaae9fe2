"""Several teachers' texts become one label, in the way that the run was configured for, also when it is read back."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from raysr.config import Spec
from raysr.corpus.manifest import open_manifest
from raysr.errors import ConfigError
from raysr.ipl.config import RunConfig
from raysr.ipl.decisions import decide
from raysr.ipl.events import Events
from raysr.ipl.filters.agreement import Agreement
from raysr.ipl.filters.hash import filter_hash
from raysr.ipl.filters.score import Score
from raysr.ipl.labelling.recogniser import LocalRecogniser, RecogniserConfig
from raysr.ipl.plugins import FILTERS
from raysr.ipl.predictions import Prediction, Predictions, TeacherHypothesis
from raysr.ipl.steps import Steps
from raysr.ipl.voting import Vote
from raysr.teachers.base import TeacherOutput

ROVER = Vote(kind="rover")


def prediction(*outputs: TeacherOutput | str, vote: Vote = ROVER, name: str = "a") -> Prediction:
    said = [TeacherOutput(text=o) if isinstance(o, str) else o for o in outputs]
    return Prediction(name, 0, 1.0, tuple(TeacherHypothesis("t", "v", o) for o in said), vote=vote)


def label(*outputs: TeacherOutput | str, vote: Vote = ROVER) -> TeacherOutput:
    found = prediction(*outputs, vote=vote).label
    assert found is not None
    return found


def test_rover_makes_a_text_that_no_teacher_said() -> None:
    said = ["the cat sat on the mat", "a cat sat on mat", "the bat sat on the mat"]
    assert label(*said).text == "the cat sat on the mat"
    assert label("the bat sat", "the cat sit", "a cat sat").text == "the cat sat"


def test_each_kind_of_vote_takes_its_own() -> None:
    said = ["one two three", "one to three four", "one to three"]
    kinds: dict[Any, str] = {"first": said[0], "nearest": said[2], "rover": said[2], "surest": said[0]}
    for kind, text in kinds.items():
        assert label(*said, vote=Vote(kind=kind)).text == text


def test_a_voted_label_has_scores_for_the_filters() -> None:
    found = label("we met today", "we met up today", "we met up today")
    assert found.text == "we met up today"
    assert found.confidences == pytest.approx((1, 1, 2 / 3, 1))
    assert found.normalised_score == pytest.approx(math.log(2 / 3) / 4)
    # a word left out against a vote is as doubtful as one put in
    assert label("we met", "we met", "we met up").normalised_score == pytest.approx(math.log(2 / 3) / 3)
    assert label("", "", "").normalised_score == 0


def test_answers_are_believed_less_where_other_teachers_failed() -> None:
    both = label("one two", "one two")
    alone = label("one two", TeacherOutput(error="broken"))
    assert (both.text, both.normalised_score) == ("one two", 0)
    assert (alone.text, alone.normalised_score) == ("one two", pytest.approx(math.log(1 / 2)))
    assert prediction(TeacherOutput(error="broken"), TeacherOutput(error="broken")).label is None


def test_one_teacher_keeps_its_own_output_whatever_the_vote() -> None:
    output = TeacherOutput(text="one", tokens=(4, 5), score=-1.0, normalised_score=-0.5)
    for kind in ("nearest", "rover", "surest", "first"):
        assert label(output, vote=Vote(kind=kind)) is output


def test_word_confidences_are_the_teachers_or_the_mean_of_their_tokens() -> None:
    vote = Vote(kind="rover", alpha=0.0)
    words = TeacherOutput(text="yes no", confidences=(0.9, 0.1))
    tokens = TeacherOutput(text="yes so", tokens=(1, 2, 3), confidences=(0.4, 0.9, 0.9))
    spelt = TeacherOutput(text="yes go", tokens=(1, 2, 3), confidences=(0, 0, 0), word_confidences=(0.5, 1.0))
    assert label(words, tokens, vote=vote).text == "yes so"
    assert label(words, tokens, vote=vote).confidences[1] == pytest.approx((0.4 * 0.9 * 0.9) ** (1 / 3))
    assert label(words, tokens, spelt, vote=vote).text == "yes go"


def test_the_surest_answer_is_the_one_with_the_surest_words_on_average() -> None:
    vote = Vote(kind="surest")
    torn = TeacherOutput(text="yes no no", confidences=(1.0, 0.7, 0.1), normalised_score=9.0)
    spelt = TeacherOutput(
        text="yes so", tokens=(1, 2), confidences=(0.1, 0.1), word_confidences=(0.8, 0.6), score=-3.0
    )
    found = label(torn, spelt, vote=vote)
    assert (found.text, found.tokens, found.score) == ("yes so", (1, 2), -3.0)
    assert found.normalised_score == pytest.approx(math.log(0.7))  # whatever scores the teachers give
    assert label(torn, replace(torn, text="no no yes"), vote=vote).text == torn.text  # the first among equals
    # those that say how sure they are win, and the scale stays where only one has answered
    assert label("heard", "well", torn, vote=vote).text == torn.text
    assert label("heard", "well", vote=vote) == TeacherOutput(text="heard")
    scored = TeacherOutput(text="heard", normalised_score=-0.5)
    assert label(scored, "well", vote=vote) is scored
    alone = label(TeacherOutput(error="broken"), torn, vote=vote)
    assert alone.normalised_score == pytest.approx(math.log(0.6))
    assert label(TeacherOutput(), torn, vote=vote).text == torn.text


def test_agreement_of_the_heads_outlives_a_vote() -> None:
    said = [TeacherOutput(text="a", ctc_attention_agreement=x) for x in (1.0, 0.5)]
    assert label(*said).ctc_attention_agreement == pytest.approx(0.75)
    assert label("a", "b").ctc_attention_agreement is None


@pytest.mark.parametrize(
    ("said", "ended"),
    [((None, None), None), ((True, None), True), ((True, False), False), ((False, None), False)],
)
def test_a_voted_label_has_not_ended_where_an_answer_has_not(
    said: tuple[bool | None, bool | None], ended: bool | None
) -> None:
    row = prediction(*(TeacherOutput(text="a", ended=one) for one in said))
    assert row.label is not None
    assert row.label.ended is ended
    rule = FILTERS.build(Spec(kind="ended"), SimpleNamespace())
    assert (rule([row]) != {}) == (ended is False)


def test_the_agreement_filter_compares_a_voted_label_with_each_teacher() -> None:
    rule = Agreement(Agreement.Config(max_wer=40), None)  # type: ignore[arg-type]
    agreed = prediction("the cat sat up", "the cat sat", "a cat sat")
    alone = prediction("the cat sat", "one two three", "four five six")
    kept, dropped = [], []
    for one in (agreed, alone):
        (dropped if rule([one]) else kept).append(one)
    assert agreed.label is not None
    assert agreed.label.text == "the cat sat"
    assert (kept, dropped) == ([agreed], [alone])
    assert rule([prediction("only one")]) == {"a": "no second reading to agree with (teachers)"}
    empty = prediction("", "", "a word")
    assert rule([empty]) == {}


def test_the_score_filter_ranks_voted_labels() -> None:
    rule = Score(Score.Config(keep=0.5), type("C", (), {"labelling_round": 0})())
    sure = prediction("one two", "one two", name="sure")
    torn = prediction("one two", "six ten", name="torn")
    decided = {d.id: d.status for d in decide([torn, sure], {"score": rule}, "h")}
    assert decided == {"sure": "kept", "torn": "filtered"}


def test_the_vote_is_kept_with_the_predictions_step(tmp_path: Path) -> None:
    def make() -> Predictions:
        made = Predictions(tmp_path / "predictions", Vote(kind="rover", alpha=0.5))
        made.write([prediction("the bat sat", "the cat sit", "a cat sat", vote=Vote())])
        return made

    steps = Steps(tmp_path, 0, Events(tmp_path / "events.jsonl"))
    steps.predictions(make)

    def again() -> Predictions:
        raise AssertionError("labelled twice")

    [read] = steps.predictions(again)
    assert read.vote == Vote(kind="rover", alpha=0.5)
    assert read.label is not None
    assert read.label.text == "the cat sat"


def test_a_recogniser_hands_its_vote_over_with_the_predictions(tmp_path: Path) -> None:
    config = RecogniserConfig(vote={"kind": "rover", "alpha": 0.5})  # type: ignore[arg-type]
    recogniser = LocalRecogniser(config, SimpleNamespace(folder=tmp_path))  # type: ignore[arg-type]
    assert recogniser(open_manifest([]), []).vote == Vote(kind="rover", alpha=0.5)


def test_decisions_are_named_after_the_vote_too() -> None:
    filters = [Spec(kind="empty")]
    votes = [Vote(), ROVER, Vote(kind="rover", alpha=0.5)]
    assert len({filter_hash(filters, vote) for vote in votes}) == 3


def test_a_run_is_configured_by_name_or_with_options() -> None:
    base: dict[str, Any] = {"run": {"dir": "x"}, "data": {"demo": True}}
    assert RunConfig.parse(base).vote == Vote()
    assert RunConfig.parse(base | {"recogniser": {"vote": "rover"}}).vote == ROVER
    options = {"kind": "rover", "alpha": 0.3, "null_confidence": 0.5}
    config = RunConfig.parse(base | {"recogniser": {"kind": "local", "vote": options}})
    assert config.vote == Vote(**options)  # type: ignore[arg-type]
    assert RunConfig.parse(config.dump()) == config
    with pytest.raises(
        ConfigError, match=r"vote\.kind: Input should be 'nearest', 'rover', 'surest' or 'first'"
    ):
        RunConfig.parse(base | {"recogniser": {"vote": "majority"}})
    with pytest.raises(ValidationError):
        RecogniserConfig(vote={"kind": "rover", "alpha": 2})  # type: ignore[arg-type]
