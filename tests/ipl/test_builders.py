"""Builders make teachers of the pool: the newest, the best, averages of them, and what external teachers take in."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from raysr.config import Spec
from raysr.decode.recognise import DecodeConfig
from raysr.errors import ConfigError, PoolError
from raysr.ipl import plugins
from raysr.ipl.builder import ema_shares
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import Entry, EntryConfig, Pool, check_alike
from raysr.teachers.base import TEACHERS, TeacherContext
from raysr.text.tokeniser import Tokeniser

WERS = [0.5, 0.2, 0.4]
CONFIG = ModelConfig(
    encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
    decoder=DecoderConfig(heads=2, feed_forward=16),
)


def publish(
    pool: Pool, cycle: int, dev_wer: float | None, texts: str = "one two", model: ModelConfig = CONFIG
) -> Entry:
    torch.manual_seed(cycle)
    tokeniser = Tokeniser.train([texts])
    metrics = {"cycle": cycle} | ({} if dev_wer is None else {"dev_wer": dev_wer})
    config = EntryConfig(model=model, decode=DecodeConfig(beam=5 + cycle))
    made = AsrModel(model, tokeniser.vocab_size)
    return pool.publish(f"cycle-{cycle:03d}", made, tokeniser, None, metrics, config)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Three students; the second is the best."""
    pool = Pool(tmp_path / "pool")
    for cycle, wer in enumerate(WERS):
        publish(pool, cycle, wer)
    return pool


def build(pool: Pool, cycle: int = 1, **spec: Any) -> list[Spec]:
    return list(plugins.BUILDERS.build(Spec(**spec), SimpleNamespace(cycle=cycle))(pool))


def names(teachers: list[Spec]) -> list[list[str]]:
    return [[Path(path).name for path in teacher.options["entries"]] for teacher in teachers]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"kind": "latest"}, [["cycle-002"]]),
        ({"kind": "best"}, [["cycle-001"]]),
        ({"kind": "average", "newest": 2}, [["cycle-002", "cycle-001"]]),
        ({"kind": "average", "best": 2}, [["cycle-001", "cycle-002"]]),
        ({"kind": "average"}, [["cycle-002", "cycle-001", "cycle-000"]]),
        ({"kind": "average", "best": 2, "metric": "unknown"}, [["cycle-002", "cycle-001"]]),
        ({"kind": "ema"}, [["cycle-002", "cycle-001", "cycle-000"]]),
        ({"kind": "ema", "newest": 2}, [["cycle-002", "cycle-001"]]),
        ({"kind": "ensemble", "newest": 2}, [["cycle-002"], ["cycle-001"]]),
        ({"kind": "ensemble", "best": 2}, [["cycle-001"], ["cycle-002"]]),
    ],
)
def test_builders_pick_from_the_pool(
    spec: dict[str, Any], expected: list[list[str]], pool: Pool, tmp_path: Path
) -> None:
    assert names(build(pool, **spec)) == expected
    assert build(Pool(tmp_path / "empty"), **spec) == []


def test_a_teacher_is_described_with_the_settings_it_decodes_with(pool: Pool) -> None:
    [teacher] = build(pool, kind="average", best=2)
    assert teacher.options["decode"]["beam"] == 6
    assert TEACHERS.check(teacher).options == teacher.options | {"shares": None}


def test_newest_and_best_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="newest or best: give one of them"):
        plugins.BUILDERS.check(Spec(kind="average", newest=2, best=2))  # type: ignore[call-arg]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_an_ema_teacher_has_the_weights_of_the_recursion(decay: float, pool: Pool) -> None:
    [teacher] = build(pool, kind="ema", decay=decay)
    loaded = TEACHERS.build(teacher, TeacherContext()).recogniser.model.state_dict()
    students = [load_file(entry.weights) for entry in pool.entries()]
    moving = {name: tensor.double() for name, tensor in students[0].items()}
    for student in students[1:]:
        moving = {name: decay * old + (1 - decay) * student[name].double() for name, old in moving.items()}
    for name, tensor in loaded.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, moving[name].to(tensor.dtype), rtol=0, atol=1e-7)


