import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from problems import rows

from raysr.audio.container import HEADERLESS
from raysr.audio.files import decode, encode_opus, wav_bytes
from raysr.corpus.importers.folder import import_folder
from raysr.corpus.importers.recordings import Clip, ReadTask, read_clips
from raysr.corpus.importers.source import Recording, Segment
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import load_truth, open_manifest
from raysr.corpus.shards import read_audio
from raysr.errors import CorpusError

WavFile = Callable[..., Path]


def encoded(samples: np.ndarray, container: str, codec: str, rate: int = 16000) -> bytes:
    """Encode with FFmpeg, as a user's recorder would."""
    path = Path(f"/proc/self/fd/{os.memfd_create('audio')}")
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate = rate
        for packet in stream.encode(frame):
            output.mux(packet)
        for packet in stream.encode(None):
            output.mux(packet)
    return path.read_bytes()


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_every_form_comes_out_as_it_sounds(tmp_path: Path, wav: WavFile):
    (tmp_path / "in").mkdir()
    sound = tone(1.0)
    (tmp_path / "in/plain.wav").write_bytes(wav_bytes(sound))
    (tmp_path / "in/speech.opus").write_bytes(encode_opus(sound))
    (tmp_path / "in/music.mp3").write_bytes(encoded(sound, "mp3", "mp3"))
    (tmp_path / "in/clip.m4a").write_bytes(encoded(sound, "ipod", "aac"))
    (tmp_path / "in/phone.g722").write_bytes(encoded(sound, "g722", "g722"))
    (tmp_path / "in/hifi.wav").write_bytes(wav_bytes(tone(1.0, 44100), 44100))
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert report.problems == []
    for utterance in open_manifest(tmp_path / "out"):
        original = decode(tmp_path / "in" / utterance.custom["origin"]["file"])
        assert utterance.duration == len(original) / 16000
        found = load_waveform(utterance)
        # FLAC of 16 bits is within half a step, compact codecs keep their bytes and lose nothing.
        assert np.abs(found - original).max() <= 0.5001 / 32768
    kept = {u.id: read_audio(u.audio, u.row or 0) for u in open_manifest(tmp_path / "out")}
    assert kept["speech"] == (tmp_path / "in/speech.opus").read_bytes()
    assert kept["music"] == (tmp_path / "in/music.mp3").read_bytes()
    assert all(kept[name][:4] == b"fLaC" for name in ("plain", "phone", "hifi"))


@pytest.mark.parametrize("suffix", sorted(HEADERLESS))
def test_every_headerless_form_that_can_be_opened_is_imported_as_flac(tmp_path: Path, suffix: str):
    (tmp_path / "in").mkdir()
    gsm_frame = b"\xd0" + bytes(32)
    (tmp_path / "in" / f"a{suffix.upper()}").write_bytes(gsm_frame * 2000)
    assert import_folder(tmp_path / "in", tmp_path / "out").problems == []
    (utterance,) = open_manifest(tmp_path / "out")
    assert read_audio(utterance.audio, utterance.row or 0)[:4] == b"fLaC"


