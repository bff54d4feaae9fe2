"""Importing what Kaldi, NeMo, lhotse and Hugging Face write."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import imported, take
from problems import rows

from raysr.audio.files import decode, encode_opus, wav_bytes, write_wav
from raysr.corpus.importers import recordings
from raysr.corpus.importers.forms import detect, open_source
from raysr.corpus.importers.source import Recording, Segment
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import load_truth, open_manifest
from raysr.corpus.shards import read_audio
from raysr.errors import CorpusError

SOUND = (0.1 * np.random.default_rng(0).standard_normal(160000)).astype(np.float32)


@pytest.fixture
def kaldi(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a Kaldi data directory over one recording of ten seconds, ``rec``."""
    write_wav(tmp_path / "rec.wav", SOUND)

    def write(**tables: str) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name, text in {"wav_scp": f"rec {tmp_path}/rec.wav\n", **tables}.items():
            (folder / name.replace("_", ".")).write_text(text)
        return folder

    return write


def heard(folder: Path) -> dict[str, np.ndarray]:
    return {utterance.id: load_waveform(utterance) for utterance in open_manifest(folder)}


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


def test_kaldi_segments_are_cut_out_with_all_that_is_known_of_them(
    tmp_path: Path, kaldi: Callable[..., Path]
):
    folder = kaldi(
        segments="u1 rec 0.5 1.5\nu2\trec 1.25 3.0\nu3 rec 9 -1\n",
        text="u1  good  morning\nu2 grüß gott\n",
        utt2spk="u1 ann\nu2 bob\nu3 u3\n",
        spk2gender="ann f\n",
        utt2lang="u2 de\n",
    )
    found = imported(folder, tmp_path / "out")
    assert found == {
        "u1": {
            "duration": 1.0,
            "text": "good morning",
            "speaker": "ann",
            "language": None,
            "tags": {"gender": "f"},
            "custom": {},
        },
        "u2": {
            "duration": 1.75,
            "text": "grüß gott",
            "speaker": "bob",
            "language": "de",
            "tags": {},
            "custom": {},
        },
        "u3": {"duration": 1.0, "text": None, "speaker": None, "language": None, "tags": {}, "custom": {}},
    }
    whole = decode(tmp_path / "rec.wav")
    for name, samples in heard(tmp_path / "out").items():
        first = {"u1": 8000, "u2": 20000, "u3": 144000}[name]
        assert abs(samples - whole[first : first + len(samples)]).max() <= 0.5001 / 32768


def test_commands_of_wav_scp_are_refused_and_never_run(tmp_path: Path, kaldi: Callable[..., Path]):
    folder = kaldi(
        wav_scp=f"a touch {tmp_path}/run |\nb | touch {tmp_path}/run\nc -\nd {tmp_path}/x.ark:15\n"
        f"e {tmp_path}/rec.wav\n",
        segments="a1 a 0 1\ne1 e 0 1\n",
    )
    report = take(folder, tmp_path / "out")
    assert rows(report) == dict.fromkeys(
        ("wav.scp:1", "wav.scp:2", "wav.scp:3", "wav.scp:4", "segments:1"), "unsupported audio"
    )
    assert open_manifest(tmp_path / "out").ids() == ["e1"]
    assert not (tmp_path / "run").exists()


def test_every_bad_line_of_a_kaldi_directory_is_a_row(tmp_path: Path, kaldi: Callable[..., Path]):
    folder = kaldi(
        segments="ok rec 0 1\nu2 rec 1\nu3 rec x 2\nu4 rec 3 2\nu5 none 0 1\nok rec 2 3\nu7 rec 20 21\nu8 rec 9 10.4\n"
        "u9 rec 9 10.6\nu10 rec 0 0.01\nu11 rec 0 nan\nu12 rec 0 1 5\nu13 rec 0 1 x\nu14 rec 9 99999999\n",
        text="ok fine\nok again\nnobody hello\nu8 " + "far too long for this " * 5 + "\n",
        utt2spk="ok\n",
    )
    assert rows(take(folder, tmp_path / "out")) == {
        "segments:2": "unreadable line",
        "segments:3": "bad segment",
        "segments:4": "bad segment",
        "segments:5": "missing file",
        "segments:6": "duplicate id",
        "segments:7": "beyond the end",
        "segments:9": "beyond the end",
        "segments:10": "too short",
        "segments:11": "bad segment",
        "segments:12": "no such channel",
        "segments:13": "bad segment",
        "segments:14": "beyond the end",
        "text:2": "duplicate id",
        "text:3": "transcript without audio",
        "text:4": "transcript too long",
        "utt2spk:1": "unreadable line",
    }
    assert open_manifest(tmp_path / "out").ids() == ["ok"]