@given(st.integers(1, 30), st.floats(0, 0.99))
def test_ema_shares_are_those_of_the_recursion(count: int, decay: float) -> None:
    shares = ema_shares(count, decay)
    moving = [1.0]  # what each checkpoint counts for, the newest first, after the oldest alone
    for _ in range(count - 1):
        moving = [1 - decay, *(decay * share for share in moving)]
    assert shares == pytest.approx(moving)
    assert sum(shares) == pytest.approx(1)


def test_students_that_cannot_be_averaged_are_passed_over(pool: Pool) -> None:
    with (pool.root / "cycle-001" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    [teacher] = build(pool, kind="ema", decay=0.25)
    assert names([teacher]) == [["cycle-002", "cycle-000"]]
    assert teacher.options["shares"] == [0.75, 0.25]
    heads = CONFIG.model_copy(update={"encoder": CONFIG.encoder.model_copy(update={"heads": 4})})
    publish(pool, 3, 0.1, model=heads)  # its weights have the same shapes, and mean something else
    publish(pool, 4, 0.3, model=heads)
    for kind in ("ema", "average"):
        assert names(build(pool, kind=kind)) == [["cycle-004", "cycle-003"]]
    assert names(build(pool, kind="average", best=3)) == [["cycle-003", "cycle-004"]]
    publish(pool, 5, 0.1, texts="one two three four", model=heads)  # other tokens
    assert names(build(pool, kind="ema")) == [["cycle-005"]]
    start = plugins.INITIALIZERS.build(Spec(kind="average"), SimpleNamespace(folder=pool.root.parent))(pool)
    assert start.parents == ("cycle-005",)
    with pytest.raises(PoolError, match=r"cycle-002 has another shape than .*cycle-004"):
        check_alike([pool.get("cycle-004"), pool.get("cycle-002")])


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, ["teachers"] * 4),
        ({"join": 1}, ["teachers", "both", "both", "both"]),
        ({"until": 2}, ["teachers", "teachers", "student", "student"]),
        ({"join": 1, "until": 3}, ["teachers", "both", "both", "student"]),
    ],
)
def test_external_teachers_take_in_the_student_and_hand_over(
    options: dict[str, int], kinds: list[str], pool: Pool
) -> None:
    external = ["moonshine", "pocketsphinx"]
    expected = {"teachers": external, "both": [*external, "pool_model"], "student": ["pool_model"]}
    for cycle, kind in enumerate(kinds):
        assert [spec.kind for spec in build(pool, cycle, kind="external", **options)] == expected[kind]


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        ("best", [["cycle-001"]]),
        ({"kind": "ema", "decay": 0.5}, [["cycle-002", "cycle-001", "cycle-000"]]),
        ({"kind": "ensemble", "best": 2}, [["cycle-001"], ["cycle-002"]]),
    ],
)
def test_what_joins_external_teachers_may_be_any_teacher_of_the_pool(
    student: Any, expected: list[list[str]], pool: Pool
) -> None:
    joined = build(pool, kind="external", teachers=[{"kind": "moonshine"}], join=1, student=student)
    assert joined[0].kind == "moonshine"
    assert names(joined[1:]) == expected
    assert names(build(pool, kind="external", until=1, student=student)) == expected


def test_wrong_parts_of_external_teachers_are_told_before_a_run_begins() -> None:
    def check(**options: Any) -> None:
        plugins.BUILDERS.check(Spec(kind="external", **options))

    with pytest.raises(ConfigError, match="makes teachers of the pool"):
        check(student="external")
    with pytest.raises(ConfigError, match="did you mean 'ema'"):
        check(student="emma")
    with pytest.raises(ConfigError, match="did you mean 'dictionary'"):
        check(teachers=[{"kind": "pocketsphinx", "dictionry": "x"}])
    with pytest.raises(ConfigError, match="teachers"):
        check(teachers=[])


def test_shares_have_to_fit_their_entries() -> None:
    for shares in ([0.5], [0.5, 0.6]):
        with pytest.raises(ConfigError, match="shares: 2 numbers that add up to 1"):
            TEACHERS.check(Spec(kind="pool_model", entries=["a", "b"], shares=shares))  # type: ignore[call-arg]
