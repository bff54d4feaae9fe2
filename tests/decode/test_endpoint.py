"""Where segments end, whatever the pieces they are read in."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.endpoint import Endpoint, EndpointConfig, Endpointer

SPEECH, BLANK = math.log(0.1), math.log(0.99)
CONFIG = EndpointConfig(
    pause=5, long_segment=20, short_pause=2, max_segment=30, max_silence=12, blank_threshold=0.8
)


def ends(values: list[float]) -> list[Endpoint]:
    return Endpointer(CONFIG, frame_seconds=1.0).push(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([SPEECH] * 3 + [BLANK] * 4, []),
        ([SPEECH] * 3 + [BLANK] * 5, [Endpoint(8, "pause")]),
        (
            [BLANK] * 4 + [SPEECH] + [BLANK] * 5 + [SPEECH] + [BLANK] * 5,
            [Endpoint(10, "pause"), Endpoint(16, "pause")],
        ),
        ([SPEECH] * 17 + [BLANK] * 3, [Endpoint(20, "pause")]),
        ([SPEECH] * 22 + [BLANK] * 2, [Endpoint(24, "pause")]),
        ([SPEECH] * 65, [Endpoint(30, "length"), Endpoint(60, "length")]),
        ([BLANK] * 25, [Endpoint(12, "silence"), Endpoint(24, "silence")]),
        ([BLANK] * 11 + [SPEECH] + [BLANK] * 4, []),
    ],
)
def test_segments_end_where_the_rules_say(values: list[float], expected: list[Endpoint]) -> None:
    assert ends(values) == expected


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.tuples(st.sampled_from([SPEECH, BLANK]), st.integers(1, 15)), max_size=12),
    cuts=st.lists(st.integers(0, 150), max_size=8),
)
def test_any_split_gives_the_same_ends_and_no_segment_is_too_long(
    runs: list[tuple[float, int]], cuts: list[int]
) -> None:
    values = [value for value, count in runs for _ in range(count)]
    endpointer = Endpointer(CONFIG, frame_seconds=1.0)
    pieces = [values[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(values)])]
    found = [end for piece in pieces for end in endpointer.push(piece)]
    assert found == ends(values)
    bounds = [0, *(end.frame for end in found), len(values)]
    assert all(b - a <= 30 for a, b in itertools.pairwise(bounds))
