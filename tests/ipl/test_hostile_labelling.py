"""A thousand inputs that are no good: each ends as its row, in one line, and the good ones do not notice."""

from pathlib import Path

import pytest

from benchmarks.hostile import CONTENTS, PLACES, measure
from raysr.cluster import Connection

READABLE_AFTER_ALL = {"truncated", "flipped", "wrong magic", "lying header", "unreadable"}  # some of them


@pytest.mark.ray
def test_each_hostile_input_ends_as_its_row(ray_cluster: Connection, tmp_path: Path) -> None:
    found = measure(tmp_path, hostile=1000, sound=40)
    assert found["hostile"] == 1000
    assert found["rows"] == 1040
    assert found["sound_changed"] == 0
    assert found["failures_of_several_lines"] == 0
    assert set(found["offered_by_kind"]) == {*CONTENTS, *PLACES}
    for kind, offered in found["offered_by_kind"].items():
        failed = found["failed_by_kind"].get(kind, 0)
        assert failed == offered or (kind in READABLE_AFTER_ALL and failed <= offered), kind
    assert found["failed"] > 700
