"""Every way of reading features gives the same bits, plans with the right lengths, and names what cannot be read."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysr.audio.encode import encode_opus, wav_bytes
from raysr.audio.fbank import FbankConfig
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, ConfigError, CorpusError
from raysr.train.reading.memory import InMemory
from raysr.train.reading.options import ReadingConfig, open_reader
from raysr.train.reading.reader import frames_of
from raysr.train.reading.stream import Streamed
from tests.corpus.corpora import damage
from tests.train.noise import CONFIG, Counting, files, noise, read, rows

OPTIONS = [
    {},
    {"load_to_memory": True},
    {"stream": True},
    {"stream": True, "load_to_memory": True},
    {"stream": True, "cache": "disk"},
    {"stream": True, "cache": "disk", "load_to_memory": True},
]


def unlike(folder: Path) -> list[Utterance]:
    """Return utterances of every kind: files, parts of files at another rate, mixed, compressed, rows of a shard."""
    whole = files(folder / "files", 2)
    long, opus = folder / "long.wav", folder / "long.opus"
    long.write_bytes(wav_bytes(noise(2.0, 7, 44100), 44100))
    opus.write_bytes(encode_opus(noise(2.0, 8)))
    return [
        *whole,
        replace(whole[0], id="mixed", mix={"seed": 1, "noise": {"snr_db": 10}}),
        Utterance("part", str(long), 0.77, start=0.5, sample_rate=44100),
        Utterance("compressed", str(opus), 0.4, start=1.1),
        *rows(folder / "shards", 3),
    ]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "ensured")
def test_all_options_give_the_bits_of_the_feature_cache(tmp_path: Path, options: dict[str, object]) -> None:
    utterances = unlike(tmp_path)
    cache = FeatureCache(tmp_path / "ensured", CONFIG)
    assert cache.ensure(utterances) == {}
    folder = tmp_path / ("fresh" if options.get("stream") else "ensured")
    config = ReadingConfig.parse(options)
    for _ in range(2):
        with open_reader(config, CONFIG, folder, utterances, pytest.fail, pytest.fail) as reader:
            for _, utterance in [(n, u) for n in range(3) for u in utterances]:
                found = reader.get(utterance)
                assert found.dtype == torch.float32
                assert torch.equal(found, cache.get(utterance))
                assert len(found) == reader.frames(utterance) == cache.frames(utterance)


def test_a_cache_on_disk_without_streaming_is_refused() -> None:
    with pytest.raises(ConfigError, match="cache: disk keeps what is streamed: set stream: true as well"):
        ReadingConfig.parse({"cache": "disk"})


@given(
    samples=st.integers(1, 20000),
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]),
    share=st.tuples(st.floats(0, 0.9), st.floats(0.05, 1.2)),
    window=st.sampled_from([10.0, 25.0, 32.0]),
    shift=st.sampled_from([5.0, 10.0, 12.5]),
)
def test_frames_are_told_from_the_duration(
    samples: int,
    rate: int,
    share: tuple[float, float],
    window: float,
    shift: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "one.wav"
    path.write_bytes(wav_bytes(noise(samples / rate, rate=rate), rate))
    config = FbankConfig(frame_length_ms=window, frame_shift_ms=shift)
    seconds = samples / rate
    start, duration = share[0] * seconds, share[1] * seconds
    whole, part = Utterance("whole", str(path), seconds), Utterance("part", str(path), duration, start=start)
    assert lengths(whole, config)[0] == lengths(whole, config)[1]
    planned, real = lengths(part, config)
    assert real <= planned
    assert real == planned or start + duration > seconds - 1 / 16000


def lengths(utterance: Utterance, config: FbankConfig) -> tuple[int, int]:
    """Return the planned and the real frames of an utterance, 0 where there are none."""
    found = []
    for frames in (lambda: frames_of(utterance, config), lambda: len(Streamed(config).get(utterance))):
        try:
            found.append(frames())
        except (AudioError, CorpusError):
            found.append(0)
    return found[0], found[1]


def test_audio_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.wav"
    text.write_text("not audio at all\n" * 20)
    whole, damaged = (rows(tmp_path / name, 2)[0] for name in ("whole", "damaged"))
    damage(Path(damaged.audio), "count")
    short = files(tmp_path / "short", 1, 0.01)[0]
    for bad in (
        Utterance("gone", str(tmp_path / "gone.wav"), 1.0),
        Utterance("text", str(text), 1.0),
        Utterance("folder", str(tmp_path), 1.0),
        replace(whole, id="row", row=9),
        damaged,
        replace(short, id="short", duration=1.0),
    ):
        with pytest.raises(AudioError, match=f"^utterance {bad.id}: ") as caught:
            Streamed(CONFIG).get(bad)
        assert "\n" not in str(caught.value)


def test_memory_asks_once_and_outlives_the_audio(tmp_path: Path) -> None:
    utterances = [*files(tmp_path / "files", 4), *rows(tmp_path / "shards", 2)]
    utterances.append(replace(utterances[0], id="mixed", mix={"gain_db": -6}))
    counting = Counting()
    reader = InMemory(counting, utterances, 10**9)
    first = read(reader, utterances)
    for path in tmp_path.glob("*/*"):
        path.unlink()
    for _ in range(2):
        assert all(map(torch.equal, read(reader, utterances), first))
    assert counting.computed == {u.id: 1 for u in utterances}
    assert not torch.equal(first[0], first[-1])


@given(st.lists(st.floats(0.1, 1e5), min_size=1, max_size=20))
def test_memory_says_beforehand_whether_a_corpus_fits(durations: list[float]) -> None:
    utterances = [Utterance(f"u{n}", f"{n}.wav", seconds) for n, seconds in enumerate(durations)]
    twice = [*utterances, *(replace(u, id=f"again {u.id}") for u in utterances)]
    frames = [1 + (round(seconds * 16000) - 400) // 160 for seconds in durations]
    needed = 80 * 2 * sum(frames)
    InMemory(Streamed(CONFIG), twice, needed)
    with pytest.raises(CorpusError, match=f"take {needed / 1e9:.2f} GB .* every rank") as caught:
        InMemory(Streamed(CONFIG), twice, needed - 1)
    advised = re.search(r"set reading.memory_gb to ([\d.]+)", str(caught.value))
    assert advised is not None
    InMemory(Streamed(CONFIG), twice, round(float(advised[1]) * 1e9))
