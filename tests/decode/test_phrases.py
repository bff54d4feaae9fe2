"""Phrases as requests write them."""

import pytest

from raysr.decode.phrases import MOST, read_phrases
from raysr.errors import ConfigError


def test_a_number_after_the_last_colon_multiplies_the_boost() -> None:
    read = read_phrases(["anna", "new york:2", "half past: four", "a:b:.5"], 1.5)
    assert read == {"anna": 1.5, "new york": 3.0, "half past: four": 1.5, "a:b": 0.75}


@pytest.mark.parametrize(
    ("phrases", "told"),
    [
        (["anna:1.2.3"], "'1.2.3' of 'anna:1.2.3' should be a number"),
        (["n" * 500], "longer than 200"),
        ([f"name {n}" for n in range(MOST + 1)], "may hold 1000"),
    ],
)
def test_what_cannot_be_taken_is_named(phrases: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_phrases(phrases, 1.0)
