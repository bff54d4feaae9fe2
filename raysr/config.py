"""Configuration: YAML plus dotted overrides, read into typed models; unknown keys name the nearest known one.

Every component declares its own typed part as a nested class ``Config`` and is built as
``Component(config, context)``. A ``Slot`` maps the short names a YAML file may use to those classes; any
other ``package.module:Class`` names the user's own.
"""

import copy
import difflib
import importlib
import sys
from collections.abc import Hashable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from raysr.errors import ConfigError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every typed configuration: immutable, and closed against unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, data: Mapping[str, Any] | None, where: str = "configuration") -> Self:
        """Validate ``data``; raise :class:`ConfigError` naming the key, and the nearest known one."""
        if data is not None and not isinstance(data, Mapping):
            raise ConfigError(f"{where}: should be a mapping of keys, not a {type(data).__name__}")
        try:
            return cls.model_validate(dict(data or {}))
        except ValidationError as error:
            raise ConfigError(_explain(error, cls, where)) from None

    def dump(self) -> dict[str, Any]:
        """Return plain data that :meth:`parse` reads back to an equal configuration."""
        return self.model_dump(mode="json")


class Spec(BaseModel):
    """A component as a YAML file writes it: its ``kind`` and the options of that kind."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Slot:
    """A place in a configuration that one of several components can fill."""

    def __init__(self, name: str, known: Mapping[str, str]) -> None:
        self.name = name
        self.known = dict(known)

    def resolve(self, kind: str) -> type[Any]:
        """Return the class that ``kind`` names: one of ours, or the user's ``package.module:Class``."""
        target = self.known.get(kind, kind)
        module_name, _, class_name = target.partition(":")
        if not (class_name and all(part.isidentifier() for part in module_name.split("."))):
            raise ConfigError(
                f"{self.name}.kind: no {self.name} is called '{kind}'{_nearest(kind, self.known)}; "
                f"known: {', '.join(sorted(self.known))}, or your own 'package.module:Class'"
            )
        found = getattr(self._import(module_name), class_name, None)
        if not isinstance(found, type):
            raise ConfigError(f"{self.name}.kind: module '{module_name}' has no class '{class_name}'")
        return found

    def _import(self, module_name: str) -> ModuleType:
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"{self.name}.kind: '{module_name}' needs the package '{error.name}'"
                ) from None
            looked_in = ", ".join(folder or "." for folder in sys.path[:3])
            raise ConfigError(
                f"{self.name}.kind: no module '{module_name}' (looked in {looked_in}, …)"
            ) from None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self.name}.kind: importing '{module_name}' failed with {reason}") from error

    def check(self, spec: Spec) -> Spec:
        """Validate the options of ``spec`` and return it with every default filled in."""
        return Spec(kind=spec.kind, **self._options(spec).dump())

    def build(self, spec: Spec, context: Any) -> Any:
        """Build the component that ``spec`` describes as ``Class(config, context)``."""
        return self.resolve(spec.kind)(self._options(spec), context)

    def _options(self, spec: Spec) -> Config:
        options: type[Config] = getattr(self.resolve(spec.kind), "Config", Config)
        return options.parse(spec.options, where=f"{self.name} ({spec.kind})")


