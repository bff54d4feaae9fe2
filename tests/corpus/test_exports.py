"""Exports: read back by our importers they are the same corpus, and the forms' own libraries read them too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import damage, imported, known
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysr.audio.files import wav_bytes, write_wav
from raysr.corpus.exporters.names import file_name
from raysr.corpus.exporters.run import FORMS, export_corpus
from raysr.corpus.importers.transcripts import Transcript
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.text.normalise import normalise

SECONDS = 0.6
AUDIO = wav_bytes(0.1 * np.random.default_rng(0).standard_normal(9600).astype(np.float32))

characters = st.characters(exclude_categories=["Cs"])
words = st.text(characters, min_size=1, max_size=12)
labels = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words
texts = words.map(lambda t: " ".join(t.split())).filter(
    lambda t: normalise(Transcript(t, "").spoken()) and not t.startswith("\ufeff")
)
utterances = st.builds(
    Utterance,
    id=words,
    audio=st.just(""),
    duration=st.just(SECONDS),
    text=st.none() | texts,
    speaker=st.none() | labels,
    language=st.sampled_from([None, "en", "zh-Hans"]),
    tags=st.dictionaries(words, words, max_size=2) | st.just({"gender": "f"}),
    custom=st.dictionaries(
        words.filter(lambda k: k not in ("tags", "origin", "original_text")), values, max_size=2
    ),
)
corpora = st.lists(utterances, min_size=1, max_size=20, unique_by=lambda u: u.id)
few = settings(max_examples=4, suppress_health_check=list(HealthCheck), deadline=None)


def round_trip(folder: Path, corpus: list[Utterance], form: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what is known of each utterance after an export and an import, and what was lost by the report."""
    write_shards(folder / "shards", ((u, AUDIO) for u in corpus))
    report = export_corpus(open_manifest(folder / "shards"), folder / "out", form, workers=1)
    assert report.problems == []
    source = {"nemo": "manifest.json", "lhotse": "cuts.jsonl.gz"}.get(form, "")
    back = imported(folder / "out" / source, folder / "back")
    assert {u["duration"] for u in back.values()} == {SECONDS}
    return back, dict(report.lost)


@pytest.mark.parametrize("form", ["nemo", "lhotse", "huggingface"])
@few
@given(corpora)
def test_forms_that_hold_everything_give_everything_back(
    tmp_path_factory: pytest.TempPathFactory, form: str, corpus: list[Utterance]
):
    back, lost = round_trip(tmp_path_factory.mktemp("trip"), corpus, form)
    assert lost == {}
    assert back == {u.id: known(u) for u in corpus}


@few
@given(corpora)
def test_kaldi_gives_back_what_it_holds_and_says_what_it_does_not(
    tmp_path_factory: pytest.TempPathFactory, corpus: list[Utterance]
):
    back, lost = round_trip(tmp_path_factory.mktemp("trip"), corpus, "kaldi")
    same = [u for u in corpus if u.id in back]
    assert lost.get("id", 0) == len(corpus) - len(same)
    assert [back[u.id]["text"] for u in same] == [u.text for u in same]
    assert [back[u.id]["speaker"] for u in same] == [u.speaker if u.speaker != u.id else None for u in same]
    if "language" not in lost:
        assert [back[u.id]["language"] for u in same] == [u.language for u in same]
    assert lost.get("custom", 0) == sum(bool(u.custom) for u in corpus)
    for u in same:
        if "tags" not in lost:
            assert back[u.id]["tags"] == u.tags


@few
@given(corpora)
def test_a_folder_gives_back_ids_and_texts(tmp_path_factory: pytest.TempPathFactory, corpus: list[Utterance]):
    back, lost = round_trip(tmp_path_factory.mktemp("trip"), corpus, "folder")
    same = [u for u in corpus if u.id in back]
    assert len(back) == len(corpus)
    assert lost.get("id", 0) == len(corpus) - len(same)
    assert [back[u.id]["text"] for u in same] == [u.text for u in same]


@given(st.lists(words | st.text(characters, max_size=400), unique=True))
def test_every_id_has_a_file_name_of_its_own(ids: list[str]):
    names = [file_name(name) for name in ids]
    assert len(set(names)) == len(names)
    for name in names:
        assert all(part and part[0] != "." and len(part.encode()) <= 255 for part in name.split("/"))
    assert [file_name(name) for name in ("calls/one", "日本 語", "a.b")] == ["calls/one", "日本 語", "a.b"]


@pytest.mark.parametrize("form", ["kaldi", "nemo", "lhotse"])
def test_references_keep_the_file_and_the_place_in_it(tmp_path: Path, form: str):
    sound = 0.1 * np.random.default_rng(1).standard_normal(80000).astype(np.float32)
    write_wav(tmp_path / "long call.wav", sound)
    corpus = [
        Utterance("a", str(tmp_path / "long call.wav"), 1.2, start=0.3, text="one two"),
        Utterance("b", str(tmp_path / "long call.wav"), 2.0001875, start=2.5, text="three"),
        Utterance("mixed", str(tmp_path / "long call.wav"), 1.0, start=1.0, mix={}, text="four"),
    ]
    write_jsonl(tmp_path / "in.jsonl", corpus)
    report = export_corpus(open_manifest(tmp_path / "in.jsonl"), tmp_path / "out", form, reference=True)
    assert (report.utterances, report.problems) == (3, [])
    assert [p.name.partition(".")[0] for p in (tmp_path / "out/audio").iterdir()] == ["mixed"]
    source = {"nemo": "manifest.json", "lhotse": "cuts.jsonl.gz"}.get(form, "")
    imported(tmp_path / "out" / source, tmp_path / "back", reference=True)
    back = {u.id: u for u in open_manifest(tmp_path / "back/manifest.jsonl")}
    for utterance in corpus[:2]:
        found = back[utterance.id]
        assert found.audio == utterance.audio
        assert abs(found.start - utterance.start) < 1 / 16000
        assert abs(found.duration - utterance.duration) < 1 / 16000
        assert np.array_equal(load_waveform(found), load_waveform(utterance))
    assert back["mixed"].start == 0
    assert abs(load_waveform(back["mixed"]) - sound[16000:32000]).max() < 1e-4


