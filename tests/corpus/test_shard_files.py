import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.corpus import shards
from raysr.corpus.manifest import open_manifest
from raysr.corpus.shards import read_audio, write_shards
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text
items = st.lists(
    st.tuples(
        st.builds(
            Utterance,
            id=text,
            audio=st.just(""),
            duration=st.floats(0, 1e6),
            start=st.floats(0, 1e6),
            sample_rate=st.integers(1, 192000),
            text=st.none() | text,
            speaker=st.none() | text,
            language=st.none() | text,
            tags=st.dictionaries(text, text, max_size=3),
            mix=st.none() | st.dictionaries(text, values, min_size=1, max_size=3),
            custom=st.dictionaries(text, values, max_size=3),
        ),
        st.binary(max_size=50),
    ),
    max_size=200,
)


@given(items, st.integers(1, 150))
def test_shards_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, wrote: list[tuple[Utterance, bytes]], rows: int
):
    folder = tmp_path_factory.mktemp("shards")
    paths = write_shards(folder, wrote, rows_per_shard=rows)
    assert len(paths) == -(-len(wrote) // rows)
    read = list(open_manifest(paths))
    assert len(read) == len(open_manifest(paths)) == len(wrote)
    for (utterance, audio), found in zip(wrote, read, strict=True):
        assert found == Utterance(
            **{
                name: getattr(utterance, name) for name in Utterance.__slots__ if name not in ("audio", "row")
            },
            audio=found.audio,
            row=found.row,
        )
        assert found.row is not None
        assert read_audio(found.audio, found.row) == audio
    groups = [pq.ParquetFile(path).metadata for path in paths]
    assert all(m.row_group(g).num_rows <= 64 for m in groups for g in range(m.num_row_groups))


def test_big_recordings_make_small_row_groups(tmp_path: Path):
    (path,) = write_shards(tmp_path, ((Utterance(f"u{n}", "", 1), bytes(12 << 20)) for n in range(6)))
    metadata = pq.ParquetFile(path).metadata
    assert [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)] == [3, 3]
    assert metadata.serialized_size < 10_000


def test_a_failed_writer_leaves_whole_shards_only(tmp_path: Path):
    def broken():
        for n in range(25):
            yield Utterance(f"u{n}", "", 1), b"audio"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_shards(tmp_path, broken(), rows_per_shard=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-00000.parquet", "shard-00001.parquet"]
    assert len(open_manifest(tmp_path)) == 20
    write_shards(tmp_path, [(Utterance("more", "", 1), b"")])
    assert open_manifest(tmp_path).ids()[-1] == "more"


def test_a_rewritten_shard_is_read_anew(tmp_path: Path):
    path = str(write_shards(tmp_path, [(Utterance("a", "", 1), b"old")])[0])
    assert read_audio(path, 0) == b"old"
    os.remove(path)
    write_shards(tmp_path, [(Utterance("a", "", 1), b"newer")])
    assert read_audio(path, 0) == b"newer"


@pytest.mark.parametrize("damage", ["text", "cut", "foreign", "gone"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str):
    (path,) = write_shards(tmp_path, [(Utterance("a", "", 1), bytes(1000))])
    if damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "foreign":
        pq.write_table(pa.table({"id": ["a"], "audio": [b""]}), path)
    else:
        manifest = open_manifest(path)
        path.unlink()
        with pytest.raises(CorpusError, match="no such file"):
            list(manifest)
        return
    with pytest.raises(CorpusError, match=r"shard-00000\.parquet") as caught:
        list(open_manifest(path))
    assert "\n" not in str(caught.value)


def test_a_row_that_is_not_there_is_named(tmp_path: Path):
    (path,) = write_shards(tmp_path, [(Utterance("a", "", 1), b"")])
    with pytest.raises(CorpusError, match="has no row 1; it holds 1"):
        read_audio(str(path), 1)


_FILL = """
import resource, sys
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
items = ((Utterance(f"u{n}", "", 1.0), bytes(100_000)) for n in range(100))
try:
    write_shards(sys.argv[1], items, rows_per_shard=int(sys.argv[3]))
except CorpusError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", ["file size", "file system"])
def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path: Path, limit: str):
    folder = tmp_path / "out"
    folder.mkdir()
    if limit == "file system":
        size = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)]
        if subprocess.run(size, capture_output=True).returncode:
            pytest.skip("mounting needs root")
    try:
        rows = "10" if limit == "file system" else "100"
        command = [
            sys.executable,
            "-c",
            _FILL,
            str(folder),
            "0" if limit == "file system" else "2000000",
            rows,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.startswith(f"disk full while writing to {folder}: "), done.stderr
        assert done.stdout.count("\n") == 1
        whole = 10 if limit == "file system" else 0
        found = sorted(path.name for path in folder.iterdir())
        assert found == ["shard-00000.parquet"] * bool(whole)
        if whole:
            assert len(open_manifest(folder)) == whole
    finally:
        if limit == "file system":
            subprocess.run(["umount", str(folder)], check=True)


def test_only_so_much_audio_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(Utterance(f"u{n}", "", 1.0), bytes([n]) * 1000) for n in range(200)]
    (path,) = write_shards(tmp_path, rows)
    cache = shards._GroupCache()
    monkeypatch.setattr(shards, "_audio_groups", cache)
    monkeypatch.setattr(shards, "_BYTES_IN_CACHE", 150_000)
    order = np.random.default_rng(0).permutation(200)
    assert [read_audio(str(path), int(n)) for n in order] == [bytes([n]) * 1000 for n in order]
    assert len(cache._groups) == 2  # of 64 rows each, of the four that there are
    monkeypatch.setattr(shards, "_BYTES_IN_CACHE", 1)
    assert read_audio(str(path), 0) + read_audio(str(path), 199) == bytes(1000) + bytes([199]) * 1000
    assert len(cache._groups) == 1
