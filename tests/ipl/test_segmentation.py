"""Long recordings become segments that keep their offsets: once, resumed, and each is accounted for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysr.audio.encode import write_wav
from raysr.audio.speech_segments import SegmentConfig
from raysr.cluster import Connection
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import Manifest, open_manifest, write_jsonl
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.decisions import read_decisions
from raysr.ipl.labelling.attempts import Attempts
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.ipl.segmentation import CUTTING, OUTAGE, Segmentation

PAUSE_S = 6.0


@pytest.fixture(scope="module")
def spoken() -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Sentences with long pauses between them, and where each is, in seconds."""
    samples, places = [np.zeros(0, np.float32)], []
    for utterance in list(demo_corpus().tests["clean"])[:5]:
        samples.append(np.zeros(round(16000 * PAUSE_S), np.float32))
        start = sum(map(len, samples)) / 16000
        samples.append(load_waveform(utterance))
        places.append((start, start + len(samples[-1]) / 16000))
    return np.concatenate(samples), places


@pytest.fixture
def corpus(tmp_path: Path, spoken: tuple[np.ndarray, list[tuple[float, float]]]) -> list[Utterance]:
    """A short utterance, a long recording as a file and another as a row of a shard, a long one that is broken."""
    samples, _ = spoken
    seconds = len(samples) / 16000
    write_wav(tmp_path / "long.wav", samples)
    (tmp_path / "broken.wav").write_bytes((tmp_path / "long.wav").read_bytes()[:40])
    shards = write_shards(
        tmp_path / "shards", [(Utterance("row", "", seconds), (tmp_path / "long.wav").read_bytes())]
    )
    return [
        Utterance("short", str(tmp_path / "long.wav"), 3.0, start=6.0),
        Utterance("file", str(tmp_path / "long.wav"), seconds),
        *open_manifest(shards),
        Utterance("broken", str(tmp_path / "broken.wav"), 3600.0),
    ]


def segmented(folder: Path, corpus: list[Utterance] | Manifest, use_ray: bool = False) -> list[Utterance]:
    segmentation = Segmentation(folder, SegmentConfig(), Progress(quiet=True), use_ray)
    return list(segmentation(corpus if isinstance(corpus, Manifest) else open_manifest(corpus)))


def check(found: list[Utterance], corpus: list[Utterance], places: list[tuple[float, float]]) -> None:
    by_audio = {u.id: [s for s in found if s.id.partition("@")[0] == u.id] for u in corpus}
    assert by_audio["short"] == corpus[:1]
    for recording in corpus[1:3]:
        pieces = by_audio[recording.id]
        assert len(pieces) == len(places)
        for piece, (start, end) in zip(pieces, places, strict=True):
            assert abs(piece.start - start) < 0.5
            assert abs(piece.start + piece.duration - end) < 0.7
            assert (piece.audio, piece.row) == (recording.audio, recording.row)
            assert piece.id == f"{recording.id}@{piece.start:.3f}-{piece.start + piece.duration:.3f}"
    (broken,) = by_audio["broken"]
    assert broken.duration == 3600.0
    assert "broken.wav" in broken.custom["uncut"]


def test_recordings_become_segments_of_the_same_audio(
    tmp_path: Path, corpus: list[Utterance], spoken: tuple[np.ndarray, list[tuple[float, float]]]
) -> None:
    found = segmented(tmp_path / "segments", corpus)
    check(found, corpus, spoken[1])
    summary = json.loads((tmp_path / "segments" / "segments.json").read_text())
    assert (summary["recordings"], summary["segments"], summary["not_cut"]) == (3, 10, 1)
    speech = sum(u.duration for u in found if "@" in u.id)
    assert summary["speech_h"] == pytest.approx(speech / 3600, abs=1e-3)
    assert summary["speech_h"] + summary["left_out_h"] == pytest.approx(
        2 * corpus[1].duration / 3600, abs=2e-3
    )


