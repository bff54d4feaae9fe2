import gzip
import json
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.corpus.manifest import load_truth, open_manifest, write_jsonl, write_truth
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
seconds = st.floats(0, 1e6, allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | seconds | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
utterances = st.builds(
    Utterance,
    id=text,
    audio=st.sampled_from(["/corpus/a.wav", "/corpus/deep/b.flac", "/elsewhere/c.parquet", "s3://b/c.wav"]),
    duration=seconds,
    row=st.none() | st.integers(0, 2**31),
    start=seconds,
    sample_rate=st.integers(1, 192000),
    text=st.none() | text,
    speaker=st.none() | text,
    language=st.none() | text,
    tags=st.dictionaries(text, text, max_size=3),
    mix=st.none() | st.dictionaries(text, json_values, max_size=3),
    custom=st.dictionaries(text, json_values, max_size=3),
)


@given(st.lists(utterances, max_size=5))
def test_jsonl_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, wrote: list[Utterance]):
    path = tmp_path_factory.mktemp("manifest") / "m.jsonl"
    write_jsonl(path, wrote)
    manifest = open_manifest(path)
    assert list(manifest) == wrote
    assert len(manifest) == len(wrote)


def test_paths_move_with_the_manifest(tmp_path: Path):
    write_jsonl(
        tmp_path / "here" / "m.jsonl", [Utterance("a", str(tmp_path / "here" / "wav" / "a.wav"), 1.0)]
    )
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert next(iter(open_manifest(tmp_path / "there" / "m.jsonl"))).audio == str(
        tmp_path / "there/wav/a.wav"
    )


def test_nemo_lines_are_read(tmp_path: Path):
    lines = [
        {"audio_filepath": "a.wav", "duration": 2, "text": "one", "lang": "en", "pnc": True},
        {"audio_filepath": "/x/b.wav", "offset": 1.5, "duration": 2.0},
        {"audio_filepath": "/x/b.wav", "offset": 3.5, "duration": 2.0},
    ]
    with gzip.open(tmp_path / "m.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, lines)) + "\n\n")
    one, two, three = open_manifest(tmp_path / "m.jsonl.gz")
    assert one == Utterance(
        "a", str(tmp_path / "a.wav"), 2.0, text="one", language="en", custom={"pnc": True}
    )
    assert (two.id, two.start, two.text) == ("/x/b@1.5", 1.5, None)
    assert three.id != two.id


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "one JSON object"),
        ("\xff", "not UTF-8"),
        ('{"duration": 1}', "'audio_filepath' is missing"),
        ('{"audio_filepath": "a.wav"}', "'duration' is missing"),
        ('{"audio_filepath": "a.wav", "duration": "long"}', "'duration' is a number of seconds"),
        ('{"audio_filepath": "a.wav", "duration": -1}', "'duration' is a number of seconds"),
        ('{"audio_filepath": "a.wav", "duration": NaN}', "'duration' is a number of seconds"),
        ('{"audio_filepath": "a.wav", "duration": 1, "text": 5}', "'text' is a string"),
        ('{"audio_filepath": "a.wav", "duration": 1, "tags": []}', None),
        ('{"audio_filepath": "a.wav", "duration": 1, "tags": "loud"}', "'tags' is an object"),
        ('{"audio_filepath": "a.wav", "duration": 1, "row": 1.5}', "'row' is a whole number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, complaint: str | None):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"audio_filepath": "a.wav", "duration": 1}\n' + line.encode("latin-1") + b"\n")
    if complaint is None:
        assert len(list(open_manifest(path))) == 2
        return
    with pytest.raises(CorpusError, match=complaint) as caught:
        list(open_manifest(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("gone.jsonl", "no such manifest"), ("empty", "no Parquet shards"), ("a.csv", "not a manifest")],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, name: str, complaint: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").touch()
    with pytest.raises(CorpusError, match=complaint) as caught:
        open_manifest(tmp_path / name)
    assert name in str(caught.value)


def test_a_repeated_id_is_named(tmp_path: Path):
    manifest = open_manifest([Utterance("same", "a.wav", 1), Utterance("same", "b.wav", 1)])
    with pytest.raises(CorpusError, match=r"b\.wav.*'same' comes twice"):
        manifest.ids()


def _is_long(utterance: Utterance) -> bool:
    return utterance.duration > 5


def test_filter_and_sample_keep_order_and_pickle(tmp_path: Path):
    write_jsonl(tmp_path / "m.jsonl", [Utterance(f"u{n}", "/a.wav", n) for n in range(20)])
    manifest = open_manifest(tmp_path / "m.jsonl")
    long = manifest.filter(_is_long)
    drawn = long.sample(7, seed=3)
    assert (len(long), len(drawn), len(long.sample(100))) == (14, 7, 14)
    assert [u.duration for u in drawn] == sorted(u.duration for u in drawn)
    assert drawn.ids() == long.sample(7, seed=3).ids() != long.sample(7, seed=4).ids()
    assert pickle.loads(pickle.dumps(drawn)).ids() == drawn.ids()


def test_several_places_make_one_manifest(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [Utterance("a", "/a.wav", 1)])
    write_jsonl(tmp_path / "b.jsonl", [Utterance("b", "/b.wav", 1)])
    manifest = open_manifest([tmp_path / "a.jsonl", str(tmp_path / "b.jsonl"), Utterance("c", "/c.wav", 1)])
    assert manifest.ids() == ["a", "b", "c"]
    assert len(manifest) == 3


def test_the_fingerprint_knows_content_not_place_or_order(tmp_path: Path, shard, wav):
    first, moved = shard(5), tmp_path / "moved"
    shutil.copytree(first, moved)
    assert open_manifest(first).fingerprint() == open_manifest(moved).fingerprint()
    listed = list(open_manifest(first))
    assert open_manifest(listed[::-1]).fingerprint() == open_manifest(first).fingerprint()
    assert open_manifest(listed[1:]).fingerprint() != open_manifest(first).fingerprint()
    changed = [listed[0].with_text("other"), *listed[1:]]
    assert open_manifest(changed).fingerprint() != open_manifest(first).fingerprint()
    shorter = Utterance("w", str(wav("x/w.wav", 0.5)), 0.5)
    before = open_manifest([shorter]).fingerprint()
    wav("x/w.wav", 0.6)
    assert open_manifest([shorter]).fingerprint() != before


def test_truth_is_read_from_its_folder(tmp_path: Path):
    write_truth(tmp_path / "truth.jsonl", [("a", "ein text"), ("b", "текст")])
    assert load_truth(tmp_path) == load_truth(tmp_path / "truth.jsonl") == {"a": "ein text", "b": "текст"}
    (tmp_path / "truth.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n')
    with pytest.raises(CorpusError, match=r"truth\.jsonl:2: the id 'a' comes twice"):
        load_truth(tmp_path)
