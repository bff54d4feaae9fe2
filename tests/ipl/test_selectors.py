"""Selectors that weigh strata and read earlier cycles; what is labelled once is carried over, as far as asked."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.config import Spec
from raysr.corpus.manifest import Manifest, open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError
from raysr.ipl.carry import Carrying
from raysr.ipl.earlier import Earlier
from raysr.ipl.handover import write_json
from raysr.ipl.plugins import SELECTORS
from raysr.ipl.predictions import Prediction, Predictions, TeacherHypothesis
from raysr.ipl.progress import Progress
from raysr.teachers.base import TeacherOutput


def context(folder: Path, cycle: int = 2, seed: int = 1) -> Any:
    return SimpleNamespace(
        cycle=cycle,
        seed=seed,
        folder=folder / f"{cycle:03d}",
        labelling_round=max(0, cycle - 1),
        earlier=Earlier(folder, cycle),
        progress=Progress(quiet=True),
    )


def select(own: Any, utterances: Sequence[Utterance], **spec: Any) -> list[str]:
    chosen = SELECTORS.build(Spec(**spec), own)(own.cycle, open_manifest(list(utterances)))
    return [u.id for u in chosen]


def said(name: str, text: str, cycle: int, score: float | None = None) -> Prediction:
    output = TeacherOutput(text, normalised_score=score)
    return Prediction(name, cycle, 1.0, (TeacherHypothesis("t", "1", output),))


def labelled(folder: Path, cycle: int, rows: Sequence[Prediction], finished: bool = True) -> None:
    here = folder / f"{cycle:03d}"
    if rows:
        Predictions(here / "predictions").write(rows)
    if finished:
        here.mkdir(exist_ok=True)
        write_json(here / "predictions.json", {"utterances": len(rows), "folder": str(here / "predictions")})


CORPORA = st.lists(st.tuples(st.floats(0.1, 20), st.sampled_from("abc")), min_size=1, max_size=40).map(
    lambda found: [
        Utterance(f"u{n:02d}", "/a.wav", seconds, speaker=name, tags={"room": name})
        for n, (seconds, name) in enumerate(found)
    ]
)


@given(CORPORA, st.randoms(), st.integers(0, 5))
def test_equal_quotas_are_as_large_as_the_smallest_stratum(
    utterances: list[Utterance], order: Any, seed: int
) -> None:
    own = context(Path("/nowhere"), seed=seed)
    chosen = set(select(own, utterances, kind="quota", by="tag:room"))
    there: dict[str, float] = {}
    for u in utterances:
        there[u.tags["room"]] = there.get(u.tags["room"], 0.0) + u.duration
    least = min(there.values())
    for room in there:
        own_ids = [u for u in utterances if u.tags["room"] == room]
        taken = sum(u.duration for u in own_ids if u.id in chosen)
        assert taken <= least + 1e-3
        left = [u.duration for u in own_ids if u.id not in chosen]
        assert not left or taken + max(left) > least - 1e-3
    shuffled = list(utterances)
    order.shuffle(shuffled)
    assert set(select(own, shuffled, kind="quota", by="tag:room")) == chosen


def test_a_quota_keeps_hours_and_shares_and_draws_others_in_another_cycle(tmp_path: Path) -> None:
    utterances = [Utterance(f"u{n:03d}", "/a.wav", 36.0, speaker="ab"[n % 2]) for n in range(200)]
    options = {"kind": "quota", "by": "speaker", "shares": {"a": 3, "b": 1}, "hours": 0.4}
    chosen = select(context(tmp_path), utterances, **options)
    assert sum(int(name[1:]) % 2 == 0 for name in chosen) == 30
    assert len(chosen) == 40
    assert select(context(tmp_path, cycle=3), utterances, **options) != chosen
    one = select(context(tmp_path), utterances, kind="quota", by="speaker", shares={"a": 1})
    assert len(one) == 100
    with_rest = select(context(tmp_path), utterances, kind="quota", shares={"a": 1}, rest=1.0)
    assert len(with_rest) == 200
    with pytest.raises(ConfigError, match="no utterance has speaker 'c'; there are a, b"):
        select(context(tmp_path), utterances, kind="quota", shares={"c": 1})


def test_a_quota_by_duration_names_strata_by_their_edges(tmp_path: Path) -> None:
    utterances = [Utterance(f"u{n}", "/a.wav", float(n)) for n in range(1, 11)]
    chosen = select(
        context(tmp_path), utterances, kind="quota", by="duration", edges=[3, 6], shares={"3 to 6 s": 1}
    )
    assert chosen == ["u3", "u4", "u5"]


UTTERANCES = [Utterance(f"u{n}", "/a.wav", 10.0 - n) for n in range(10)]


def test_ease_is_the_score_of_the_last_labelling_and_then_the_length(tmp_path: Path) -> None:
    labelled(tmp_path, 0, [said(f"u{n}", "x", 0, -float(n)) for n in range(4)])
    labelled(tmp_path, 1, [said("u3", "x", 1, 0.0)])
    labelled(tmp_path, 2, [said("u9", "x", 2, 0.0)])  # its own cycle is not an earlier one
    own = context(tmp_path)
    assert select(own, UTTERANCES, kind="curriculum", by="ease", share=0.1, grow=0.2) == ["u0", "u1", "u3"]
    five = select(own, UTTERANCES, kind="curriculum", by="ease", share=0.6, grow=0)
    assert five == ["u0", "u1", "u2", "u3", "u8", "u9"]


def test_useful_are_the_middle_and_what_was_never_labelled(tmp_path: Path) -> None:
    labelled(tmp_path, 1, [said(f"u{n}", "x", 1, -float(n)) for n in range(8)])
    own = context(tmp_path)
    chosen = select(own, UTTERANCES, kind="useful", band=[0.25, 0.75], explore=0)
    assert chosen == ["u2", "u3", "u4", "u5", "u8", "u9"]
    assert select(own, UTTERANCES, kind="useful", band=[0.25, 0.75], explore=1) == [u.id for u in UTTERANCES]
    assert select(context(tmp_path / "new"), UTTERANCES, kind="useful") == [u.id for u in UTTERANCES]


def test_drift_is_between_the_last_two_labellings(tmp_path: Path) -> None:
    texts = {"u0": ("abcd", "abcd"), "u1": ("abcd", "abcx"), "u2": ("abcd", "xyzw"), "u3": ("abcd", "abxx")}
    labelled(tmp_path, 0, [said(name, old, 0) for name, (old, _) in texts.items()])
    labelled(tmp_path, 1, [said(name, new, 1) for name, (_, new) in texts.items()])
    chosen = select(
        context(tmp_path), UTTERANCES[:4], kind="useful", by="drift", band=[0.25, 0.75], explore=0
    )
    assert chosen == ["u1", "u3"]


def test_what_is_impossible_is_refused() -> None:
    for spec, why in (
        ({"kind": "useful", "band": [0.9, 0.1]}, "smaller first"),
        ({"kind": "quota", "by": "room"}, "tag:NAME"),
        ({"kind": "quota", "shares": {"a": 0}}, "above 0"),
        ({"kind": "quota", "by": "duration", "edges": [4, 2]}, "edges rise"),
        ({"kind": "quota", "by": "duration", "edges": []}, "edges rise"),
        ({"kind": "all", "relabel": 1.5}, "relabel"),
    ):
        with pytest.raises(ConfigError, match=why):
            SELECTORS.check(Spec(**spec))


def test_earlier_gives_the_newest_labelling_of_each_once(tmp_path: Path) -> None:
    labelled(tmp_path, 0, [said("a", "old", 0), said("b", "old", 0)])
    labelled(tmp_path, 1, [said("a", "old", 0), said("b", "new", 1), Prediction("c", 1, 1.0, error="x")])
    labelled(tmp_path, 2, [said("a", "unfinished", 2)], finished=False)
    earlier = Earlier(tmp_path, 3)
    assert earlier.cycles() == [1, 0]
    assert {n: [p.cycle for p in rows] for n, rows in earlier.last(2).items()} == {"a": [0], "b": [1, 0]}
    assert earlier.last(1, {"b"}).keys() == {"b"}
    assert earlier.decisions(1) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "random"},
        {"kind": "curriculum"},
        {"kind": "curriculum", "by": "ease"},
        {"kind": "quota", "hours": 0.005},
        {"kind": "quota", "by": "duration"},
        {"kind": "useful"},
        {"kind": "useful", "by": "drift", "explore": 0.5},
    ],
)
@given(utterances=CORPORA, seed=st.integers(0, 9), order=st.randoms())
def test_a_selection_depends_on_seed_and_past_and_not_on_the_order(
    spec: dict[str, Any],
    utterances: list[Utterance],
    seed: int,
    order: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("cycles")
    for cycle in (0, 1):
        rows = [said(u.id, "x" * int(u.duration * (cycle + 1)), cycle, -u.duration) for u in utterances[::2]]
        labelled(folder, cycle, rows)
    own = context(folder, seed=seed)
    chosen = select(own, utterances, **spec)
    shuffled = list(utterances)
    order.shuffle(shuffled)
    again = select(own, shuffled, **spec)
    assert sorted(again) == sorted(chosen)
    assert len(set(chosen)) == len(chosen)
    assert [u.id for u in utterances if u.id in set(chosen)] == chosen


class Fresh:
    """Labels what has no row, and remembers it."""

    def __init__(self, own: Any) -> None:
        self.own = own
        self.heard: list[str] = []

    def __call__(self, selected: Manifest, teachers: Sequence[Spec]) -> Predictions:
        predictions = Predictions(self.own.folder / "predictions")
        done = predictions.ids()
        self.heard = [u.id for u in selected if u.id not in done]
        if self.heard:
            predictions.write([said(name, f"cycle {self.own.cycle}", self.own.cycle) for name in self.heard])
        return predictions


@given(relabel=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 20))
def test_the_share_to_relabel_gets_fresh_labels_and_the_rest_keep_theirs(
    relabel: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cycles")
    utterances = [Utterance(f"u{n:02d}", "/a.wav", 1.0) for n in range(60)]
    failed = Prediction("u00", 0, 1.0, error="unreadable")
    labelled(folder, 0, [failed, *(said(u.id, "cycle 0", 0) for u in utterances[1:50])])
    before = {u.id: "cycle 0" for u in utterances[1:50]}
    for cycle in (1, 2):
        own = context(folder, cycle, seed)
        fresh = Fresh(own)
        rows = {p.id: p for p in Carrying(fresh, relabel, own)(open_manifest(utterances), [])}
        labelled(folder, cycle, [])
        assert rows.keys() == {u.id for u in utterances}
        assert rows.keys() - before.keys() <= set(fresh.heard)  # new ones, and what failed
        for name, row in rows.items():
            assert row.label is not None
            assert row.label.text == (f"cycle {cycle}" if name in fresh.heard else before[name])
        again = set(fresh.heard) & before.keys()
        assert again == {0.0: set(), 1.0: before.keys()}.get(relabel, again)
        assert abs(len(again) - relabel * len(before)) < 5 * (60 * 0.25) ** 0.5
        resumed = Fresh(own)
        Carrying(resumed, relabel, own)(open_manifest(utterances), [])
        assert resumed.heard == []
        before = {name: row.label.text for name, row in rows.items() if row.label}
