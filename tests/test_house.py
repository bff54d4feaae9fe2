"""The rules of the house, read from the source: the layout is the architecture, and it stays so."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "raysr"
SOURCES = sorted(PACKAGE.rglob("*.py"))
RANKS = [
    {"cli"},
    {"demo", "jobs", "preflight"},
    {"ipl", "serving"},
    {"train", "stream", "teachers"},
    {"cluster"},
    {"evaluate", "export"},
    {"pool", "store"},
    {"decode"},
    {"corpus", "model"},
    {"audio", "text"},
    {"config", "ports"},
    {"errors"},
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
WITHOUT_RAY = [
    "audio",
    "text",
    "corpus",
    "model",
    "decode",
    "stream",
    "teachers",
    "evaluate",
    "pool",
    "store",
    "export",
]
LONGEST = 350


def part_of(path: Path) -> str:
    """Return the package or module directly under ``raysr`` that holds ``path``."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted name of every module that ``path`` imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    here = part_of(path)
    if here == "__init__":
        return
    for module in imported(path):
        top, _, rest = module.partition(".")
        there = rest.partition(".")[0]
        if top == "raysr" and there in RANK and there != here:
            assert RANK[there] > RANK[here], f"{here} imports {module}"
        assert top not in {"serve", "jobs", "tests", "benchmarks"}, f"{here} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_pure_parts_know_no_ray(path: Path) -> None:
    pure = part_of(path) in WITHOUT_RAY or (part_of(path) == "train" and not path.name.startswith("ray_"))
    if pure:
        assert not [module for module in imported(path) if module.partition(".")[0] == "ray"]


def test_every_part_of_the_package_has_its_place_in_the_order() -> None:
    parts = {part_of(path) for path in SOURCES} - {"__init__"}
    assert parts <= set(RANK), f"give {parts - set(RANK)} a rank here and in docs/architecture.md"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_can_be_held_in_the_head(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < LONGEST
    assert not [line for line in lines if re.search(r"\b(TODO|FIXME|XXX)\b", line)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_modules_and_classes_say_what_they_are(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree) or not source.strip(), "a module says in a docstring what it is"
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not silent


def test_the_architecture_page_names_every_part() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for part in {part_of(path) for path in SOURCES} - {"__init__"}:
        assert f"`{part}/`" in page or f"`{part}.py`" in page, f"docs/architecture.md does not name {part}"


def test_pages_link_to_what_exists() -> None:
    broken = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in _links(page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target.partition("#")[0]).exists():
                broken.append(f"{name_of(page)} → {target}")
    assert not broken


def test_make_runs_what_it_says() -> None:
    done = subprocess.run(["make", "-n", "PYTHON=python3", "demo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "raysr demo" in done.stdout


def _links(page: str) -> Iterator[str]:
    for piece in page.split("](")[1:]:
        yield piece.partition(")")[0]
