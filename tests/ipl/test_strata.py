"""Every utterance is in one stratum, which its name describes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raysr.corpus.utterance import Utterance
from raysr.ipl.strata import By, duration_stratum, stratum


@given(st.floats(0, 100), st.lists(st.integers(1, 50), min_size=1, max_size=5, unique=True).map(sorted))
def test_a_duration_lies_within_the_edges_of_its_name(seconds: float, edges: list[int]) -> None:
    words = duration_stratum(seconds, edges).split()
    if words[0] == "under":
        assert seconds < float(words[1]) == edges[0]
    elif words[-1] == "more":
        assert seconds >= float(words[0]) == edges[-1]
    else:
        assert float(words[0]) <= seconds < float(words[2])


def test_what_is_not_known_has_a_stratum_too() -> None:
    utterance = Utterance("u", "/a.wav", 3.0, speaker="anna", tags={"room": "hall"})
    named = {
        by: stratum(utterance, by) for by in ("speaker", "language", "tag:room", "tag:device", "duration")
    }
    assert named == {
        "speaker": "anna",
        "language": "unknown",
        "tag:room": "hall",
        "tag:device": "unknown",
        "duration": "2 to 4 s",
    }


@pytest.mark.parametrize("by", ["room", "tag:", "id", ""])
def test_only_what_groups_is_a_kind_of_stratum(by: str) -> None:
    with pytest.raises(ValidationError, match="tag:NAME"):
        TypeAdapter(By).validate_python(by)
