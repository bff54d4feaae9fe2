"""Every selected utterance gets exactly one decision, whatever the teachers and filters did."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from raysr.ipl.decisions import decide, one_each, read_decisions, write_decisions
from raysr.ipl.predictions import Prediction, TeacherHypothesis
from raysr.teachers.base import TeacherOutput

IDS = st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=12)


def prediction(name: str, text: str | None) -> Prediction:
    output = TeacherOutput(text=text) if text is not None else TeacherOutput(error="lost")
    return Prediction(name, 0, 1.0, (TeacherHypothesis("t", "1", output),))


@given(IDS, st.data())
def test_exactly_one_decision_for_each_selected_utterance(selected: list[str], data: st.DataObject) -> None:
    predicted = data.draw(st.lists(st.sampled_from([*selected, "stranger"]), max_size=20))
    texts = {name: data.draw(st.none() | st.just("some words")) for name in set(predicted)}
    dropped = data.draw(st.sets(st.sampled_from([*selected, "stranger"])))

    def rule(predictions):
        return {p.id: "not believed" for p in predictions if p.id in dropped}

    made = decide([prediction(name, texts[name]) for name in predicted], {"mine": rule}, "h")
    decisions = one_each([(name, 1.0) for name in selected], made, "h")
    assert [d.id for d in decisions] == selected
    for d in decisions:
        expected = (
            "failed"
            if d.id not in texts or texts[d.id] is None
            else "filtered"
            if d.id in dropped
            else "kept"
        )
        assert d.status == expected
        assert (d.reason is None) == (d.status == "kept")
        assert (d.rule == "mine") == (d.status == "filtered")


def test_a_rule_sees_only_what_the_ones_before_it_left() -> None:
    seen: list[list[str]] = []

    def first(predictions):
        return {"b": "no b"}

    def second(predictions):
        seen.append([p.id for p in predictions])
        return {}

    rules = {"first": first, "second": second}
    rows = decide([prediction("a", "x"), prediction("b", "x"), prediction("c", None)], rules, "h")
    assert seen == [["a"]]
    assert [(d.id, d.status) for d in rows] == [("a", "kept"), ("b", "filtered"), ("c", "failed")]


def test_decisions_survive_the_disk(tmp_path: Path) -> None:
    rows = decide([prediction("a", "ä ö"), prediction("b", None)], {}, "h")
    write_decisions(tmp_path / "decisions.parquet", rows)
    assert read_decisions(tmp_path / "decisions.parquet") == rows
