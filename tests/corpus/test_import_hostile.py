"""Hundreds of hostile files and lines: each ends as its row, and the good ones come out as without them."""

import json
import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from corpora import take
from problems import rows

from raysr.audio.files import encode_opus, wav_bytes
from raysr.corpus.importers.report import ImportReport
from raysr.corpus.manifest import open_manifest
from raysr.corpus.shards import read_audio

SOUND = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
GOOD = [
    "plain",
    "日本語 の 録音",
    "приве́т",
    "مرحبا",
    "हिन्दी",
    "👩‍🚀 emoji",
    "a'b\"c;d$(x)`y`",
    "sub/deep/er",
    "dots.in.name",
]
COPIES = 16


def flac() -> bytes:
    path = Path(f"/proc/self/fd/{os.memfd_create('flac')}")
    with av.open(str(path), "w", format="flac") as output:
        stream = output.add_stream("flac", rate=16000, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray((SOUND[None] * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes()


def float_wav(samples: np.ndarray) -> bytes:
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVE"
        + form
        + struct.pack("<4sI", b"data", len(data))
        + data
    )


def header(rate: int = 16000, channels: int = 1, size: int = 0, bits: int = 16) -> bytes:
    """Return the header of a WAV file that promises ``size`` bytes."""
    block = channels * bits // 8
    form = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, (rate * block) % 2**32, block % 2**16, bits
    )
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + form + struct.pack("<4sI", b"data", size)


def broken(draw: random.Random) -> dict[str, bytes]:
    """Return files, none of which holds a whole recording, by suffix and kind of damage."""
    wav, opus, whole = wav_bytes(SOUND), encode_opus(SOUND), flac()
    # an Ogg stream that ends between two pages is a whole one, and may well have been stopped there
    cut = draw.choice([n for n in range(1, len(opus) - 1) if b"OggS" not in opus[max(0, n - 3) : n + 4]])
    nan = SOUND.copy()
    nan[draw.randrange(16000)] = draw.choice([np.nan, np.inf, -np.inf])
    return {
        "cut.wav": wav[: draw.randrange(44, 15000)],
        "cut of flac.flac": whole[: draw.randrange(1, len(whole) * 2 // 5)],
        "cut of opus.opus": opus[:cut],
        "magic.wav": draw.randbytes(4) + draw.randbytes(300),
        "noise.mp3": draw.randbytes(draw.randrange(1, 3000)),
        "noise of ogg.ogg": b"OggS" + draw.randbytes(500),
        "noise of m4a.m4a": struct.pack(">I4s", 0xFFFFFFF0, b"ftyp") + draw.randbytes(500),
        "zero.wav": b"",
        "zeros.flac": bytes(draw.randrange(1, 5000)),
        "huge.wav": header(size=0x7FFE0000) + wav[44:2000],
        "rate.wav": header(rate=draw.choice([0, 1, 999, 800_000, 0xFFFFFFFF]), size=32000) + wav[44:],
        "channels.wav": header(channels=0, size=32000) + wav[44:],
        "bits.wav": header(bits=0, size=32000) + wav[44:],
        "nan.wav": float_wav(nan),
        "loud.wav": float_wav(SOUND * 1e6),
        "short.wav": wav_bytes(SOUND[: draw.randrange(1, 1500)]),
        "text.wav": b"this is a text\n" * draw.randrange(1, 50),
        "list.mp3": b"#EXTM3U\nfile:///etc/passwd\n",
        "page.wav": b"<?xml version='1.0'?><html>404</html>",
    }


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few good files among hundreds that are not."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in GOOD:
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav_bytes(SOUND))
    for n in range(COPIES):
        for name, data in broken(random.Random(n)).items():
            (folder / f"bad {n} {name}").write_bytes(data)
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "ping.wav").symlink_to("pong.wav")
    (folder / "pong.wav").symlink_to("ping.wav")
    (folder / "gone.wav").symlink_to("nowhere.wav")
    (folder / "round").symlink_to(".")
    (folder / "folder.wav").mkdir()
    (folder / "zero.wav").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.wav")
    (folder / "new\nline \x1b[31m.wav").write_bytes(b"bad")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.wav")).write_bytes(wav_bytes(SOUND))
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the good files become in a folder of their own."""
    folder = tmp_path_factory.mktemp("alone")
    for name in GOOD:
        path = folder / "in" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav_bytes(SOUND))
    take(folder / "in", folder / "out")
    return stored(folder / "out")


def stored(folder: Path) -> dict[str, bytes]:
    return {u.id: read_audio(u.audio, u.row or 0) for u in open_manifest(folder)}


def test_hostile_files_are_a_row_each_and_change_nothing_else(
    tmp_path: Path, hostile: Path, alone: dict[str, bytes], allowed: Callable[[str], set[str]]
):
    report = take(hostile, tmp_path / "out", workers=2)
    assert stored(tmp_path / "out") == alone
    found = rows(report)
    named = {path.name for path in hostile.iterdir() if path.name.startswith("bad ")}
    assert len(named) == COPIES * 19
    assert named <= set(found)
    for name in named:
        assert found[name] in allowed(name), name
    assert {
        found[name] for name in ("loop.wav", "ping.wav", "pong.wav", "gone.wav", "pipe.wav", "zero.wav")
    } == {"unreadable audio"}
    assert found["new\\nline \\x1b[31m.wav"] == "unreadable audio"
    assert found["\\udcff\\udcfe.wav"] == "not UTF-8"
    assert len(report.problems) == len(named) + 8
    written = json.loads((tmp_path / "out/import.json").read_bytes())
    assert written["counts"] == dict(Counter(found.values()).most_common())


def test_hostile_lines_are_a_row_each_and_change_nothing_else(
    tmp_path: Path, hostile: Path, alone: dict[str, bytes], allowed: Callable[[str], set[str]]
):
    draw = random.Random(1)
    paths = [path for path in sorted(hostile.rglob("*.wav")) if "\udcff" not in path.name and path.is_file()]
    bad = [path.name for path in paths if path.name.startswith("bad ")]
    lines = [
        {"id": name, "audio_filepath": str(hostile / name), "duration": 1.0, "text": "one"} for name in bad
    ]
    lines += [
        {**lines[0], "id": f"field {key} {n}", key: value}
        for n, value in enumerate([True, [], {}, "x", -1, "\ud800", 10**30, [[]]])
        for key in ("offset", "duration", "text", "speaker", "audio_filepath", "tags")
        if (key, n)
        not in {("text", 3), ("text", 5), ("speaker", 3), ("audio_filepath", 3), ("tags", 2), ("tags", 0)}
    ]
    good = [{"id": name, "audio_filepath": str(hostile / f"{name}.wav"), "duration": 1.0} for name in GOOD]
    encoded = [json.dumps(line).encode() for line in [*lines, *good]]
    encoded += [draw.randbytes(40).replace(b"\n", b"") for _ in range(100)]
    draw.shuffle(encoded)
    (tmp_path / "m.jsonl").write_bytes(b"\n".join(encoded))
    report = take(tmp_path / "m.jsonl", tmp_path / "out", form="nemo", workers=2)
    assert stored(tmp_path / "out") == alone
    assert len(report.problems) == len(encoded) - len(GOOD)
    assert set(rows(report)) == {f"m.jsonl:{n}" for n, line in enumerate(encoded, 1) if not is_good(line)}


def is_good(line: bytes) -> bool:
    try:
        return json.loads(line).get("id") in GOOD
    except (ValueError, AttributeError):
        return False


@pytest.fixture
def allowed() -> Callable[[str], set[str]]:
    """Return a function that says which kinds of problem a hostile file may be."""
    special = {
        "zero.wav": {"no audio"},
        "short.wav": {"too short"},
        "huge.wav": {"unreadable audio", "too long"},
    }

    def kinds(name: str) -> set[str]:
        return special.get(name.split(" ", 2)[2], {"unreadable audio", "too short"})

    return kinds


def test_the_reports_of_two_runs_are_the_same(tmp_path: Path, hostile: Path):
    reports: list[ImportReport] = [take(hostile, tmp_path / f"out{n}", workers=n) for n in (1, 3)]
    assert reports[0].problems == reports[1].problems
    first, second = (tmp_path / f"out{n}/shard-00000.parquet" for n in (1, 3))
    assert first.read_bytes() == second.read_bytes()
