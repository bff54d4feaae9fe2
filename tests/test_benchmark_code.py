"""Measurements: `make bench` can start each, and a key covers every file that its code can run, and no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arms import CELL, RECIPE
from benchmarks.code import ROOT, reached

LOADED = f"""
import importlib, json, sys
for module in {CELL!r}: importlib.import_module(module)
from raysr.ipl.config import read_config
read_config({str(RECIPE)!r}, ["recogniser={{kind: local}}", "trainer.local=true"])
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "raysr" and m.__file__]))
"""
STARTED = """
import contextlib, io, json, runpy, sys
told = []
for module, *arguments in json.loads(sys.argv[1]):
    sys.argv = [module, *arguments]
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()) as errors:
        runpy.run_module(module, run_name="__main__")
    told.append(errors.getvalue())
print(json.dumps(told))
"""


def test_every_module_that_a_cell_loads_is_covered() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {Path(file) for file in json.loads(done.stdout)}
    assert len(loaded) > 50
    assert loaded <= reached(CELL)


@pytest.mark.parametrize(
    ("file", "covered"),
    [
        ("raysr/train/loop.py", True),
        ("raysr/model/conformer.py", True),  # a slot names it in a string
        ("raysr/train/ray_trainer.py", True),  # imported inside a function
        ("benchmarks/truth.py", True),
        ("raysr/serving/openai.py", False),
        ("raysr/corpus/demo/build.py", False),
    ],
)
def test_files_are_covered_by_what_they_can_change(file: str, covered: bool) -> None:
    assert ((ROOT / file) in reached(CELL)) == covered


def test_make_bench_gives_every_measurement_what_it_requires() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "--silent", "bench"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = planned.stdout.replace("\\\n", " ").splitlines()
    commands = [line.split()[2:] for line in lines if " -m benchmarks." in line]
    assert len(commands) > 1
    # argparse names what is missing before what it does not know, and runs nothing either way
    told = subprocess.run(
        [sys.executable, "-c", STARTED, json.dumps([[*command, "--no-such-option"] for command in commands])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for command, errors in zip(commands, json.loads(told.stdout), strict=True):
        assert "unrecognized arguments: --no-such-option" in errors, command
