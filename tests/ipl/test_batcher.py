"""Batchers, the weights of pseudo-labels, and the sources that a training draws from."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.config import Spec
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError, RunError
from raysr.ipl import plugins
from raysr.ipl.config import RunConfig
from raysr.ipl.handover import Batches, read_batches, write_batches
from raysr.ipl.mixing import training_sources
from raysr.ipl.weights import WEIGHERS, check_weight


def utterance(name: str, hours: float = 1.0, score: float | None = None, **tags: str) -> Utterance:
    custom = {} if score is None else {"label_score": score}
    return Utterance(name, f"/{name}.wav", 3600 * hours, text="yes", tags=tags, custom=custom)


def build(folder: Path, **spec: Any) -> Any:
    return plugins.BATCHERS.build(Spec(**spec), SimpleNamespace(folder=folder))


def pseudo_weights(batches: Batches) -> dict[str, float]:
    return {u.id: u.custom.get("loss_weight", 1.0) for u in open_manifest(batches.pseudo or ())}


class Zeros:
    """Weighs the first kept utterance nothing."""

    def __init__(self, config: Any, context: Any) -> None:
        self.folder = context.folder

    def __call__(self, kept: list[Utterance]) -> list[float]:
        return [0.0, *[0.5] * (len(kept) - 1)]


class Wrong(Zeros):
    """Weighs with a number that none is."""

    def __call__(self, kept: list[Utterance]) -> list[float]:
        return [math.nan] * len(kept)


class Fewer(Zeros):
    """Forgets an utterance."""

    def __call__(self, kept: list[Utterance]) -> list[float]:
        return [1.0] * (len(kept) - 1)


@pytest.mark.parametrize("kind", ["mixed", "temperature"])
def test_a_constant_weight_is_that_of_pseudo_labels_alone(tmp_path: Path, kind: str) -> None:
    batches = build(tmp_path, kind=kind, weight=0.4)([utterance("p")], open_manifest([utterance("l")]))
    assert pseudo_weights(batches) == {"p": 0.4}
    assert "loss_weight" not in next(iter(open_manifest(batches.labelled or ()))).custom


def test_a_weigher_of_ones_own_may_leave_out(tmp_path: Path) -> None:
    batcher = build(tmp_path, kind="mixed", weight={"kind": f"{__name__}:Zeros"})
    assert pseudo_weights(batcher([utterance("a"), utterance("b")], None)) == {"b": 0.5}


@pytest.mark.parametrize(
    ("kind", "told"), [("Wrong", "utterance a weighs nan"), ("Fewer", "1 weights for 2")]
)
def test_a_weigher_that_is_wrong_is_told(tmp_path: Path, kind: str, told: str) -> None:
    batcher = build(tmp_path, kind="mixed", weight={"kind": f"{__name__}:{kind}"})
    with pytest.raises(RunError, match=told):
        batcher([utterance("a"), utterance("b")], None)


@given(st.lists(st.none() | st.integers(-9, 3).map(float), min_size=1, max_size=30), st.floats(0.1, 1))
def test_surer_labels_weigh_more_on_any_scale(scores: list[float | None], floor: float) -> None:
    kept = [utterance(f"u{n}", score=score) for n, score in enumerate(scores)]
    weights = WEIGHERS.build(Spec(kind="score", floor=floor), SimpleNamespace())(kept)
    order = sorted(range(len(kept)), key=lambda n: -math.inf if scores[n] is None else scores[n])
    assert all(weights[a] <= weights[b] for a, b in itertools.pairwise(order))
    assert all(floor <= weight <= 1 for weight in weights)
    known = [s for s in scores if s is not None]
    if known:
        assert max(weights) == pytest.approx(1)
        affine = [
            utterance(u.id, score=None if s is None else 2 * s - 7) for u, s in zip(kept, scores, strict=True)
        ]
        assert WEIGHERS.build(Spec(kind="score", floor=floor), SimpleNamespace())(affine) == pytest.approx(
            weights
        )


def test_a_mean_probability_is_a_weight() -> None:
    kept = [utterance("a", score=-0.5), utterance("b", score=2.0), utterance("c")]
    weights = WEIGHERS.build(Spec(kind="score", by="probability", floor=0.2), SimpleNamespace())(kept)
    assert weights == pytest.approx([0.2 + 0.8 * math.exp(-0.5), 1.0, 0.2])


def test_weights_are_checked_when_the_configuration_is_read(tmp_path: Path) -> None:
    def read(weight: Any) -> Any:
        config = {"run": {"dir": "x"}, "data": {"demo": True}, "batcher": {"weight": weight}}
        return RunConfig.parse(config).batcher.options["weight"]

    assert read(0.5) == {"kind": "constant", "value": 0.5}
    assert read({"kind": "score"}) == {"kind": "score", "by": "rank", "floor": 0.2}
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        read({"kind": "scor"})
    with pytest.raises(ConfigError, match="did you mean 'floor'"):
        read({"kind": "score", "flor": 1})
    with pytest.raises(ConfigError, match="greater than 0"):
        check_weight(0)


PARTS = {
    "labelled": [utterance("l1", 1, domain="call"), utterance("l2", 1)],
    "pseudo": [utterance("p1", 30, domain="call"), utterance("p2", 2, domain="meeting")],
    "rehearsal": [utterance("r", 8)],
}


def shares(batches: Batches, parts: Any = None) -> dict[str, float]:
    return {source.name: source.share for source in training_sources(batches, parts or PARTS)}


def test_rehearsal_is_labelled_where_shares_are_given() -> None:
    sources = training_sources(Batches(None, None, 0.4), PARTS)
    assert [(s.name, [u.id for u in s.utterances], s.share) for s in sources] == [
        ("labelled", ["l1", "l2", "r"], 0.4),
        ("pseudo", ["p1", "p2"], 0.6),
    ]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_is_alone_is_all_there_is(share: float) -> None:
    batches = Batches(None, None, share)
    assert shares(batches, {**PARTS, "pseudo": []}) == {"labelled": 1.0}
    assert shares(batches, {**PARTS, "labelled": [], "rehearsal": []}) == {"pseudo": 1.0}


def test_a_share_of_nothing_is_no_source() -> None:
    assert shares(Batches(None, None, 1.0)) == {"labelled": 1.0}
    assert shares(Batches(None, None, 0.0)) == {"pseudo": 1.0}


def test_temperature_mixes_the_parts_by_their_hours() -> None:
    assert shares(Batches(None, None, temperature=2.0)) == pytest.approx(
        {name: math.sqrt(h) / (math.sqrt(2) + math.sqrt(32) + math.sqrt(8)) for name, h in
         {"labelled": 2, "pseudo": 32, "rehearsal": 8}.items()}
    )  # fmt: skip


def test_a_tag_makes_sources_of_its_values() -> None:
    found = shares(Batches(None, None, temperature=1.0, by="domain"))
    assert found == pytest.approx(
        {
            "labelled, domain call": 1 / 42,
            "labelled": 1 / 42,
            "pseudo, domain call": 30 / 42,
            "pseudo, domain meeting": 2 / 42,
            "rehearsal": 8 / 42,
        }
    )


def test_batches_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", [replace(utterance("r"), text="Yes")])
    batcher = build(
        tmp_path, kind="temperature", temperature=math.inf, by="domain", rehearse=str(tmp_path / "r.jsonl")
    )
    batches = batcher([utterance("p")], None)
    write_batches(tmp_path / "batches.json", batches)
    assert read_batches(tmp_path / "batches.json") == batches
    old = {"labelled": "labelled.jsonl", "pseudo": None, "labelled_share": 0.5, "rehearsal": None}
    (tmp_path / "batches.json").write_text(json.dumps(old))
    assert read_batches(tmp_path / "batches.json") == Batches(tmp_path / "labelled.jsonl", None, 0.5)