def test_lhotse_reads_our_cuts(tmp_path: Path, shard: Callable[..., Path]):
    lhotse = pytest.importorskip("lhotse")
    folder = shard(3, 0.5)
    export_corpus(open_manifest(folder), tmp_path / "out", "lhotse")
    cuts = lhotse.CutSet.from_file(tmp_path / "out/cuts.jsonl.gz")
    lhotse.validate(cuts, read_data=True)
    for cut, utterance in zip(cuts, open_manifest(folder), strict=True):
        assert (cut.id, cut.duration, cut.supervisions[0].text) == (utterance.id, 0.5, utterance.text)
        assert abs(cut.load_audio()[0] - load_waveform(utterance)).max() < 1e-4


def test_lhotse_reads_our_kaldi_directory(tmp_path: Path, shard: Callable[..., Path]):
    lhotse = pytest.importorskip("lhotse")
    folder = shard(3, 0.5)
    export_corpus(open_manifest(folder), tmp_path / "out", "kaldi")
    recordings, supervisions, _ = lhotse.kaldi.load_kaldi_data_dir(tmp_path / "out", 16000)
    assert [(r.id, r.num_samples) for r in recordings] == [(f"u{n}", 8000) for n in range(3)]
    assert [(s.id, s.text, s.speaker) for s in supervisions] == [
        (f"u{n}", f"text {n}", f"u{n}") for n in range(3)
    ]


def test_datasets_loads_our_data_set(tmp_path: Path, shard: Callable[..., Path]):
    datasets = pytest.importorskip("datasets")
    folder = shard(5, 0.5)
    export_corpus(open_manifest(folder), tmp_path / "out", "huggingface")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["audio"], datasets.Audio)
    plain = loaded.cast_column("audio", datasets.Audio(decode=False))
    assert plain["id"][:] == [f"u{n}" for n in range(5)]
    assert all(row["audio"]["bytes"][:4] == b"fLaC" for row in plain)


def test_what_cannot_be_exported_is_a_row_and_stops_nothing(tmp_path: Path):
    write_wav(tmp_path / "good.wav", np.full(8000, 0.1, np.float32))
    names = {"good": "good.wav", "gone": "gone.wav", "also good": "good.wav"}
    lines = [{"id": name, "audio_filepath": file, "duration": 0.5} for name, file in names.items()]
    lines.append({**lines[0]})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = export_corpus(open_manifest(tmp_path / "in.jsonl"), tmp_path / "out", "nemo")
    assert {problem.where: problem.kind for problem in report.problems} == {
        "gone": "unreadable audio",
        "good": "duplicate id",
    }
    assert open_manifest(tmp_path / "out/manifest.json").ids() == ["good", "also good"]


def test_an_export_appears_whole_or_not_at_all(tmp_path: Path, shard: Callable[..., Path]):
    manifest = open_manifest(shard(3))

    def stop(done: int, total: int) -> None:
        assert not (tmp_path / "out").exists()
        raise KeyboardInterrupt

    for form in FORMS:
        with pytest.raises(KeyboardInterrupt):
            export_corpus(manifest, tmp_path / "out", form, progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards"]
    for form, options, complaint in [
        ("kaldy", {}, "no such format 'kaldy': choose folder, kaldi"),
        ("kaldi", {"audio": "mp3"}, "no such audio format 'mp3'"),
        ("folder", {"reference": True}, "--reference: the format folder"),
    ]:
        with pytest.raises(CorpusError, match=complaint):
            export_corpus(manifest, tmp_path / "out", form, **options)
    with pytest.raises(CorpusError, match="is there already"):
        export_corpus(manifest, tmp_path / "shards", "nemo")


@pytest.mark.parametrize(
    ("kind", "reason"), [("header", "OSError"), ("count", "IndexError"), ("values", "ArrowInvalid")]
)
def test_a_damaged_page_of_a_shard_costs_its_own_rows(
    tmp_path: Path, shard: Callable[..., Path], kind: str, reason: str
):
    shard(2, name="sound")
    write_shards(tmp_path / "broken", [(Utterance("broken", "", 0.3), b"RIFF" * 99)])
    (broken,) = (tmp_path / "broken").iterdir()
    damage(broken, kind)
    manifest = open_manifest([broken, *(tmp_path / "sound").iterdir()])
    report = export_corpus(manifest, tmp_path / "out", "nemo")
    assert report.utterances == 2
    (problem,) = report.problems
    assert problem.where == "broken"
    assert problem.reason.startswith(f"{reason}: ")
    assert "\n" not in problem.reason