def load(cls: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Read a YAML file, with what it ``extends``, and apply ``dotted.key=value`` overrides.

    The folder of the file is added to ``sys.path``, so that a user's own classes may lie beside it.
    """
    path = Path(path)
    data = read_extended(path)
    sys.path[:0] = [folder for folder in (*map(str, folders(path)), "") if folder not in sys.path]
    return cls.parse(apply_overrides(data, overrides), where=str(path))


def read_extended(path: Path) -> dict[str, Any]:
    """Read a YAML mapping on top of the one whose file its key ``extends`` names, relative to its own folder.

    Raises:
        ConfigError: a file cannot be read, or extends itself in the end.
    """
    return reduce(merged, (data for _, data in reversed(_chain(path))))


def folders(path: Path) -> list[Path]:
    """Return the folders of a YAML file and of what it extends: a user's own classes may lie in any of them."""
    return list(dict.fromkeys(file.resolve().parent for file, _ in _chain(path)))


def _chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return a file, the one that it extends, and so on, with what stands in each."""
    files: list[tuple[Path, dict[str, Any]]] = []
    while True:
        data = read_yaml(path)
        base = data.pop("extends", None)
        files.append((path, data))
        if base is None:
            return files
        if not isinstance(base, str):
            raise ConfigError(f"{path}: extends should name another YAML file, not {_short(base)}")
        beneath = (path.parent / base).resolve()
        if beneath in (file.resolve() for file, _ in files):
            raise ConfigError(f"{path}: extends {base}, which extends it in turn")
        path = beneath


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``, group by group; one of another ``kind`` takes the place of the whole group."""
    result: dict[Any, Any] = dict(base)
    for name, value in changes.items():
        key = _key(result, name)
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and _same_kind(before, value):
            value = merged(before, value)
        result[key] = value
    return result


def _same_kind(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether a group goes on; one that names no kind is of the default one, and may be named so later."""
    return "kind" not in before or after.get("kind", before["kind"]) == before["kind"]


def _key(mapping: Mapping[Any, Any], name: Any) -> Any:
    """Return the key of a mapping that is written like ``name``: YAML reads 1 as a number, "1" and a.1=… as text."""
    return next((key for key in mapping if str(key) == str(name)), name)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raise :class:`ConfigError` that names the file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"cannot read configuration {path}: {reason}") from None
    try:
        data = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ConfigError(f"{path}{line}: not valid YAML ({problem})") from None
    except (ValueError, RecursionError) as error:  # what PyYAML lets through, such as the date 2024-13-45
        raise ConfigError(f"{path}: not valid YAML ({error})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys, not a {type(data).__name__}")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``data`` with every ``a.b.c=value`` set; values are read as YAML, list items by their number."""
    result: dict[str, Any] = copy.deepcopy(dict(data))
    for override in overrides:
        key, equals, value = override.partition("=")
        parts = key.split(".")
        if not equals or not all(parts):
            raise ConfigError(f"override '{override}' should look like some.key=value")
        node: Any = result
        for part in parts[:-1]:
            node = _descend(node, part, override)
        node[_place(node, parts[-1], override)] = _value(value, override)
    return result


def _descend(node: Any, part: str, override: str) -> Any:
    place = _place(node, part, override)
    if isinstance(node, dict) and node.get(place) is None:
        node[place] = {}
    child = node[place]
    if not isinstance(child, dict | list):
        raise ConfigError(f"override '{override}': '{part}' holds a value, not a group of keys")
    return child


def _place(node: dict[Any, Any] | list[Any], part: str, override: str) -> Any:
    if isinstance(node, dict):
        return _key(node, part)
    if not (part.isascii() and part.isdigit() and int(part) < len(node)):
        raise ConfigError(f"override '{override}': '{part}' should be a number below {len(node)}")
    return int(part)


def _value(text: str, override: str) -> Any:
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(
            f"override '{override}': '{text}' is not a YAML value; quote it to mean text"
        ) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML where a key written twice is an error, and not the silent loss of its first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _explain(error: ValidationError, cls: type[BaseModel], where: str) -> str:
    # A misspelt key often leaves a required one missing: the misspelling is the one to tell.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    location = tuple(first["loc"])
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = _fields_at(cls, location[:-1])
        hint = _nearest(str(location[-1]), known)
        return f"{where}: unknown key '{key}'{hint}; known: {', '.join(sorted(known))}"
    if first["type"] == "missing":
        return f"{where}: '{key}' is required"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if cls.model_config.get("hide_input_in_errors") else f" (got {_short(first.get('input'))})"
    return f"{where}: {key + ': ' if key else ''}{message}{got}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _fields_at(cls: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Return the field names of the model that ``location`` points into."""
    for part in location:
        field = cls.model_fields.get(str(part))
        if field is None:
            continue
        models = _models_in(field.annotation)
        if models:
            cls = models[0]
    return list(cls.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
