"""Chaos on a cluster of several nodes: whatever dies, joins or fills up, everything is labelled once and the same."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chaos
import numpy as np
import pytest
import yaml
from processes import start, wait_until

from raysr.audio.encode import write_wav
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.ipl.config import RunConfig
from raysr.ipl.decisions import Decision, read_decisions
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run

pytestmark = [pytest.mark.ray, pytest.mark.e2e]
BLOCK = 3
STORE = 100 << 20
NODE: dict[str, Any] = {"num_cpus": 4, "object_store_memory": STORE}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that is too small for actors of two CPUs, without another node."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_health_check_period_ms", "500")
        patch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield made
        finally:
            made.shutdown()


class Run:
    """`raysr label` over a corpus, again and again, in a folder of its own."""

    def __init__(self, folder: Path, utterances: list[Utterance]) -> None:
        self.folder = folder
        write_jsonl(folder / "corpus.jsonl", utterances)
        shutil.copy(chaos.__file__, folder)
        self.config: dict[str, Any] = {
            "data": {"unlabelled": str(folder / "corpus.jsonl")},
            "selector": {"first_cycle": 0},
            "builder": {"kind": "external", "teachers": [{"kind": "chaos:Watched", "folder": str(folder)}]},
            "filter": [{"kind": "score", "keep": 0.5}],
        }
        self.cycle = folder / "run" / "cycles" / "000"

    def undisturbed(self) -> list[Decision]:
        """Return what becomes of the utterances in one process."""
        config = self.config | {"run": {"dir": str(self.folder / "calm")}, "recogniser": {"kind": "local"}}
        (self.folder / "go").touch()
        with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
            plugin, step = run.plugins(0), run.steps(0)
            selected = step.selection(lambda: plugin.selector(0, run.unlabelled))
            teachers = step.teachers(lambda: plugin.builder(run.pool))
            predicted = step.predictions(lambda: plugin.recogniser(selected, teachers))
            step.decisions(selected, lambda: plugin.filter(predicted))
        (self.folder / "go").unlink()
        (self.folder / "heard.log").unlink()
        return read_decisions(self.folder / "calm" / "cycles" / "000" / "decisions.parquet")

    def start(self, address: str, **recogniser: Any) -> "subprocess.Popen[str]":
        config = self.config | {
            "run": {"dir": str(self.folder / "run")},
            "recogniser": {"kind": "ray", "block": BLOCK, "actors": {"max": 4, "cpus": 2}} | recogniser,
        }
        (self.folder / "run.yaml").write_text(yaml.safe_dump(config))
        out = self.folder / "kept.jsonl"
        return start("label", "--config", self.folder / "run.yaml", "--out", out, address=address)

    def finish(self, process: "subprocess.Popen[str]") -> list[Decision]:
        (self.folder / "go").touch()
        told = process.communicate(timeout=200)
        assert process.returncode == 0, told
        return read_decisions(self.cycle / "decisions.parquet")

    def heard(self) -> list[list[str]]:
        """Return (process, node, text) of everything that was transcribed so far."""
        log = self.folder / "heard.log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def written(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.cycle / "predictions").glob("[!.]*.parquet")}

    def times(self) -> Counter[str]:
        """Return how often each utterance was transcribed."""
        return Counter(text for _, _, text in self.heard())


@pytest.fixture
def run(tmp_path: Path, make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    utterances = list(open_manifest(make_corpus(tmp_path, "many", 60, text=False)))
    return Run(tmp_path, utterances)


def test_actors_and_nodes_die_and_join(run: Run, cluster: Any) -> None:
    expected, first = run.undisturbed(), cluster.add_node(**NODE)
    process = run.start(cluster.address)
    wait_until(lambda: len(run.heard()) > BLOCK, process)
    os.kill(int(run.heard()[-1][0]), signal.SIGKILL)
    second = cluster.add_node(**NODE)
    wait_until(lambda: any(node == second.node_id for _, node, _ in run.heard()), process)
    cluster.remove_node(first, allow_graceful=False)
    assert run.finish(process) == expected
    times = run.times()
    assert len(times) == 60
    assert times.total() - 60 <= 3 * BLOCK  # what the killed actor, and the two of the lost node, had in hand
    cluster.remove_node(second)


def test_the_driver_dies_in_the_middle_and_before_each_commit(run: Run, cluster: Any) -> None:
    expected, node = run.undisturbed(), cluster.add_node(**NODE)
    process = run.start(cluster.address, kind="chaos:Uncommitted")
    wait_until(lambda: len(run.written()) >= 2, process)
    process.kill()
    process.communicate()
    finished = run.written()
    (run.folder / "die before the commit").touch()
    (run.folder / "kill the driver").touch()
    (run.folder / "go").touch()
    process = run.start(cluster.address, kind="chaos:Uncommitted")
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    assert not (run.cycle / "predictions.json").exists()
    assert not (run.folder / "die before the commit").exists()
    all_written, times = run.written(), run.times()
    assert finished.items() <= all_written.items()
    assert len(times) == 60
    assert (
        times.total() - 60 <= 3 * BLOCK
    )  # two actors of the killed driver, and the one killed before its commit
    assert run.finish(run.start(cluster.address, kind="chaos:Uncommitted")) == expected
    assert run.times() == times
    assert run.written() == all_written
    cluster.remove_node(node)


def test_the_object_store_is_full(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000 * 25).clip(-5, 5)
    utterances = []
    for number in range(40):  # 1.6 MB of samples each, 64 MB in all, through the 20 MB that are left
        path = tmp_path / f"{number}.wav"
        write_wav(path, noise * (1 - number / 50))
        utterances.append(Utterance(f"long-{number}", str(path), 25.0))
    run = Run(tmp_path, utterances)
    expected, node = run.undisturbed(), cluster.add_node(**NODE)
    process = run.start(cluster.address, kind="chaos:Crowded", features="tasks", block=4)
    assert run.finish(process) == expected
    assert run.times() == Counter(text for text in run.times())
    cluster.remove_node(node)