@pytest.mark.ray
def test_the_cluster_cuts_the_same(
    ray_cluster: Connection,
    tmp_path: Path,
    corpus: list[Utterance],
    spoken: tuple[np.ndarray, list[tuple[float, float]]],
) -> None:
    found = segmented(tmp_path / "segments", corpus, use_ray=True)
    check(found, corpus, spoken[1])
    assert found == segmented(tmp_path / "here", corpus)


def test_what_was_cut_is_not_cut_again(tmp_path: Path, corpus: list[Utterance]) -> None:
    expected = segmented(tmp_path / "segments", corpus)
    journal = tmp_path / "segments" / "recordings.jsonl"
    for name in ("segments.json", "unlabelled.jsonl"):
        (tmp_path / "segments" / name).unlink()
    lines = journal.read_bytes().splitlines(keepends=True)
    marked = [line.replace(b'"error": null', b'"error": "from before"') for line in lines]
    journal.write_bytes(marked[0] + marked[1] + marked[2][:20])
    again = segmented(tmp_path / "segments", corpus)
    kept = [json.loads(line)["id"] for line in lines[:2]]
    assert [u.id for u in again if u.custom.get("uncut") == "from before"] == [
        n for n in kept if n != "broken"
    ]
    assert [u.id for u in again if u.id not in kept] == [
        u.id for u in expected if u.id.split("@")[0] not in kept
    ]
    assert len(journal.read_bytes().splitlines()) == 3
    assert segmented(tmp_path / "segments", corpus) == again


def test_a_corpus_without_long_recordings_stays_as_it_is(tmp_path: Path, corpus: list[Utterance]) -> None:
    manifest = open_manifest(corpus[:1])
    segmentation = Segmentation(tmp_path / "segments", SegmentConfig(), Progress(quiet=True), False)
    assert segmentation(manifest) is manifest
    nothing = SegmentConfig(longer_than=None)
    assert (
        list(Segmentation(tmp_path / "other", nothing, Progress(quiet=True), False)(open_manifest(corpus)))
        == corpus
    )
    assert not (tmp_path / "other").exists()


def test_a_run_labels_segments_and_accounts_for_what_could_not_be_cut(
    tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]], corpus: list[Utterance]
) -> None:
    config = tiny_config(tmp_path)
    write_jsonl(tmp_path / "corpus.jsonl", corpus)
    config["data"] |= {"unlabelled": str(tmp_path / "corpus.jsonl"), "truth": None, "tests": {}}
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
    decisions = read_decisions(tmp_path / "run" / "cycles" / "001" / "decisions.parquet")
    assert sum("@" in d.id for d in decisions) == 10
    (broken,) = (d for d in decisions if d.id == "broken")
    assert broken.status == "failed"
    assert "broken.wav" in (broken.reason or "")


def test_a_disk_that_is_gone_ends_the_run_and_a_bad_sector_costs_its_recording(
    tmp_path: Path, corpus: list[Utterance]
) -> None:
    unreadable = "/proc/self/mem"  # its first byte is an input/output error
    away = [replace(corpus[1], id=f"away{n}", audio=unreadable) for n in range(OUTAGE)]
    gone = tmp_path / "gone"
    with pytest.raises(
        RunError, match=rf"^{OUTAGE} long recordings .* away.*Input/output error; start again"
    ):
        segmented(gone, [*corpus, *away])
    found = segmented(gone, [*corpus, *(replace(u, audio=corpus[1].audio) for u in away)])
    assert all(sum(u.id.startswith(f"{a.id}@") for u in found) == 5 for a in away)
    [left] = [u for u in segmented(tmp_path / "bad", [away[0], *corpus]) if u.id == "away0"]
    assert "Input/output error" in left.custom["uncut"]


@pytest.mark.ray
def test_drivers_that_were_killed_are_not_held_against_a_recording(
    ray_cluster: Connection, tmp_path: Path, corpus: list[Utterance]
) -> None:
    attempts = Attempts(tmp_path / "segments" / "attempts", 1, None)
    under_way = [attempts.at(["file"]) for _ in range(3)]
    for one in under_way:
        one.__enter__().step(["file"], CUTTING)  # and then nothing more
    found = segmented(tmp_path / "segments", corpus[:2], use_ray=True)
    assert sum(u.id.startswith("file@") for u in found) == 5