def test_a_recording_is_decoded_once_for_all_its_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = []

    def spy(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        return decode_blocks(*arguments, **options)

    decode_blocks = recordings.decode_blocks
    monkeypatch.setattr(recordings, "decode_blocks", spy)
    (tmp_path / "rec.opus").write_bytes(encode_opus(SOUND))
    segments = [Segment(f"u{n}", f"s:{n}", start=9 - 0.1 * n, duration=0.5) for n in range(80)]
    recording = Recording(str(tmp_path / "rec.opus"), "rec.opus", "rec")
    task = recordings.ReadTask(recording, segments, 120)
    whole = decode(tmp_path / "rec.opus")
    for index, clip in recordings.read_clips(task):
        assert isinstance(clip, recordings.Clip)
        first = round(segments[index].start * 16000)
        assert abs(decode(clip.audio) - whole[first : first + 8000]).max() <= 0.5001 / 32768
    assert len(opened) == 1


def test_a_recording_shorter_than_kaldi_says_was_cut(tmp_path: Path, kaldi: Callable[..., Path]):
    folder = kaldi(reco2dur="rec 12.5\n", utt2spk="rec ann\n")
    with pytest.raises(CorpusError, match=r"wav\.scp:1 .*holds 10\.00 s"):
        take(folder, tmp_path / "out")


@pytest.mark.parametrize("channel", [0, 1])
def test_a_channel_of_a_telephone_call_is_taken_alone(
    tmp_path: Path, kaldi: Callable[..., Path], channel: int
):
    stereo = np.stack([SOUND[:16000], SOUND[16000:32000]])
    write_stereo(tmp_path / "rec.sph", stereo)
    folder = kaldi(wav_scp=f"rec {tmp_path}/rec.sph\n", segments=f"u rec 0.25 0.75 {channel}\n")
    imported(folder, tmp_path / "out")
    assert abs(heard(tmp_path / "out")["u"] - stereo[channel, 4000:12000]).max() <= 1.0001 / 32768


def write_stereo(path: Path, stereo: np.ndarray) -> None:
    """Write two channels (2, N)."""
    with av.open(str(path), "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=16000, layout="stereo")
        pcm = np.round(stereo.T.reshape(1, -1) * 32768).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm, "s16", "stereo")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))


def test_one_channel_of_several_cannot_be_referred_to(tmp_path: Path, kaldi: Callable[..., Path]):
    write_stereo(tmp_path / "call.wav", np.stack([SOUND[:16000], -SOUND[:16000]]))
    write_stereo(tmp_path / "both.wav", np.stack([SOUND[:16000], SOUND[:16000]]))
    write_wav(tmp_path / "one.wav", SOUND[:16000])
    folder = kaldi(
        wav_scp="".join(f"{name} {tmp_path}/{name}.wav\n" for name in ("call", "both", "one")),
        segments="a call 0 0.5 0\nb call 0 0.5 1\nboth both 0 0.5\none one 0 0.5 0\n",
    )
    report = take(folder, tmp_path / "out", reference=True)
    assert [(p.kind, p.where) for p in report.problems] == [
        ("one of several channels", f"segments:{n}") for n in (1, 2)
    ]
    assert "has 2 channels, and number 1 alone is wanted" in report.problems[1].reason
    for utterance in open_manifest(tmp_path / "out/manifest.jsonl"):
        assert abs(load_waveform(utterance) - SOUND[:8000]).max() < 1e-4
    assert report.utterances == 2


def test_nist_sphere_files_are_read(tmp_path: Path, kaldi: Callable[..., Path]):
    pcm = np.round(SOUND[:16000] * 32768).astype("<i2").tobytes()
    header = (
        "NIST_1A\n   1024\nsample_rate -i 16000\nchannel_count -i 1\nsample_n_bytes -i 2\n"
        "sample_byte_format -s2 01\nsample_coding -s3 pcm\nsample_count -i 16000\nend_head\n"
    )
    (tmp_path / "a.sph").write_bytes(header.encode().ljust(1024) + pcm)
    imported(kaldi(wav_scp=f"a {tmp_path}/a.sph\n"), tmp_path / "out")
    assert abs(heard(tmp_path / "out")["a"] - SOUND[:16000]).max() <= 1.0001 / 32768


