"""Labelling what strangers send: thousands of inputs that are no good, each of which has to end as its row.

python -m benchmarks.hostile --json results/hostile.json

Sound utterances are labelled by themselves, then among hostile ones, by actors on a local Ray. Counted are rows,
failures by kind, and the sound utterances whose row is not what it was.
"""

import argparse
import json
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np

from raysr.audio.encode import encode_opus, wav_bytes
from raysr.audio.fbank import FbankConfig
from raysr.cluster import ClusterConfig, connect
from raysr.config import Spec
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.ipl.plugins import RECOGNISERS
from raysr.ipl.predictions import Prediction
from raysr.ipl.progress import Progress
from raysr.pool import Pool
from raysr.teachers.base import TeacherOutput, Waveform

SECONDS = 0.5
NAMES = [
    "会议",
    "مكالمة",
    "собрание",
    "סיכום",
    "สวัสดี",
    "🎙️🎧",
    "a b'c\"d",
    "-rf",
    "%s%n",
    "line\nbreak",
    "é" * 80,
]
FOREIGN = [
    b"PK\x03\x04",
    b"\x89PNG\r\n\x1a\n",
    b"%PDF-1.7",
    b"\x7fELF",
    b"\x1f\x8b\x08",
    b"MZ",
    b"\xff\xd8\xff",
]
Maker = Callable[[random.Random, dict[str, bytes]], bytes]


class Loudness:
    """A teacher that costs nothing: it says how loud an utterance is."""

    name, version = "loudness", "1"

    def __init__(self, config: Any, context: Any) -> None:
        pass

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return [TeacherOutput(text=f"{float(np.abs(w).sum()):.3f}") for w in waveforms]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--inputs", type=int, default=10_000, help="how many are hostile")
    parser.add_argument("--sound", type=int, default=200, help="how many are not")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connect(ClusterConfig(), [Path.cwd()]):
        results = measure(Path(folder), options.inputs, options.sound)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def measure(folder: Path, hostile: int, sound: int) -> dict[str, Any]:
    """Label sound utterances alone, then among hostile ones, on the Ray that is running; return what came of it."""
    good = list(sound_utterances(folder / "sound", sound))
    bad = list(hostile_utterances(folder / "hostile", hostile))
    before = {row.id: row for row in label(folder / "alone", good)}
    started = time.monotonic()
    mixed = random.Random(0).sample([*good, *bad], len(good) + len(bad))
    rows = {row.id: row for row in label(folder / "among", mixed)}
    failed = [u for u in bad if rows[u.id].failure is not None]
    return {
        "hostile": len(bad),
        "rows": len(rows),
        "failed": len(failed),
        "failed_by_kind": dict(Counter(u.tags["kind"] for u in failed)),
        "offered_by_kind": dict(Counter(u.tags["kind"] for u in bad)),
        "failures_of_several_lines": sum("\n" in (row.failure or "") for row in rows.values()),
        "sound": len(good),
        "sound_changed": sum(rows[u.id] != before[u.id] for u in good),
        "seconds": round(time.monotonic() - started, 1),
    }


def context(folder: Path) -> Any:
    """Return what a recogniser has to know of a run."""
    return SimpleNamespace(
        cycle=0,
        folder=folder,
        cache=folder / "cache",
        features=FbankConfig(),
        progress=Progress(quiet=not sys.stdout.isatty()),
        pool=Pool(folder / "pool"),
    )


def label(folder: Path, utterances: Sequence[Utterance]) -> list[Prediction]:
    """Label by two actors; return the rows."""
    spec = Spec(kind="ray", block=64, timeout=5.0, retries=1, actors={"min": 2, "max": 2})
    teacher = Spec(kind=f"{Loudness.__module__.replace('__main__', 'benchmarks.hostile')}:Loudness")
    return list(RECOGNISERS.build(spec, context(folder))(open_manifest(list(utterances)), [teacher]))


