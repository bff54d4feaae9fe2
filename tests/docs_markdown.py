"""What the documentation's tests read pages with: fenced blocks, links and the anchors that GitHub gives headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code: where it begins, its language (of an indented one none), and its text."""

    page: Path
    line: int
    language: str
    text: str
    fenced: bool = True

    @property
    def where(self) -> str:
        """Return the page and line, as an editor opens them."""
        return f"{self.page.name}:{self.line}"

    @property
    def is_directive(self) -> bool:
        """Return whether it is for Sphinx, and no code."""
        return self.language.startswith("{")


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the blocks of a page, or those of one language."""
    tokens = _MARKDOWN.parse(page.read_text(encoding="utf-8"))
    found = [
        Block(page, token.map[0] + 1, token.info.strip(), token.content, token.type == "fence")
        for token in tokens
        if token.type in {"fence", "code_block"} and token.map
    ]
    return [block for block in found if language is None or block.language == language]


def unnamed(page: Path) -> list[str]:
    """Return where a page has fenced blocks that name no language."""
    return [block.where for block in blocks(page) if block.fenced and not block.language]


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page whose file or anchor is not there."""
    found = []
    for line, target in _links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            found.append(f"{page.name}:{line}: {target}: no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            found.append(f"{page.name}:{line}: {target}: no such heading")
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings: small letters, hyphens for blanks, a number from the second on."""
    found: set[str] = set()
    tokens = _MARKDOWN.parse(page.read_text(encoding="utf-8"))
    for before, heading in pairwise(tokens):
        if before.type != "heading_open":
            continue
        title = "".join(
            part.content for part in heading.children or () if part.type in {"text", "code_inline"}
        )
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number = next(n for n in range(len(tokens)) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def _links(page: Path) -> Iterator[tuple[int, str]]:
    for token in _MARKDOWN.parse(page.read_text(encoding="utf-8")):
        for part in token.children or ():
            target = _target(part)
            if target and not re.match(r"[a-z][a-z0-9+.-]*:", target):
                yield (token.map or [0])[0] + 1, target


def _target(token: Token) -> str | None:
    name = {"link_open": "href", "image": "src"}.get(token.type)
    return str(token.attrs[name]) if name else None