def test_nemo_manifests_keep_what_raysr_does_not_know(tmp_path: Path):
    write_wav(tmp_path / "rec.wav", SOUND)
    manifest = jsonl(
        tmp_path / "train.json",
        {"audio_filepath": "rec.wav", "duration": 10.0, "text": "", "target_lang": "de", "snr": 12.5},
        {
            "audio_filepath": "rec.wav",
            "offset": 2.5,
            "duration": 1.5,
            "text": "Guten Tag",
            "lang": "de",
            "speaker": 7,
        },
        {"audio_filepath": str(tmp_path / "rec.wav"), "id": "ü", "offset": 9, "sampling_rate": 16000},
        {"audio_filepath": "rec.wav", "duration": 3, "_skipme": True},
    )
    found = imported(manifest, tmp_path / "out")
    assert set(found) == {"rec", "rec@2.5", "ü"}
    assert (found["rec"]["text"], found["rec"]["custom"]) == (None, {"target_lang": "de", "snr": 12.5})
    assert found["rec@2.5"]["text"] == "Guten Tag"
    assert (found["rec@2.5"]["speaker"], found["rec@2.5"]["language"]) == ("7", "de")
    assert found["ü"]["duration"] == 1.0
    assert (tmp_path / "out/import.json").read_text().count("_skipme") == 1