def sound_utterances(folder: Path, count: int) -> Iterator[Utterance]:
    """Write good audio under the names of all scripts and yield it."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{NAMES[number % len(NAMES)]}-{number}.wav"
        path.write_bytes(wav_bytes(0.1 * noise.standard_normal(round(16000 * SECONDS)).clip(-5, 5)))
        yield Utterance(f"sound-{NAMES[number % len(NAMES)]}-{number}", str(path), SECONDS)


def hostile_utterances(folder: Path, count: int) -> Iterator[Utterance]:
    """Write what is no good, all kinds in turn, and yield it."""
    folder.mkdir(parents=True)
    draw = random.Random(1)
    forms = _forms()
    for number in range(count):
        kind = (
            list(CONTENTS)[number % (len(CONTENTS) + 1)]
            if number % (len(CONTENTS) + 1) < len(CONTENTS)
            else "place"
        )
        path = folder / f"{NAMES[number % len(NAMES)]}-{number}.{draw.choice(list(forms))}"
        if kind == "place":
            kind = _strange_place(path, number // (len(CONTENTS) + 1))
        else:
            path.write_bytes(CONTENTS[kind](draw, forms))
        row = 5 if kind == "no such row" else None
        start = 1e6 if number % 97 == 0 else 0.0
        rate = draw.choice([8000, 16000, 48000])
        yield Utterance(
            f"hostile-{number}",
            str(path),
            SECONDS,
            row=row,
            start=start,
            sample_rate=rate,
            tags={"kind": kind},
        )


def _strange_place(path: Path, number: int) -> str:
    """Make something at ``path`` that is no readable file, and return its kind."""
    kind = PLACES[number % len(PLACES)]
    if kind == "folder":
        path.mkdir()
    elif kind == "symlink loop":
        path.symlink_to(path.name)
    elif kind == "broken symlink":
        path.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless device":
        path.symlink_to("/dev/zero")
    elif kind == "unreadable":
        path.write_bytes(wav_bytes(np.zeros(8000)))
        path.chmod(0)
    elif kind == "no such row":
        path.write_bytes(b"PAR1" + bytes(64) + b"PAR1")
    return kind


PLACES = [
    "missing", "folder", "symlink loop", "broken symlink", "pipe", "endless device", "unreadable", "no such row",
]  # fmt: skip


def _truncated(draw: random.Random, forms: dict[str, bytes]) -> bytes:
    data = draw.choice(list(forms.values()))
    return data[: draw.randrange(len(data))]


def _flipped(draw: random.Random, forms: dict[str, bytes]) -> bytes:
    data = bytearray(draw.choice(list(forms.values())))
    for _ in range(draw.choice((1, 5, 50))):
        data[draw.randrange(min(len(data), draw.choice((64, 512, len(data)))))] = draw.randrange(256)
    return bytes(data)


def _wrong_magic(draw: random.Random, forms: dict[str, bytes]) -> bytes:
    return draw.choice(FOREIGN) + draw.choice(list(forms.values()))[draw.choice((0, 4, 12)) :]


def _lying_header(draw: random.Random, forms: dict[str, bytes]) -> bytes:
    """Return a WAV whose header promises sizes, channels and rates that nothing can have."""
    channels, rate = draw.choice((0, 1, 255, 65535)), draw.choice((0, 1, 16000, 2**31, 2**32 - 1))
    bits, size = draw.choice((0, 1, 7, 16, 64, 65535)), draw.choice((0, 2**31 - 1, 2**32 - 1, 2**32 - 9))
    form = struct.pack("<HHIIHH", draw.choice((1, 3, 6, 17, 85, 0xFFFE)), channels, rate, rate, 2, bits)
    sizes = struct.pack("<I", size)
    return (
        b"RIFF"
        + sizes
        + b"WAVEfmt "
        + struct.pack("<I", draw.choice((16, size)))
        + form
        + b"data"
        + sizes
        + bytes(512)
    )


def _not_numbers(draw: random.Random, forms: dict[str, bytes]) -> bytes:
    """Return a WAV of floats with one that is no sample."""
    samples = np.zeros(4000, "<f4")
    samples[draw.randrange(4000)] = draw.choice((np.nan, np.inf, -np.inf, 3e38))
    form = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    body = (
        b"fmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", samples.nbytes)
        + samples.tobytes()
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


CONTENTS: dict[str, Maker] = {
    "empty": lambda draw, forms: b"",
    "zeros": lambda draw, forms: bytes(draw.choice((1, 44, 4096))),
    "noise": lambda draw, forms: draw.randbytes(draw.choice((1, 44, 4096))),
    "text": lambda draw, forms: b"not audio\n" * draw.choice((1, 500)),
    "playlist": lambda draw, forms: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "no samples": lambda draw, forms: wav_bytes(np.zeros(0)),
    "truncated": _truncated,
    "flipped": _flipped,
    "wrong magic": _wrong_magic,
    "lying header": _lying_header,
    "not numbers": _not_numbers,
}


def _forms() -> dict[str, bytes]:
    """Return one second of noise in several containers, by extension."""
    samples = 0.1 * np.random.default_rng(2).standard_normal(16000).clip(-5, 5)
    made = {"wav": wav_bytes(samples), "opus": encode_opus(samples), "48k.wav": wav_bytes(samples, 48000)}
    for extension, muxer, codec in (
        ("flac", "flac", "flac"),
        ("m4a", "ipod", "aac"),
        ("mp3", "mp3", "libmp3lame"),
    ):
        path = Path(tempfile.mkdtemp()) / f"form.{extension}"
        with av.open(str(path), "w", format=muxer) as container:
            stream: Any = container.add_stream(codec, rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(
                (32767 * samples).astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        made[extension] = path.read_bytes()
        path.unlink()
        path.parent.rmdir()
    return made


if __name__ == "__main__":
    main()
