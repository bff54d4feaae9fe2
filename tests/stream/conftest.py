"""One recogniser, trained on the spot, for every test of a stream."""

import sys
from pathlib import Path

import pytest

# The tests of the endpoint share this language, and test folders are not packages.
sys.path.append(str(Path(__file__).parent))

from toy_language import trained

from raysr.pool import Recogniser


@pytest.fixture(scope="session")
def recogniser() -> Recogniser:
    return trained()