def test_every_bad_line_of_a_nemo_manifest_is_a_row(tmp_path: Path):
    write_wav(tmp_path / "rec.wav", SOUND)
    good = {"audio_filepath": "rec.wav", "duration": 10.0, "text": "one two"}
    bad: list[tuple[bytes, str]] = [
        (json.dumps(good).encode(), ""),
        (b"{not json", "unreadable line"),
        (b'{"audio_filepath": "rec.wav", "duration": 1, "text": "\xff"}', "not UTF-8"),
        (b'{"audio_filepath": "rec.wav", "duration": 1, "text": "\\ud800"}', "unreadable line"),
        (b"[" * 100000, "unreadable line"),
        (b'{"audio_filepath": "rec.wav", "duration": ' + b"9" * 5000 + b"}", "unreadable line"),
        (b'["a list"]', "unreadable line"),
        (json.dumps({**good, "duration": -1, "id": "a"}).encode(), "unreadable line"),
        (json.dumps({**good, "duration": 0, "id": "b"}).encode(), "no audio"),
        (json.dumps({**good, "duration": "long", "id": "c"}).encode(), "unreadable line"),
        (json.dumps({**good, "offset": 1e8, "id": "d"}).encode(), "beyond the end"),
        (json.dumps({**good, "audio_filepath": ["x", "y"]}).encode(), "unreadable line"),
        (json.dumps({**good, "audio_filepath": "gone.wav"}).encode(), "missing file"),
        (json.dumps({**good, "audio_filepath": "gone\0.wav"}).encode(), "unreadable audio"),
        (json.dumps({**good, "audio_filepath": "/dev/zero"}).encode(), "unreadable audio"),
        (json.dumps({**good, "audio_filepath": "."}).encode(), "unreadable audio"),
        (json.dumps({**good, "sampling_rate": 8000, "id": "e"}).encode(), "wrong rate"),
        (json.dumps({**good, "text": 7, "id": "f"}).encode(), "unreadable line"),
        (json.dumps({**good, "tags": [1], "id": "g"}).encode(), "unreadable line"),
        (json.dumps({**good, "text": "..!", "id": "h"}).encode(), "no words"),
        (json.dumps(good).encode(), "duplicate id"),
        (b'{"audio_filepath": "rec.wav", "duration": 1e999, "id": "inf", "text": "three"}', ""),
    ]
    (tmp_path / "m.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(line for line, _ in bad))
    report = take(tmp_path / "m.jsonl", tmp_path / "out")
    assert rows(report) == {f"m.jsonl:{n}": kind for n, (_, kind) in enumerate(bad, 1) if kind}
    assert open_manifest(tmp_path / "out").ids() == ["rec", "inf"]


def test_a_tarred_manifest_is_refused_with_the_mend(tmp_path: Path):
    manifest = jsonl(tmp_path / "m.json", {"audio_filepath": "a.wav", "duration": 1, "shard_id": 0})
    with pytest.raises(CorpusError, match=r"a tarred data set: unpack its \.tar files"):
        open_source(manifest)


def test_what_lhotse_writes_is_read(tmp_path: Path):
    lhotse = pytest.importorskip("lhotse")
    write_wav(tmp_path / "rec.wav", SOUND)
    recordings = lhotse.RecordingSet.from_recordings([lhotse.Recording.from_file(tmp_path / "rec.wav")])
    spans = [(0.5, 1.25), (2.0, 3.5)]
    supervisions = lhotse.SupervisionSet.from_segments(
        lhotse.SupervisionSegment(
            f"s{n}",
            "rec",
            start,
            length,
            text=f"text {n}",
            speaker="ann",
            language="en",
            gender="f",
            custom={"n": n},
        )
        for n, (start, length) in enumerate(spans)
    )
    cuts = lhotse.CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    cuts.to_file(tmp_path / "long.jsonl.gz")
    cuts.trim_to_supervisions().to_file(tmp_path / "cuts.jsonl")
    lhotse.kaldi.export_to_kaldi(recordings, supervisions, tmp_path / "kaldi")
    for name, custom in (("long.jsonl.gz", True), ("cuts.jsonl", True), ("kaldi", False)):
        found = imported(tmp_path / name, tmp_path / f"out-{name}")
        assert found == {
            f"s{n}": {
                "duration": length,
                "text": f"text {n}",
                "speaker": "ann",
                "language": "en",
                "tags": {"gender": "f"},
                "custom": {"n": n} if custom else {},
            }
            for n, (_, length) in enumerate(spans)
        }
        for n, samples in enumerate(heard(tmp_path / f"out-{name}").values()):
            (cut,) = [c for c in cuts.trim_to_supervisions() if c.id == f"s{n}"]
            assert abs(samples - cut.load_audio()[0]).max() <= 0.5001 / 32768


def test_cuts_that_are_more_than_a_part_of_a_file_are_rows(tmp_path: Path):
    lhotse = pytest.importorskip("lhotse")
    write_wav(tmp_path / "rec.wav", SOUND)
    recording = lhotse.Recording.from_file(tmp_path / "rec.wav")
    cut = recording.to_cut()
    made = [cut, cut.pad(12), cut.perturb_speed(1.1), cut.resample(8000).with_id("low")]
    lines = [json.dumps(c.to_dict()) for c in made]
    bad = cut.to_dict()
    bad["recording"]["sources"][0] |= {"type": "command", "source": f"touch {tmp_path}/run"}
    over = {**cut.to_dict(), "id": "x", "supervisions": [{"id": "s", "start": -1.0, "duration": 3.0}]}
    lines += [
        json.dumps(bad),
        json.dumps(over),
        json.dumps({"type": "MonoCut", "id": "y"}),
        '{"type": "MonoCut"}',
    ]
    (tmp_path / "cuts.jsonl").write_text("\n".join(lines))
    report = take(tmp_path / "cuts.jsonl", tmp_path / "out")
    assert rows(report) == {
        "cuts.jsonl:2": "unsupported audio",
        "cuts.jsonl:3": "unsupported audio",
        "cuts.jsonl:5": "unsupported audio",
        "cuts.jsonl:6": "bad segment",
        "cuts.jsonl:7": "unsupported audio",
        "cuts.jsonl:8": "unsupported audio",
    }
    assert sorted(open_manifest(tmp_path / "out").ids()) == sorted([cut.id, "low"])
    assert not (tmp_path / "run").exists()


def hub_table(count: int, seconds: float = 0.5) -> list[dict[str, Any]]:
    return [
        {
            "audio": {"bytes": wav_bytes(SOUND[n * 800 :][: round(seconds * 16000)]), "path": f"{n}.wav"},
            "sentence": f"text {n}",
            "speaker_id": n % 2,
            "score": 0.5,
        }
        for n in range(count)
    ]


def test_parquet_files_of_the_hub_need_no_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for split, count in (("train", 40), ("test", 3)):
        (tmp_path / "data").mkdir(exist_ok=True)
        table = pa.Table.from_pylist(hub_table(count))
        pq.write_table(table, tmp_path / f"data/{split}-00000-of-00001.parquet", row_group_size=7)
    with pytest.raises(CorpusError, match="holds the splits test, train: choose one with --split"):
        open_source(tmp_path)
    report = take(tmp_path, tmp_path / "out", split="train", workers=2)
    assert report.problems == []
    found = list(open_manifest(tmp_path / "out"))
    assert [u.text for u in found] == [f"text {n}" for n in range(40)]
    assert found[3].custom["score"] == 0.5
    assert (found[3].id, found[3].speaker) == ("data/train-00000-of-00001-000003", "1")
    for n, utterance in enumerate(found):
        assert abs(load_waveform(utterance) - SOUND[n * 800 :][:8000]).max() <= 1.0001 / 32768


def test_bad_rows_of_a_table_are_rows(tmp_path: Path):
    good = hub_table(1)[0]
    cells = [
        good["audio"],
        {"bytes": None, "path": None},
        None,
        {"bytes": b"", "path": "x"},
        {"bytes": None, "path": "gone.wav"},
    ]
    pq.write_table(pa.Table.from_pylist([{"audio": cell} for cell in cells]), tmp_path / "t.parquet")
    assert rows(take(tmp_path / "t.parquet", tmp_path / "out")) == {
        "t.parquet[1]": "unreadable audio",
        "t.parquet[2]": "unreadable audio",
        "t.parquet[3]": "no audio",
        "t.parquet[4]": "missing file",
    }
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    with pytest.raises(CorpusError, match=r"bad\.parquet: no Parquet file"):
        open_source(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    with pytest.raises(CorpusError, match=r"has no column of audio .* its columns are text"):
        open_source(tmp_path / "text.parquet")


def test_only_files_that_a_table_names_can_be_referred_to(tmp_path: Path):
    write_wav(tmp_path / "a.wav", SOUND[:8000])
    inside, named = hub_table(1)[0]["audio"], {"bytes": None, "path": "a.wav"}
    for name, cells in (("inside", [inside, named]), ("named", [named, inside])):
        pq.write_table(pa.Table.from_pylist([{"audio": c} for c in cells]), tmp_path / f"{name}.parquet")
    with pytest.raises(
        CorpusError, match=r"inside\.parquet: holds its audio inside tables: leave --reference"
    ):
        take(tmp_path / "inside.parquet", tmp_path / "out", reference=True)
    assert not (tmp_path / "out").exists()
    report = take(tmp_path / "named.parquet", tmp_path / "out", reference=True)
    assert [p.kind for p in report.problems] == ["audio in a table"]
    (found,) = open_manifest(tmp_path / "out/manifest.jsonl")
    assert found.audio == str(tmp_path / "a.wav")
    assert len(load_waveform(found)) == 8000


def test_saved_data_sets_are_read_with_their_labels(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(hub_table(5)).cast_column("audio", datasets.Audio())
    whole = whole.cast_column("speaker_id", datasets.ClassLabel(names=["ann", "bob"]))
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=whole, test=whole.select(range(2))).save_to_disk(tmp_path / "several")
    whole.to_parquet(tmp_path / "hub/train.parquet")
    for place, split, count in (("one", None, 5), ("several", "test", 2), ("hub", None, 5)):
        report = take(tmp_path / place, tmp_path / f"out-{place}", split=split)
        assert (report.problems, report.added) == ([], count)
        found = list(open_manifest(tmp_path / f"out-{place}"))
        assert [u.speaker for u in found] == (["ann", "bob"] * 3)[:count]
        assert [u.text for u in found] == [f"text {n}" for n in range(count)]


def test_a_name_of_the_hub_goes_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    pq.write_table(pa.Table.from_pylist(hub_table(3)), tmp_path / "t.parquet")
    real = datasets.load_dataset

    def local(name: str, config: str | None, split: str | None) -> Any:
        assert (name, config) == ("some/corpus", "clean")
        return real(
            "parquet", data_files=str(tmp_path / "t.parquet"), split=split, cache_dir=str(tmp_path / "cache")
        )

    monkeypatch.setattr(datasets, "load_dataset", local)
    report = take(Path("some/corpus:clean"), tmp_path / "out", split="train")
    assert (report.problems, report.added) == ([], 3)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="pip install datasets"):
        open_source("some/corpus")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.jsonl", "{}\n"), ("a.json", "[\n{}\n]"), ("a.txt", "hello"), ("a.jsonl.gz", "not gzip")],
)
def test_a_file_that_is_no_corpus_is_refused(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match="no corpus: give a folder of audio"):
        detect(tmp_path / name)


