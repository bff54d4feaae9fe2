"""The error messages that a page quotes, looked for in the source: a text of ours, with … for what is filled in."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docs_markdown import ROOT

FILLED = "\0"


def unknown_messages(page: Path) -> list[str]:
    """Return the messages in the first column of a page's tables that no source file has."""
    return [message for message in _quoted(page) if not any(_fits(message, text) for text in _texts())]


def _quoted(page: Path) -> Iterator[str]:
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`([^`]* [^`]*)`", line.split(" | ")[0])


def _fits(message: str, text: str) -> bool:
    """Return whether the fixed parts of a message come one after the other in a text."""
    place = 0
    for part in message.split("…"):
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


@cache
def _texts() -> tuple[str, ...]:
    """Return what can be an error message: the longer string literals of the package, and the Makefile."""
    found = {re.sub(r"[\\\\\t\n]+", "", (ROOT / "Makefile").read_text())}
    for file in (ROOT / "raysr").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(p.value if isinstance(p, ast.Constant) else FILLED for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return tuple(text for text in found if len(text) > 12)
