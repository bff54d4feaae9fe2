"""Corpora in an object store, for which fsspec's memory file system stands in."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from raysr.audio.files import wav_bytes
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest
from raysr.errors import CorpusError


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()


def test_shards_in_a_store_are_a_corpus(tmp_path: Path, shard, store: fsspec.AbstractFileSystem):
    local = shard(3)
    store.pipe("/bucket/shard-00000.parquet", (local / "shard-00000.parquet").read_bytes())
    there = open_manifest("memory://bucket")
    assert there.ids() == open_manifest(local).ids()
    assert there.fingerprint() == open_manifest(local).fingerprint()
    for far, near in zip(there, open_manifest(local), strict=True):
        assert np.array_equal(load_waveform(far), load_waveform(near))
    cache = FeatureCache(tmp_path / "cache")
    cache.ensure(open_manifest(local))
    assert all(utterance in cache for utterance in there)


def test_a_manifest_in_a_store_names_files_beside_it(store: fsspec.AbstractFileSystem):
    store.pipe("/bucket/m.jsonl", b'{"audio_filepath": "wav/a.wav", "duration": 0.5}\n')
    store.pipe("/bucket/wav/a.wav", wav_bytes(np.full(8000, 0.5, np.float32)))
    (utterance,) = open_manifest("memory://bucket/m.jsonl")
    assert utterance.audio == "memory://bucket/wav/a.wav"
    assert np.array_equal(load_waveform(utterance), np.full(8000, 0.5, np.float32))


def test_what_is_not_in_the_store_is_named():
    with pytest.raises(CorpusError, match=r"memory://bucket/gone\.jsonl: no such file"):
        list(open_manifest("memory://bucket/gone.jsonl"))
    with pytest.raises(CorpusError, match=r"nonsense://bucket"):
        open_manifest("nonsense://bucket")