@pytest.mark.parametrize("form", ["folder", "huggingface"])
def test_the_same_command_again_passes_over_what_it_wrote_below_the_source(tmp_path: Path, form: str):
    if form == "folder":
        write_wav(tmp_path / "a.wav", SOUND[:8000])
    else:
        pq.write_table(pa.Table.from_pylist(hub_table(1)), tmp_path / "data.parquet")
    code = "import sys; from raysr.cli import main; sys.exit(main())"
    again = [sys.executable, "-c", code, "data", "import", str(tmp_path), str(tmp_path / "out")]
    for _ in range(2):
        done = subprocess.run(again, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "out/import.json").read_text())
        assert report["settings"]["format"] == form
        assert len(list(open_manifest(tmp_path / "out"))) == 1


def test_options_of_another_form_are_refused(tmp_path: Path, kaldi: Callable[..., Path]):
    folder = kaldi()
    with pytest.raises(CorpusError, match="form kaldi, which has no splits"):
        open_source(folder, split="train")
    with pytest.raises(CorpusError, match="form kaldi, which has its transcripts itself"):
        open_source(folder, transcripts=tmp_path / "t.tsv")
    with pytest.raises(CorpusError, match="no such format 'kaldy'"):
        open_source(folder, "kaldy")


def test_segments_of_a_recording_stay_in_one_set(tmp_path: Path):
    for n in range(12):
        write_wav(tmp_path / f"r{n}.wav", SOUND[: 16000 * 2])
    lines = [
        {"audio_filepath": f"r{n}.wav", "offset": 0.5 * k, "duration": 0.4, "text": "it"}
        for k in range(3)
        for n in range(12)
    ]
    manifest = jsonl(tmp_path / "m.jsonl", *lines)
    report = take(manifest, tmp_path / "out", held_out=0.4, truth_apart=True)
    recordings = {
        name: [u.custom["origin"]["file"] for u in open_manifest(folder)]
        for name, folder in report.sets.items()
    }
    assert all(count == 3 for files in recordings.values() for count in map(files.count, files))
    assert set(recordings["train"]) | set(recordings["held-out"]) == {f"r{n}.wav" for n in range(12)}
    assert set(load_truth(report.sets["train"]).values()) == {"it"}


