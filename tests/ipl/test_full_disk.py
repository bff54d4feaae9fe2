"""A disk that fills up under a run is one line that names the mend; with space again the same command finishes."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filling
import pytest
import yaml
from processes import start, wait_until

from raysr.cluster import Connection
from raysr.errors import CorpusError
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.decisions import read_decisions
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run

TinyConfig = Callable[[Path], dict[str, Any]]
TOLD = r"disk full while writing to \S*/disk/run\S*: free some space and run again; [^\n]*"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount(folder, "size=8m").returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder: Path, options: str) -> "subprocess.CompletedProcess[bytes]":
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True)


# from the run's first file over its features, first weights and checkpoints to the second cycle
@pytest.mark.parametrize("kilobytes", [4, 64, 160, 260, 420, 700, 1000])
def test_wherever_a_run_fills_the_disk_it_says_so_and_goes_on(
    kilobytes: int, tmp_path: Path, disk: Path, tiny_config: TinyConfig
) -> None:
    mount(disk, f"remount,size={kilobytes}k")
    config = tiny_config(tmp_path)
    config["run"]["dir"] = str(disk / "run")
    config["trainer"]["checkpoint_every"] = 1
    with pytest.raises(CorpusError, match=f"^{TOLD}$"):
        turn(config)
    mount(disk, "remount,size=8m")
    folder = turn(config)
    assert decided(folder / "cycles/001") == [f"unlabelled-{n}" for n in range(6)]


def turn(config: dict[str, Any], use_ray: bool = False) -> Path:
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=use_ray) as run:
        run_cycles(run)
        return run.folder


def decided(cycle: Path) -> list[str]:
    """Return the ids of a cycle's decisions."""
    return sorted(decision.id for decision in read_decisions(cycle / "decisions.parquet"))


@pytest.fixture
def recipe(
    tmp_path: Path, disk: Path, tiny_config: TinyConfig, make_corpus: Callable[..., Path]
) -> dict[str, Any]:
    """One cycle whose teacher fills the disk."""
    config = tiny_config(tmp_path)
    config["run"] = {"dir": str(disk / "run"), "cycles": 1}
    config["data"]["unlabelled"] = str(make_corpus(tmp_path, "many", 12, seed=5, text=False))
    config["data"].pop("labelled")
    config["selector"] = {"kind": "all", "first_cycle": 0}
    config["builder"] = {"kind": "external", "teachers": [{"kind": "filling:Filling", "disk": str(disk)}]}
    config["trainer"] |= {"steps": 300, "checkpoint_every": 10, "log_every": 10}
    shutil.copy(filling.__file__, tmp_path)  # beside run.yaml, as a user's own classes
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "flag").touch()
    return config


@pytest.mark.ray
@pytest.mark.e2e
def test_a_disk_full_in_labelling_and_in_training_costs_nothing(
    tmp_path: Path, disk: Path, recipe: dict[str, Any], ray_cluster: Connection
) -> None:
    cycle = disk / "run/cycles/000"

    def ipl() -> "subprocess.Popen[str]":
        return start("ipl", "--config", tmp_path / "run.yaml", address=ray_cluster.address)

    def check_refused(process: "subprocess.Popen[str]") -> None:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 2
        assert re.fullmatch(f"error: {TOLD}\n", told), told
        (disk / "ballast").unlink()

    check_refused(ipl())
    labelled = {path.name: path.read_bytes() for path in (cycle / "predictions").glob("*.parquet")}
    assert labelled

    training = ipl()
    wait_until((cycle / "train/metrics.jsonl").exists, training)
    while training.poll() is None:
        filling.fill(disk)
    check_refused(training)

    finishing = ipl()
    _, told = finishing.communicate(timeout=120)
    assert (finishing.returncode, told) == (0, "")
    assert decided(cycle) == sorted(f"many-{n}" for n in range(12))
    for name, content in labelled.items():
        assert (cycle / "predictions" / name).read_bytes() == content


@pytest.mark.ray
def test_a_disk_full_under_an_actor_is_the_same_line(
    recipe: dict[str, Any], ray_cluster: Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe["recogniser"]["kind"] = "ray"
    with pytest.raises(CorpusError, match=f"^{TOLD}$"):
        turn(recipe, use_ray=True)
    assert capfd.readouterr().err == ""
