"""The configuration reader: whatever a user writes, it is read exactly or refused in one line."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from raysr.config import Config, Slot, Spec, apply_overrides, folders, load, read_extended, read_yaml
from raysr.errors import ConfigError


class Encoder(Config):
    layers: int = 4
    dropout: float = 0.1
    kind: str = "conformer"


class Run(Config):
    folder: Path = Path("runs/one")
    cycles: int
    encoder: Encoder = Encoder()
    tests: dict[str, Encoder] = Field(default_factory=dict)
    stages: tuple[Encoder, ...] = ()
    note: str | None = None


class Filter:
    class Config(Config):
        minimum: float = 0.5

    def __init__(self, config: "Filter.Config", context: Any) -> None:
        self.config, self.context = config, context


SLOT = Slot("filter", {"score": f"{__name__}:Filter", "agreement": f"{__name__}:Filter"})

keys = st.text("abcdefgh_", min_size=1, max_size=6)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("abc: #'\"-é日", max_size=8)
)
trees = st.dictionaries(
    keys, st.recursive(scalars, lambda c: st.dictionaries(keys, c, max_size=3), max_leaves=6)
)


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def attempt(call: Any, *arguments: Any) -> tuple[Any, str]:
    """Return what the call returned, or the message it refused with."""
    try:
        return call(*arguments), ""
    except ConfigError as error:
        return None, str(error)


@given(
    st.builds(
        Run,
        cycles=st.integers(),
        note=st.none() | st.text(max_size=20),
        folder=st.just(Path("a/b")),
        encoder=st.builds(Encoder, layers=st.integers(), dropout=st.floats(allow_nan=False)),
    )
)
def test_what_is_dumped_as_yaml_parses_to_an_equal_configuration(run: Run) -> None:
    assert Run.parse(yaml.safe_load(yaml.safe_dump(run.dump()))) == run


@pytest.mark.parametrize(
    ("data", "key", "nearest"),
    [
        ({"cycels": 3}, "cycels", "cycles"),
        ({"cycles": 3, "encoder": {"layer": 2}}, "encoder.layer", "layers"),
        ({"cycles": 3, "tests": {"clean": {"dropot": 0}}}, "tests.clean.dropot", "dropout"),
        ({"cycles": 3, "stages": [{}, {"kid": 1}]}, "stages.1.kid", "kind"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(data: dict[str, Any], key: str, nearest: str) -> None:
    assert f"unknown key '{key}'; did you mean '{nearest}'?" in refusal(Run.parse, data)


def test_a_wrong_value_names_key_and_value() -> None:
    message = refusal(Run.parse, {"cycles": "three"}, "demo.yaml")
    assert message.startswith("demo.yaml: cycles: ")
    assert "'three'" in message


def test_a_missing_key_is_named() -> None:
    assert "'cycles' is required" in refusal(Run.parse, {})


@pytest.mark.parametrize("data", [[1], "text", 3])
def test_a_group_that_is_no_mapping_is_refused(data: Any) -> None:
    refusal(Run.parse, data)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        Encoder().layers = 5


@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.text("{}[]:-?&*!|>'\"%@`#,0a \n\t").map(str.encode)
)
def test_any_file_is_read_as_a_mapping_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        path = Path(file.name)
        path.write_bytes(content)
        result, message = attempt(read_yaml, path)
        assert isinstance(result, dict) or (str(path) in message and "\n" not in message)


@pytest.mark.parametrize(
    "text", ["day: 2024-13-45", "a: " + "[" * 5000, "a: 0b_", "a: !!python/object:os.system {}"]
)
def test_what_pyyaml_fails_on_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert "a.yaml" in refusal(read_yaml, tmp_path / "a.yaml")


def test_a_key_written_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("cycles: 1\nencoder: {layers: 2}\ncycles: 3\n")
    message = refusal(read_yaml, tmp_path / "a.yaml")
    assert "line 3" in message
    assert "'cycles' is written twice" in message


def test_a_merge_key_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: &base {layers: 2, dropout: 0}\nencoder: {<<: *base, layers: 3}\n")
    assert read_yaml(tmp_path / "a.yaml")["encoder"] == {"layers": 3, "dropout": 0}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.yaml") in refusal(read_yaml, tmp_path / "none.yaml")


@given(trees, st.lists(keys, min_size=1, max_size=3), scalars)
def test_an_override_sets_its_key_and_leaves_everything_else(
    tree: dict[str, Any], path: list[str], value: Any
) -> None:
    before = yaml.safe_dump(tree)
    text = (
        yaml.safe_dump(value, allow_unicode=True, default_flow_style=True)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
    result, message = attempt(apply_overrides, tree, [f"{'.'.join(path)}={text}"])
    if message:
        assert "holds a value" in message
        return
    node: Any = result
    for part in path[:-1]:
        node = node[part]
    assert node.pop(path[-1]) == value
    assert yaml.safe_dump(tree) == before
    expected = yaml.safe_load(before)
    node = expected
    for part in path[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
    node.pop(path[-1], None)
    assert result == expected


@given(st.text(max_size=30))
def test_any_override_is_applied_or_refused_in_one_line(override: str) -> None:
    result, message = attempt(apply_overrides, {"a": [1, {"b": 2}], "c": "d"}, [override])
    assert isinstance(result, dict) or override in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.1.b=3", {"a": [1, {"b": 3}], "c": "d"}),
        ("a.0=[x, y]", {"a": [["x", "y"], {"b": 2}], "c": "d"}),
        ("c=", {"a": [1, {"b": 2}], "c": None}),
        ("c=e=f", {"a": [1, {"b": 2}], "c": "e=f"}),
    ],
)
def test_overrides_reach_into_lists_by_number(override: str, expected: dict[str, Any]) -> None:
    assert apply_overrides({"a": [1, {"b": 2}], "c": "d"}, [override]) == expected


@pytest.mark.parametrize(
    "override",
    ["a.2=1", "a.x=1", "a.-1=1", "a.0.b=1", "c.x=1", "c", "=1", "a..b=1", "c=[1", "c={a: 1, a: 2}", "a.²=1"],
)
def test_a_wrong_override_is_refused_by_name(override: str) -> None:
    assert override in refusal(apply_overrides, {"a": [1, {"b": 2}], "c": "d"}, [override])


def test_a_slot_builds_what_the_short_name_or_the_full_name_says() -> None:
    for kind in ("score", f"{__name__}:Filter"):
        built = SLOT.build(Spec.model_validate({"kind": kind, "minimum": 0.7}), context="context")
        assert (type(built), built.config.minimum, built.context) == (Filter, 0.7, "context")
    assert SLOT.check(Spec(kind="score")).options == {"minimum": 0.5}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("scoer", "did you mean 'score'?"),
        ("raysr.no_such:Thing", "no module 'raysr.no_such'"),
        ("no_such_package.part:Thing", "no module 'no_such_package.part'"),
        ("raysr.errors:Thing", "has no class 'Thing'"),
        ("raysr.config:load", "has no class 'load'"),
        (":Thing", "no filter is called"),
        ("..relative:Thing", "no filter is called"),
        ("", "no filter is called"),
    ],
)
def test_a_kind_that_names_nothing_is_refused(kind: str, expected: str) -> None:
    assert expected in refusal(SLOT.build, Spec(kind=kind), None)


def test_an_option_of_a_component_is_checked_where_it_is_used() -> None:
    assert "filter (score): unknown key 'minimun'; did you mean 'minimum'?" in refusal(
        SLOT.check, Spec.model_validate({"kind": "score", "minimun": 1})
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import no_such_dependency\n", "needs the package 'no_such_dependency'"),
        ("raise ValueError('of mine')\n", "failed with ValueError: of mine"),
        ("def broken(:\n", "failed with SyntaxError"),
        ("import sys\nsys.nothing\n", "failed with AttributeError"),
    ],
)
def test_a_users_module_that_fails_to_import_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: str
) -> None:
    name = f"users_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert expected in refusal(SLOT.build, Spec(kind=f"{name}:Mine"), None)


def test_a_class_beside_the_configuration_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_it.py").write_text("class Mine:\n    def __init__(self, config, context): ...\n")
    (tmp_path / "run.yaml").write_text("cycles: 2\nencoder: {layers: 1}\n")
    run = load(Run, tmp_path / "run.yaml", ["encoder.layers=3", "note=later"])
    assert (run.cycles, run.encoder.layers, run.note) == (2, 3, "later")
    assert type(SLOT.build(Spec(kind="beside_it:Mine"), None)).__name__ == "Mine"


def test_a_file_extends_another_group_by_group(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.yaml").write_text(
        "name: a\nlist: [1, 2]\ngroup: {kind: x, one: 1, deep: {p: 1, q: 2}}\n"
    )
    (tmp_path / "b.yaml").write_text("extends: base/a.yaml\nlist: [3]\ngroup: {two: 2, deep: {q: 3}}\n")
    (tmp_path / "c.yaml").write_text("extends: b.yaml\ngroup: {kind: y, three: 3}\n")
    whole = read_extended(tmp_path / "b.yaml")
    assert whole == {
        "name": "a",
        "list": [3],
        "group": {"kind": "x", "one": 1, "two": 2, "deep": {"p": 1, "q": 3}},
    }
    assert read_extended(tmp_path / "c.yaml") == {
        "name": "a",
        "list": [3],
        "group": {"kind": "y", "three": 3},
    }


def test_a_group_of_the_default_kind_may_name_it_and_numbers_are_keys_like_texts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("group: {one: 1}\nfrom_cycle: {1: {x: 1, deep: {p: 1}}}\n")
    (tmp_path / "b.yaml").write_text(
        "extends: a.yaml\ngroup: {kind: x, two: 2}\nfrom_cycle: {'1': {deep: {q: 2}}}\n"
    )
    whole = read_extended(tmp_path / "b.yaml")
    assert whole == {
        "group": {"kind": "x", "one": 1, "two": 2},
        "from_cycle": {1: {"x": 1, "deep": {"p": 1, "q": 2}}},
    }
    assert apply_overrides(whole, ["from_cycle.1.deep.p=3", "from_cycle.2.x=4"])["from_cycle"] == {
        1: {"x": 1, "deep": {"p": 3, "q": 2}},
        "2": {"x": 4},
    }


def test_classes_may_lie_beside_any_file_of_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "beside_the_base.py").write_text(
        "class Mine:\n    def __init__(self, config, context): ...\n"
    )
    (tmp_path / "base.yaml").write_text("cycles: 2\n")
    (tmp_path / "mine" / "run.yaml").write_text("extends: ../base.yaml\nencoder: {layers: 1}\n")
    assert folders(tmp_path / "mine" / "run.yaml") == [tmp_path / "mine", tmp_path]
    load(Run, tmp_path / "mine" / "run.yaml")
    assert type(SLOT.build(Spec(kind="beside_the_base:Mine"), None)).__name__ == "Mine"


def test_what_cannot_be_extended_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    (tmp_path / "c.yaml").write_text("extends: gone.yaml\n")
    (tmp_path / "d.yaml").write_text("extends: [a.yaml]\n")
    for name, told in (("a", "extends it in turn"), ("c", r"gone\.yaml"), ("d", "name another YAML file")):
        with pytest.raises(ConfigError, match=told):
            read_extended(tmp_path / f"{name}.yaml")