_IMPORT = """
import sys
from pathlib import Path
from raysr.corpus.importers.forms import open_source
from raysr.corpus.importers.options import ImportOptions
from raysr.corpus.importers.run import import_corpus
options = ImportOptions(rows_per_shard=4, reference=sys.argv[3] == "reference", any_script=True)
import_corpus(open_source(sys.argv[1]), sys.argv[2], options, lambda *n: print(*n, flush=True))
"""


@pytest.mark.parametrize("kind", ["shards", "reference"])
def test_a_killed_import_of_segments_goes_on_without_tears_or_twins(
    tmp_path: Path, kaldi: Callable[..., Path], kind: str
):
    names = [f"u{n:02}" for n in range(30)]
    folder = kaldi(
        segments="".join(f"{name} rec {n * 0.3} {n * 0.3 + 0.5}\n" for n, name in enumerate(names))
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", _IMPORT, str(folder), str(out), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "14 30\n":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    left = list(out.glob("*.parquet" if kind == "shards" else "part-*.jsonl"))
    there = sum(len(open_manifest(path)) for path in left)
    assert 12 <= there < 30
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "30 30", done.stderr
    assert len(done.stdout.splitlines()) == 30 - there
    place = out if kind == "shards" else out / "manifest.jsonl"
    assert sorted(open_manifest(place).ids()) == names
    assert not list(out.glob(".*.partial")) + list(out.glob("part-*"))
    if kind == "shards":
        assert all(read_audio(u.audio, u.row or 0)[:4] == b"fLaC" for u in open_manifest(out))
