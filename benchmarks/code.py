"""Which source files a measurement depends on: what its code imports, and what that imports, and so on.

Finished cells are kept under a hash of these files and no others, so that a change that a cell cannot reach, such
as one of the web page, leaves hours of results as they are.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SLOT_CLASS = re.compile(r"(raysr(?:\.\w+)+):\w+")  # as slots name the classes that they import when asked


def code_hash(modules: Iterable[str], further: Iterable[Path] = (), without: Iterable[str] = ()) -> str:
    """Return the SHA-256 of the sources that ``modules`` can reach, and of ``further`` files.

    ``without`` are modules that are imported and never run in what is measured.
    """
    total = hashlib.sha256()
    idle = {_place(module) for module in without}
    for path in [*sorted(reached(modules) - idle), *further]:
        total.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return total.hexdigest()


def reached(modules: Iterable[str]) -> set[Path]:
    """Return the files of ours that importing ``modules`` may run, imports inside functions and slots included."""
    found: set[Path] = set()
    waiting = [path for module in modules for path in _files(module)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in _imports(path) for file in _files(name)]
    return found


def _imports(path: Path) -> Iterator[str]:
    """Yield dotted names that ``path`` imports: modules, or things in them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from SLOT_CLASS.findall(node.value)


def _place(module: str) -> Path:
    path = (ROOT / module.replace(".", "/")).with_suffix(".py")
    if not path.is_file():
        raise ValueError(f"{module} is no module of ours")
    return path


def _files(name: str) -> Iterator[Path]:
    """Yield the files that importing a dotted name runs: its packages' and its own."""
    path = ROOT
    for part in name.split("."):
        path = path / part
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                yield file
