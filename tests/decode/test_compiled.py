"""Compiled functions are kept for the next process, and only as long as nothing that they may call has changed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from raysr.decode import compiled

SOURCE = """
from raysr.decode.compiled import compiled

@compiled
def twice(x):
    return 2 * x
"""


def fresh(path: Path) -> ModuleType:
    """Import a file as another process would."""
    spec = importlib.util.spec_from_file_location("doubling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_machine_code_is_kept_until_a_source_of_the_package_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "doubling.py"
    path.write_text(SOURCE)
    hits = []
    for sources in ("one", "one", "other"):
        monkeypatch.setattr(compiled, "_sources", lambda sources=sources: sources)
        twice = fresh(path).twice
        assert twice(21) == 42
        hits.append(sum(twice.stats.cache_hits.values()))
    assert hits == [0, 1, 0]


def test_without_a_folder_to_keep_it_in_a_function_compiles_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(function: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    path = tmp_path / "doubling.py"
    path.write_text(SOURCE)
    monkeypatch.setattr(compiled, "_Cache", nowhere)
    assert fresh(path).twice(21) == 42