def test_loud_float_recordings_are_turned_down_not_clipped(tmp_path: Path):
    (tmp_path / "in").mkdir()
    loud = tone(0.5) * 5
    with av.open(str(tmp_path / "in/loud.wav"), "w") as output:
        stream = output.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(loud[None], "flt", "mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
    import_folder(tmp_path / "in", tmp_path / "out")
    (utterance,) = open_manifest(tmp_path / "out")
    gain = utterance.custom["origin"]["gain"]
    assert np.abs(load_waveform(utterance) - loud * gain).max() < 1e-4


@pytest.mark.parametrize("form", ["opus", "wav"])
def test_a_long_recording_costs_the_memory_of_its_samples(tmp_path: Path, form: str):
    samples = 0.1 * np.random.default_rng(0).standard_normal(16000 * 180).astype(np.float32)
    path = tmp_path / f"long.{form}"
    path.write_bytes(encode_opus(samples) if form == "opus" else wav_bytes(samples))
    tracemalloc.start()
    ((_, clip),) = read_clips(
        ReadTask(Recording(str(path), path.name, "g"), [Segment("u", path.name)], 200.0)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(clip, Clip)
    assert (clip.audio == path.read_bytes()) == (form == "opus")
    assert peak < 2.5 * samples.nbytes  # the samples, twice while they are put together


def test_bad_audio_is_a_row_each_and_stops_nothing(tmp_path: Path, wav: WavFile):
    folder = tmp_path / "in"
    wav("in/good.wav")
    (folder / "text.wav").write_text("RIFF is not what this is\n" * 50)
    (folder / "empty.wav").touch()
    (folder / "header.wav").write_bytes(wav_bytes(np.zeros(0, np.float32)))
    (folder / "sample.wav").write_bytes(wav_bytes(np.zeros(1, np.float32)))
    (folder / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "good.flac").write_bytes(encoded(tone(0.5), "flac", "flac"))
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    with av.open(str(folder / "nan.wav"), "w") as output:
        stream = output.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 8000), np.nan, np.float32), "flt", "mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
    told: list[tuple[int, int]] = []
    report = import_folder(folder, tmp_path / "out", progress=lambda *now: told.append(now))
    assert told == [(n, 8) for n in range(1, 9)]
    assert rows(report) == {
        "text.wav": "unreadable audio",
        "empty.wav": "no audio",
        "header.wav": "unreadable audio",
        "sample.wav": "too short",
        "noise.mp3": "unreadable audio",
        "nan.wav": "unreadable audio",
        "gone.wav": "unreadable audio",
        "good.wav": "duplicate id",
    }
    assert open_manifest(tmp_path / "out").ids() == ["good"]
    written = json.loads((tmp_path / "out/import.json").read_text())
    assert written["counts"]["unreadable audio"] == 5
    assert {row["where"] for row in written["problems"]} == set(rows(report))


def test_a_file_of_three_hours_is_refused_at_once_with_the_mend(tmp_path: Path, wav: WavFile):
    wav("in/good.wav")
    with wave.open(str(tmp_path / "in/meeting.wav"), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(3 * 3600 * 8000))
    start = time.process_time()
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert time.process_time() - start < 5
    (problem,) = report.problems
    assert (problem.kind, problem.where) == ("too long", "meeting.wav")
    assert "lasts 3.0 h" in problem.reason
    assert "--max-duration above 10800" in problem.reason


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: folder.rmdir(), "no such folder"),
        (lambda folder: None, "no audio file in it (it holds nothing)"),
        (lambda folder: (folder / "notes.txt").touch(), "no audio file in it (it holds 1 .txt)"),
        (lambda folder: (folder / "a.wav").write_text("text"), "none of its 1 audio files could be imported"),
    ],
)
def test_a_folder_without_audio_is_refused(tmp_path: Path, make: Callable[[Path], object], complaint: str):
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder)
    with pytest.raises(CorpusError) as caught:
        import_folder(folder, tmp_path / "out")
    assert str(caught.value).startswith(f"{folder}: {complaint}")
    assert "\n" not in str(caught.value)


def test_the_held_out_set_is_the_same_for_ever_and_truth_stays_apart(tmp_path: Path, wav: WavFile):
    for n in range(40):
        wav(f"in/f{n}.wav", 0.2, n)
    (tmp_path / "t.tsv").write_text("".join(f"f{n}\tit\n" for n in range(40)))
    report = import_folder(
        tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv", held_out=0.3, truth_apart=True
    )
    train, held_out = (open_manifest(report.sets[name]) for name in ("train", "held-out"))
    assert sorted(train.ids() + held_out.ids()) == sorted(f"f{n}" for n in range(40))
    assert 4 <= len(held_out) <= 20
    assert all(u.text is None and "original_text" not in u.custom for u in train)
    assert all(u.text == "it" for u in held_out)
    assert load_truth(report.sets["train"]) == dict.fromkeys(train.ids(), "it")
    before = set(held_out.ids())
    for n in range(40, 60):
        wav(f"in/f{n}.wav", 0.2, n)
    again = import_folder(
        tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv", held_out=0.3, truth_apart=True
    )
    assert (again.added, again.utterances, again.with_text) == (20, 60, 40)
    assert {name for name in open_manifest(again.sets["held-out"]).ids() if int(name[1:]) < 40} == before
    with pytest.raises(CorpusError, match=r"no Parquet shards; did you mean .*held-out"):
        open_manifest(tmp_path / "out")


