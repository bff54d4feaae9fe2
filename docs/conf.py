"""Sphinx: the pages of this folder as a site; `make docs` builds it. They read as plain Markdown on GitHub, too."""

import importlib.metadata
import re
from pathlib import Path
from typing import Any

project = "raysr"
author = "the raysr authors"
copyright = "the raysr authors, Apache-2.0"
version = release = importlib.metadata.version("raysr")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
myst_heading_anchors = 4
# examples in JSON leave parts out with an ellipsis, which JSON does not have
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "raysr"
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "model_config, model_post_init",
}

# api.md has these whole, so a reference into one of them has to hold. Others are named there and not described.
DESCRIBED = (
    "config",
    "corpus.manifest",
    "corpus.utterance",
    "errors",
    "ipl.config",
    "ipl.context",
    "ipl.handover",
    "ipl.plugins",
    "ipl.predictions",
    "pool",
    "serving.client",
    "serving.settings",
    "teachers.base",
)
nitpicky = True
nitpick_ignore_regex = [("py:.*", rf"(?!raysr\.({'|'.join(DESCRIBED)})\.[A-Z]\w+$).*")]

_HERE = Path(__file__).parent
_OUT = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)(?:#[^)]*)?\)")


def _plain_docstrings(app: Any, what: str, name: str, subject: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon in an attribute's docstring for its type.

    A ``__call__`` that says nothing of itself has the docstring of ``type``, which says nothing either.
    """
    if lines[:1] == ["Call self as a function."]:
        lines.clear()
    elif what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment, with no colon in it


def _without_links_out(app: Any, page: str, source: list[str]) -> None:
    """Leave the text alone of links that a site cannot follow: to folders, and to Markdown outside this one."""
    source[0] = _OUT.sub(lambda link: link[1] if _is_out(link[2]) else link[0], source[0])


def _is_out(target: str) -> bool:
    return target.endswith(".md") or (_HERE / target).is_dir()


def setup(app: Any) -> None:
    """Connect what this site needs beside its extensions."""
    app.connect("autodoc-process-docstring", _plain_docstrings, priority=400)
    app.connect("source-read", _without_links_out)
