"""The documentation is true: it builds, links lead somewhere, commands and configurations are those there are."""

import hashlib
import json
import os
import subprocess
import sys
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from docs_commands import commands, faults
from docs_configs import check, check_run, check_serving, documents
from docs_markdown import PAGES, ROOT, Block, anchors, blocks, broken_links, unnamed
from docs_messages import unknown_messages

from raysr.errors import ConfigError

RAYSR = [sys.executable, "-m", "raysr.cli"]
TEXTS = [page for page in PAGES if page.name != "CHANGELOG.md"]
LANGUAGES = {"sh", "python", "yaml", "json", "toml", "text", "ini", "nginx", "dockerfile"}

# Python that is compiled and not run: the first line that tells it, and why.
NOT_RUN = {
    "client = OpenAI(": "needs a server",
    "from openai import OpenAI": "needs a server",
    "from deepgram import DeepgramClient": "needs a server",
    "for cycle in range(cycles):": "the loop in seven lines: raysr/ipl/cycle.py is the one that runs",
}
# Commands of the own-data guide that are parsed and not run, and why.
NEEDS_MORE = {
    "raysr ipl": "starts Ray and trains",
    "raysr train": "starts Ray and trains",
    "raysr serve": "starts Ray and serves until it is stopped",
    "raysr transcribe": "needs a model",
    "raysr report": "needs a run",
    "raysr filter": "needs a run",
    "raysr data speak": "needs a book, and an engine that speaks it for minutes",
    "raysr data export": "has tests of its own in tests/corpus",
    "apt-get": "the network and root",
    "pip": "the network",
    "dpkg": "a package that apt-get has downloaded",
    "for": "the same",
    "find": "the same",
    "spm_encode": "not a part of raysr",
    "lmplz": "not a part of raysr",
}


def _fenced(language: str) -> list[Block]:
    return [block for page in TEXTS for block in blocks(page, language)]


def _shell() -> list[Block]:
    """Return the shell blocks, and indented ones that hold commands and no diagram."""
    indented = [block for page in TEXTS for block in blocks(page, "") if not block.fenced]
    starts = ("raysr ", "serve ", "pip ", "make ", "ray ")
    return _fenced("sh") + [block for block in indented if block.text.lstrip().startswith(starts)]


def _where(block: Block) -> str:
    return block.where


def _first_line(block: Block) -> str:
    return next(line for line in block.text.splitlines() if line.strip())


def _modules(page: Path) -> dict[str, str]:
    """Return the Python files that a page shows, each with its name in a comment at its head."""
    found = [(_first_line(block), block.text) for block in blocks(page, "python")]
    return {line[2:]: text for line, text in found if line.startswith("# ") and line.endswith(".py")}


def _check_all(text: str, modules: Mapping[str, str] | None = None) -> None:
    for data in documents(text):
        check(data, modules)


def _build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        "sphinx",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-n",
        "-q",
        "-d",
        str(out / "cache"),
        str(source),
    ]
    return subprocess.run(
        [sys.executable, "-m", *command, str(out / "html")], capture_output=True, text=True, timeout=280
    )


@pytest.mark.e2e
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = _build(ROOT / "docs", tmp_path)
    assert built.returncode == 0, built.stderr
    names = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert names <= {page.stem for page in (tmp_path / "html").glob("*.html")}