def test_a_rerun_goes_on_or_refuses(tmp_path: Path, wav: WavFile):
    for n in range(5):
        wav(f"in/f{n}.wav", 0.2, n)
    (tmp_path / "in/f3.wav").write_text("broken")
    assert import_folder(tmp_path / "in", tmp_path / "out").added == 4
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    wav("in/f3.wav", 0.2, 3)
    again = import_folder(tmp_path / "in", tmp_path / "out")
    assert (again.added, again.utterances, again.problems) == (1, 5, [])
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    with pytest.raises(CorpusError, match=r"was imported with held_out 0\.0, not 0\.2: use a new folder"):
        import_folder(tmp_path / "in", tmp_path / "out", held_out=0.2)
    (tmp_path / "t.tsv").write_text("f1\tnew words\n")
    with pytest.raises(CorpusError, match="'f1' was imported with another transcript"):
        import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv")
    with pytest.raises(CorpusError, match="holds other files"):
        import_folder(tmp_path / "in", tmp_path / "in")


_IMPORT = """
import os, sys
from raysr.corpus.importers.folder import import_folder
from raysr.errors import CorpusError
import resource
limit = int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    import_folder(sys.argv[1], sys.argv[2], rows_per_shard=4, progress=lambda *n: print(*n, flush=True))
except CorpusError as error:
    print(error)
"""


def test_a_killed_import_goes_on_where_it_was(tmp_path: Path, wav: WavFile):
    for n in range(30):
        wav(f"in/f{n:02}.wav", 0.5, n)
    command = [sys.executable, "-c", _IMPORT, str(tmp_path / "in"), str(tmp_path / "out"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "10 30\n":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    there = len(open_manifest(tmp_path / "out"))
    assert 8 <= there < 30
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert (report.added, report.utterances) == (30 - there, 30)
    assert sorted(open_manifest(tmp_path / "out").ids()) == [f"f{n:02}" for n in range(30)]
    assert not list((tmp_path / "out").glob(".*.partial"))


def test_a_full_disk_stops_the_import_in_one_line(tmp_path: Path, wav: WavFile):
    for n in range(8):
        wav(f"in/f{n}.wav", 2.0, n)
    command = [sys.executable, "-c", _IMPORT, str(tmp_path / "in"), str(tmp_path / "out"), "100000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].startswith(f"disk full while writing to {tmp_path / 'out'}: ")
    assert done.stderr == ""
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert import_folder(tmp_path / "in", tmp_path / "out").utterances == 8


def test_two_imports_at_once_do_not_mix(tmp_path: Path, wav: WavFile):
    for n in range(3):
        wav(f"in/f{n}.wav", 0.2, n)
    caught: list[str] = []

    def second(done: int, total: int) -> None:
        with pytest.raises(CorpusError, match="another process is writing to") as error:
            import_folder(tmp_path / "in", tmp_path / "out")
        caught.append(str(error.value))

    import_folder(tmp_path / "in", tmp_path / "out", progress=second)
    assert len(caught) == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, wav: WavFile):
    wav("in/a.wav")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CorpusError, match=f"cannot write to .*: {os.strerror(errno.ENOTDIR)}"):
        import_folder(tmp_path / "in", tmp_path / "file" / "out")
