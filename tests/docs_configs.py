"""YAML blocks of the documentation, read by raysr's own classes: run configurations, endpoints, teachers."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from docs_markdown import ROOT

from raysr.config import Spec, apply_overrides, read_yaml
from raysr.errors import ConfigError
from raysr.ipl.config import RunConfig, read_config
from raysr.serving.settings import ServingConfig, UserConfig
from raysr.teachers.base import TEACHERS

RUN_KEYS = {*RunConfig.model_fields, "extends"}
# other programs' files, which have tests of their own in tests/deploy, or are theirs to read
FOREIGN = {"apiVersion", "cluster_name", "scrape_configs", "groups", "resources", "repos"}


def documents(text: str) -> list[dict[str, Any]]:
    """Return the mappings of a YAML block; lines that show choices for the same key are one each.

    Raises:
        ConfigError: it is no YAML, or holds something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "block.yaml"
        parts = text.split("\n---\n")
        try:
            return [_read(file, part) for part in parts]
        except ConfigError as error:
            lines = [line for line in text.splitlines() if line.strip()]
            if "is written twice" not in str(error) or any(line.startswith(" ") for line in lines):
                raise
            return [_read(file, line) for line in lines]


def _read(file: Path, text: str) -> dict[str, Any]:
    file.write_text(text, encoding="utf-8")
    return read_yaml(file)


def check(data: Mapping[str, Any], modules: Mapping[str, str] | None = None) -> str:
    """Validate a mapping by what its keys say that it is, and return what that is.

    Args:
        modules: file name → text of Python files that lie beside it.

    Raises:
        ConfigError: a key or a value is wrong, or the mapping is nothing that we know.
    """
    keys = set(data)
    if keys & FOREIGN:
        return "foreign"
    if "applications" in keys:
        _check_applications(data)
        return "endpoint"
    if "kind" in keys:
        check_teacher(data)
        return "teacher"
    if keys & RUN_KEYS and not keys <= set(ServingConfig.model_fields):
        check_run(data, modules=modules)
        return "run"
    if keys <= set(ServingConfig.model_fields):
        check_serving({"pool": "pool", **data})
        return "endpoint"
    raise ConfigError(
        f"neither a run's configuration nor an endpoint's, by its keys: {', '.join(sorted(keys))}"
    )


def check_run(
    data: Mapping[str, Any], overrides: Sequence[str] = (), modules: Mapping[str, str] | None = None
) -> RunConfig:
    """Read a run's configuration, with the demo's recipe beneath what it leaves out."""
    with tempfile.TemporaryDirectory() as folder, _unchanged_imports():
        for name in ("jobs", "benchmarks"):
            (Path(folder) / name).symlink_to(ROOT / name)
        for name, text in (modules or {}).items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        file = Path(folder) / "block.yaml"
        file.write_text(yaml.safe_dump({"extends": "jobs/conf/demo.yaml", **data}), encoding="utf-8")
        config = read_config(file, list(overrides))
        for teacher in config.builder.options.get("teachers") or ():
            check_teacher(teacher)
    return config


def check_teacher(data: Mapping[str, Any]) -> None:
    """Validate what describes a teacher."""
    TEACHERS.check(Spec(**data))


def check_serving(data: Mapping[str, Any], overrides: Sequence[str] = ()) -> ServingConfig:
    """Validate an endpoint's settings."""
    return ServingConfig.parse(apply_overrides(data, overrides), "serve")


def _check_applications(data: Mapping[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    try:
        schema = ServeDeploySchema.model_validate(data)
    except ValueError as error:
        raise ConfigError(f"serve config: {error}") from None
    for application in schema.applications:
        check_serving(application.args)
        for deployment in application.deployments:
            if isinstance(deployment.user_config, Mapping):
                UserConfig.parse(deployment.user_config, "user_config")


def relevant(file: Path) -> bool:
    """Return whether a file is a run's configuration."""
    return bool(set(read_yaml(file)) & RUN_KEYS)


@contextmanager
def _unchanged_imports() -> Iterator[None]:
    """Forget what is imported from the folder of one block, lest the next one's file of that name is taken for it."""
    path, before = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if "." not in name and name not in sys.stdlib_module_names and "raysr" not in name:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if file.startswith(tempfile.gettempdir()):
                    del sys.modules[name]
