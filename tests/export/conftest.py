"""The recogniser that the tests of a stream have."""

import sys
from pathlib import Path

import pytest

# Test folders are not packages.
sys.path.append(str(Path(__file__).parent.parent / "stream"))

from toy_language import trained

from raysr.pool import Recogniser


@pytest.fixture(scope="session")
def recogniser() -> Recogniser:
    return trained()
