"""Fixtures of the whole suite: one Ray for everything that needs it, and tiny corpora."""

import os
import wave
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import settings

from raysr.cluster import ClusterConfig, Connection, connect
from raysr.corpus.manifest import write_jsonl
from raysr.corpus.utterance import Utterance

os.environ.setdefault("OMP_NUM_THREADS", "1")
# machines that run the suite are often busy: a slow example is no finding
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have all files that use Ray in one process, and each other one as a whole in any, for the fixtures' sake."""
    from xdist.scheduler import LoadScopeScheduling

    class OneRay(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if _uses_ray(config.rootpath / file) else file

    config.option.loadscopereorder = False
    return OneRay(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest part where several processes share the tests: those that use Ray."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not _uses_ray(item.path))


@cache
def _uses_ray(file: Path) -> bool:
    return "mark.ray" in file.read_text(encoding="utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _without_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_skips((yield))


def _without_skips(report: Report) -> Report:
    """Turn a skip into a failure where ``CI`` is set: what a test needs is there, or the job is broken."""
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure under CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Connection]:
    """Start one local Ray for all tests marked ``ray``; other clusters on the machine are left alone."""
    with connect(
        ClusterConfig(cpus=8, object_store_mb=200), [Path(__file__).parent, Path(__file__).parent / "ipl"]
    ) as connection:
        os.environ["RAY_ADDRESS"] = connection.address
        yield connection
        del os.environ["RAY_ADDRESS"]


@pytest.fixture(scope="session")
def make_corpus() -> Callable[..., Path]:
    """Return a function that writes a corpus of tones and returns its manifest."""
    return _make_corpus


def _make_corpus(folder: Path, name: str, count: int, seed: int = 0, text: bool = True) -> Path:
    """Write ``count`` utterances of half a second or so, a tone for each word, and return their manifest."""
    generator = np.random.default_rng(seed)
    utterances = []
    for number in range(count):
        chosen = generator.integers(len(WORDS), size=3)
        tones = [np.sin(2 * np.pi * (300 + 250 * w) * np.arange(3200) / 16000) for w in chosen]
        samples = 0.3 * np.concatenate(tones) + 0.01 * generator.standard_normal(9600)
        path = folder / "audio" / f"{name}-{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((32767 * np.clip(samples, -1, 1)).astype(np.int16).tobytes())
        words = " ".join(WORDS[w] for w in chosen) if text else None
        utterances.append(Utterance(f"{name}-{number}", str(path), duration=0.6, text=words))
    write_jsonl(folder / f"{name}.jsonl", utterances)
    return folder / f"{name}.jsonl"
