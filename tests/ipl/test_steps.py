"""A cycle's steps are read back when a run goes on; what came too early or lies elsewhere is not taken for done."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysr.errors import RunError
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.earlier import labelled
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run


def test_labelling_before_there_is_a_teacher_does_not_keep_the_run_from_its_teachers(
    tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]
) -> None:
    with open_run(RunConfig.parse(tiny_config(tmp_path)), Progress(quiet=True), use_ray=False) as run:
        step, plugin = run.steps(1), run.plugins(1)
        selected = step.selection(lambda: plugin.selector(1, run.unlabelled))
        with pytest.raises(RunError, match="the pool is empty"):
            plugin.recogniser(selected, step.teachers(lambda: plugin.builder(run.pool)))
        run_cycles(run)
        first, second = (json.loads((run.folder / f"cycles/00{n}/teachers.json").read_text()) for n in (0, 1))
        assert (first, len(second)) == ([], 1)
        assert run.steps(0).teachers(lambda: plugin.builder(run.pool)) == []  # it has done without


def test_a_run_that_was_copied_reads_its_own_predictions_or_says_that_it_cannot(
    tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]
) -> None:
    with open_run(RunConfig.parse(tiny_config(tmp_path)), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    found = labelled(copy / "cycles/001")
    assert found is not None
    assert found.folder == copy / "cycles/001/predictions"
    assert len(list(found)) == 6
    shutil.rmtree(found.folder)
    with pytest.raises(RunError, match=r"predictions\.json: there are no predictions in .*copy/cycles/001"):
        labelled(copy / "cycles/001")
    assert labelled(copy / "cycles/000") is not None  # nothing was selected: there is nothing to miss
