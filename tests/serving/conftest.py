"""Endpoints for the tests, on a pool with a model trained on the spot."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The tests of a session share their language, and test folders are not packages.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent / "stream")]

from endpoint import Server, publish, serving
from toy_language import trained

from raysr.pool import Recogniser
from raysr.serving.settings import ServingConfig


@pytest.fixture(scope="session")
def recogniser() -> Recogniser:
    return trained()


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory, recogniser: Recogniser) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "pool"
    publish(folder, "first", recogniser, cycle=0)
    return folder


@pytest.fixture(scope="session")
def server(pool: Path) -> Iterator[Server]:
    with serving(ServingConfig(pool=str(pool))) as running:
        yield running


@pytest.fixture
def start(pool: Path) -> Iterator[Callable[..., Server]]:
    """Start endpoints with options of their own; they end with the test."""
    with contextlib.ExitStack() as stack:

        def begin(backpressure: bool = True, **options: Any) -> Server:
            config = ServingConfig.parse({"pool": str(pool), "poll_seconds": 0.05, **options})
            return stack.enter_context(serving(config, backpressure))

        yield begin