def test_a_page_with_a_broken_reference_does_not_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    settings = (ROOT / "docs" / "conf.py").read_text()
    (source / "conf.py").write_text(settings.replace('"sphinx.ext.autodoc", ', ""))
    (source / "index.md").write_text("# Page\n\n[nowhere](nowhere.md)\n")
    assert _build(source, tmp_path).returncode != 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_resolve_as_plain_markdown(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [("gone.md", "no such file"), ("#gone", "no such heading"), ("page.md#a-2", "no such heading")],
)
def test_a_broken_link_is_found(tmp_path: Path, link: str, fault: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n## A\n\n[b]({link}) [c](page.md#a-1) [d](https://example.com/gone)\n")
    (found,) = broken_links(page)
    assert fault in found


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What `a.b` is, and isn't\n\n## Same\n\n## Same\n")
    assert anchors(page) == {"what-ab-is-and-isnt", "same", "same-1"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fenced_block_names_a_language(page: Path) -> None:
    assert unnamed(page) == []
    named = {block.language for block in blocks(page) if block.fenced and not block.is_directive}
    assert named <= LANGUAGES


def test_a_block_without_a_language_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```\nx\n```\n")
    assert unnamed(page) == ["page.md:3"]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_python_compiles_and_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}  # of the page: a block may use what one above it has made
    for block in blocks(page, "python"):
        code = compile(block.text, block.where, "exec")
        if not any(_first_line(block).startswith(line) for line in NOT_RUN):
            exec(code, names)


def test_python_that_is_not_run_is_there() -> None:
    lines = [_first_line(block) for block in _fenced("python")]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.parametrize("text", ["def broken(:", "from raysr.ipl.plugins import Nothing", "assert 1 == 2"])
def test_python_that_is_wrong_is_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n```python\n{text}\n```\n")
    with pytest.raises((SyntaxError, ImportError, AssertionError)):
        test_python_compiles_and_runs(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("block", _fenced("yaml"), ids=_where)
def test_yaml_is_a_configuration(block: Block) -> None:
    _check_all(block.text, _modules(block.page))


@pytest.mark.parametrize(
    "text",
    [
        "trainer: {stepz: 100}",
        "runn: {dir: runs/mine}",
        "run: {dir: runs/mine}\nfiltre: []",
        "filter: [{kind: score, kept: 0.7}]",
        "builder: {kind: external, teachers: [{kind: moonshine, modell: tiny}]}",
        "{kind: openai, base: x}",
        "limits: {session: 3}",
        "applications: [{name: raysr, import_path: serve.app:build, args: {pool: p, chunk_sise: 8}}]",
        "applications: [{name: raysr, import_paht: serve.app:build}]",
        "applications: [{name: raysr, import_path: serve.app:build, args: {pool: p}, "
        "deployments: [{name: Endpoint, user_config: {drian: true}}]}]",
        "lm: {arpa: a\nlm: {arpa: b}",
        "stop:\n  patience: 1\nstop:\n  patience: 2",
    ],
)
def test_a_misspelt_key_is_found(text: str) -> None:
    with pytest.raises(ConfigError):
        _check_all(text)


@pytest.mark.parametrize("block", _fenced("json"), ids=_where)
def test_json_is_json(block: Block) -> None:
    for line in block.text.strip().splitlines():
        json.loads(line.replace(", …", ""))


@pytest.mark.parametrize("block", _shell(), ids=_where)
def test_commands_are_those_there_are(block: Block) -> None:
    assert faults(block.text) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("raysr data imports a b", "no command raysr data imports"),
        ("raysr ipl --confg my.yaml", "--confg"),
        ("raysr ipl", "--config"),
        ("raysr ipl --config jobs/conf/demo.yaml trainer.stepz=3", "steps"),
        ("raysr ipl --config jobs/conf/gone.yaml", "no jobs/conf/gone.yaml"),
        ("raysr serve --pool runs/a/pool limits.session=3", "sessions"),
        ("raysr filter runs/a --filter '[{kind: skore}]'", "score"),
        (".venv/bin/raysr transcribe", "file"),
        ("rasyr demo", "raysr?"),
        ("cd x && make demos", "no target demos"),
        ("pip install 'raysr[teacher]'", "no extra teacher"),
        ("python -m benchmarks.gone", "no module"),
        ("ray job submit --workingdir . -- python jobs/ipl.py --config jobs/conf/demo.yaml", "workingdir"),
        ("ray job submit -- python jobs/ipl.py --config jobs/conf/demo.yaml run.cycels=3", "cycles"),
        ("serve deploy serve/gone.yaml", "no serve/gone.yaml"),
        ("echo 'open", "no shell"),
    ],
)
def test_a_wrong_command_is_found(line: str, fault: str) -> None:
    (found,) = faults(line)
    assert fault in found


def test_a_right_command_is_none() -> None:
    text = "cd a && KEY=1 raysr ipl \\\n  --config mine.yaml run.cycles=2 > out.txt   # says 'why\nraysr --help\n"
    assert list(commands(text))[1] == ["raysr", "ipl", "--config", "mine.yaml", "run.cycles=2"]
    assert faults(text) == []


def test_the_demo_s_recipe_lies_beneath_a_block() -> None:
    assert check_run({"trainer": {"precision": "bf16"}}).data.demo
    assert check_serving({"pool": "p"}, ["limits.sessions=3"]).limits.sessions == 3


def test_errors_of_the_faq_are_those_of_the_code() -> None:
    assert unknown_messages(ROOT / "docs" / "faq.md") == []


def test_an_error_that_no_code_raises_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("| Message | Cure |\n|---|---|\n| `… is not what raysr ever says` | none |\n")
    assert unknown_messages(page) == ["… is not what raysr ever says"]


def _own_data_commands() -> list[list[str]]:
    page = ROOT / "docs" / "your-own-data.md"
    return [command for block in blocks(page, "sh") for command in commands(block.text)]


def _needs_more(command: list[str]) -> bool:
    return any(" ".join(command).startswith(start) for start in NEEDS_MORE)


@pytest.mark.e2e
def test_the_first_commands_of_the_own_data_guide_do_what_it_says(tmp_path: Path) -> None:
    _record(tmp_path / "recordings", tmp_path / "transcripts.tsv", files=12)
    _record(tmp_path / "more", tmp_path / "unused.tsv", files=3)
    for command in _first_of_own_data():
        assert command[0] == "raysr"
        done = _run(command[1:], tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "more" / "import.json").exists()
    assert (tmp_path / "data" / "mine" / "import.json").exists()
    assert _run(["data", "inspect", "data/mine/held-out"], tmp_path).returncode == 0


def test_other_commands_of_the_own_data_guide_say_why_they_are_not_run() -> None:
    first = _first_of_own_data()
    rest = [command for command in _own_data_commands() if command not in first]
    unexplained = [" ".join(c) for c in rest if not _needs_more(c) and c[:3] != ["raysr", "data", "import"]]
    assert unexplained == []


def _first_of_own_data() -> list[list[str]]:
    """Return the commands that import, of the section that goes all the way and of the one that explains it."""
    found = blocks(ROOT / "docs" / "your-own-data.md", "sh")
    return [command for block in (found[0], found[2]) for command in commands(block.text)]


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*RAYSR, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def _record(folder: Path, transcripts: Path, files: int) -> None:
    """Write a few seconds of noise each, in folders, with a TSV of what they are said to say."""
    lines = []
    for number in range(files):
        name = f"calls/{hashlib.sha256(str(number).encode()).hexdigest()[:6]}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 3000, 16000 * 2).astype("<i2")
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(noise.tobytes())
        lines.append(f"{name}\tgood morning number {number}")
    transcripts.write_text("\n".join(lines) + "\n")
