"""Shell blocks of the documentation, held to what is there: commands and their options, make targets, files, extras.

Nothing is run. What ends in an error of the parser here would end in one at the reader's.
"""

import difflib
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml
from docs_configs import check_run, check_serving, relevant
from docs_markdown import ROOT

from raysr.config import Spec
from raysr.errors import RaysrError
from raysr.ipl.plugins import FILTERS

PARSERS = {"raysr": "raysr.cli.app:app", "ray": "ray.scripts.scripts:cli", "serve": "ray.serve.scripts:cli"}
OURS = {*PARSERS, "make", "python", "torchrun", "pip", "pytest", "sphinx-build"}
FOLDERS = ("benchmarks/", "deploy/", "docs/", "jobs/", "raysr/", "serve/", "tests/")
FILES = {"cluster.yaml", "pyproject.toml", "Makefile", "README.md", "CHANGELOG.md"}
_JOINS = {"&&", "||", "|", ";", "&", "(", ")", "do", "done", "then", "fi"}
_MISSES = {"serve": ["server"]}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell text, without comments, assignments and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*_words(line), ";"]:
            if word not in _JOINS:
                words.append(word)
                continue
            if command := _bare(words):
                yield command
            words = []


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _bare(words: Sequence[str]) -> list[str]:
    rest = list(words)
    while rest and re.match(r"[A-Za-z_]\w*=", rest[0]):
        rest.pop(0)
    kept: list[str] = []
    skip = False
    for word in rest:
        if skip:
            skip = False
        elif set(word) <= set("<>&0123456789") and set(word) & set("<>"):
            skip = True
        else:
            kept.append(word)
    return kept


def faults(text: str) -> list[str]:
    """Return what is wrong with the commands of a shell text."""
    try:
        found = list(commands(text))
    except ValueError as error:
        return [f"no shell: {error}"]
    return [f"{' '.join(words)}: {fault}" for words in found for fault in _faults(words)]


def _faults(words: Sequence[str]) -> Iterator[str]:
    name = words[0].removeprefix(".venv/bin/")
    rest = list(words[1:])
    if "--" in rest:
        yield from _faults(rest[rest.index("--") + 1 :])
    mine = rest[: rest.index("--")] if "--" in rest else rest
    yield from (f"no {word} in the repository" for word in mine if not _is_there(word))
    if name in PARSERS:
        yield from _parsed(name, rest)
    elif name == "make":
        yield from (
            f"make has no target {word}" for word in rest if "=" not in word and word not in targets()
        )
    elif name in {"python", "torchrun"}:
        yield from _python(rest)
    elif name == "pip":
        yield from (
            f"there is no extra {extra}" for word in rest for extra in _extras(word) if extra not in extras()
        )
    elif name not in OURS and (
        near := difflib.get_close_matches(name, OURS - _near_by_chance(name), cutoff=0.75)
    ):
        yield f"no command {name}; {near[0]}?"


def _near_by_chance(name: str) -> set[str]:
    return {ours for ours, others in _MISSES.items() if name in others}


def _is_there(word: str) -> bool:
    path = word.removeprefix("./").partition("=")[2] or word.removeprefix("./")
    if not (path in FILES or path.startswith(FOLDERS)) or "…" in path:
        return True
    return bool(list(ROOT.glob(path.rstrip("/"))))


def _python(words: Sequence[str]) -> Iterator[str]:
    if "-m" in words:
        module = words[list(words).index("-m") + 1]
        path = ROOT.joinpath(*module.split("."))
        ours = module.partition(".")[0] in {"raysr", "benchmarks", "tests"}
        if ours and not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
            yield f"no module {module}"
    elif words and re.fullmatch(r"jobs/(\w+)\.py", words[0]):
        yield from _parsed("raysr", [Path(words[0]).stem, *words[1:]])


def targets() -> set[str]:
    """Return the targets of the Makefile that are commands."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def extras() -> set[str]:
    """Return the extras that raysr can be installed with."""
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def _extras(word: str) -> list[str]:
    found = re.fullmatch(r"(?:raysr|\.)\[([\w,-]+)\]", word)
    return found[1].split(",") if found else []


def _parsed(name: str, words: Sequence[str]) -> Iterator[str]:
    """Let the command's own parser read its words; and the configuration its changes to it."""
    module, _, attribute = PARSERS[name].partition(":")
    command: Any = getattr(importlib.import_module(module), attribute)
    if isinstance(command, typer.Typer):
        command = typer.main.get_command(command)
    rest = [word for word in words if word != "--debug"]
    path = [name]
    while hasattr(command, "commands"):
        if not rest or rest[0] in {"--help", "--version"}:
            return
        path.append(rest[0])
        command = command.commands.get(rest.pop(0))
        if command is None:
            yield f"no command {' '.join(path)}"
            return
    if "--help" in rest:
        return
    try:
        context = command.make_context(" ".join(path), rest)
    except Exception as error:
        yield str(getattr(error, "format_message", lambda error=error: error)())
        return
    yield from _configured(" ".join(path), context.params)


def _configured(name: str, given: dict[str, Any]) -> Iterator[str]:
    overrides = [word for word in given.get("overrides") or () if "…" not in word]
    try:
        if name == "raysr serve":
            check_serving({"pool": "pool"}, overrides)
        elif name == "raysr filter":
            for spec in yaml.safe_load(given["filters"] or "[]"):
                FILTERS.check(Spec(**spec))
        elif "config" in given:
            file = ROOT / given["config"]
            data = {"extends": str(file)} if file.exists() and relevant(file) else {}
            check_run(data, overrides)
    except RaysrError as error:
        yield str(error)
