"""Recipes of augmentation: each part does what its definition says, and the seed decides every bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.audio.augment import Augmentation, augment
from raysr.audio.encode import write_wav
from raysr.audio.mix import active_power, apply_mix
from raysr.audio.moving import draw_walk, walk
from raysr.audio.sounds import audio_files, babble, behind, excerpt
from raysr.errors import AudioError, ConfigError

RATE = 16000


def tone(hz: float = 440.0, seconds: float = 2.0, level: float = 0.05) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of tones, one of them in a folder within."""
    root = tmp_path_factory.mktemp("sounds")
    (root / "more").mkdir()
    for number in range(4):
        place = root / "more" if number == 3 else root
        write_wav(place / f"{number}.wav", tone(300.0 + 100 * number, 1.0 + number, 0.1 + 0.1 * number))
    (root / "notes.txt").write_text("no audio")
    return root


def recipe(folder: Path, **changed: Any) -> Augmentation:
    everything = {
        "seed": 7,
        "speed": 1.1,
        "tempo": 0.95,
        "walk": {"near": 0.5, "far": 3.0, "rt60": 0.3},
        "noise": {"snr_db": 20.0, "colour": "brown"},
        "music": {"snr_db": 10.0},
        "babble": {"snr_db": 12.0, "files": str(folder), "talkers": 3},
        "clip": 0.01,
        "band": {"low": 100, "high": 6000},
        "codec": {"kind": "mulaw"},
        "packets": {"share": 0.1},
        "gain_db": -3.0,
    }
    return Augmentation.parse(everything | changed)


@pytest.mark.parametrize("codec", ["mulaw", "gsm", "opus", "mp3"])
def test_the_seed_decides_every_bit(folder: Path, codec: str) -> None:
    changed = {"codec": {"kind": codec}}
    heard = augment(tone(), recipe(folder, **changed))
    assert np.array_equal(heard, augment(tone(), recipe(folder, **changed)))
    assert not np.array_equal(heard, augment(tone(), recipe(folder, seed=8, **changed)))


def test_all_of_it_keeps_the_times_of_what_is_said() -> None:
    """A burst of tone is where the recipe's ``stretch`` says, through room, noise, band, codec and line."""
    samples = np.zeros(4 * RATE, np.float32)
    samples[3 * RATE : 3 * RATE + 1600] = tone(1000.0, 0.1, 0.5)
    parts = {"speed": 1.104, "tempo": 0.95, "room": {"rt60": 0.2, "distance": 0.5}, "noise": {"snr_db": 30}}
    said = Augmentation.parse(parts | {"band": {"high": 3000}, "codec": {"kind": "opus"}, "gain_db": -6})
    heard = augment(samples, said)
    assert said.stretch == pytest.approx(1 / (1.10 * 0.95)), "factors are hundredths"
    assert len(heard) == pytest.approx(4 * RATE * said.stretch, abs=2)
    power = np.convolve(heard.astype(np.float64) ** 2, np.ones(400), mode="same")
    assert power.argmax() / RATE == pytest.approx((3.05) * said.stretch, abs=0.06)


def test_nothing_asked_is_nothing_done() -> None:
    loud = tone(level=0.999)
    assert np.array_equal(augment(loud, Augmentation()), loud)


@given(st.sampled_from(["noise", "music"]), st.floats(-5, 30), st.integers(0, 1000))
@settings(max_examples=30)
def test_the_ratio_asked_for_is_reached(part: str, decibel: float, seed: int) -> None:
    speech = tone()
    heard = augment(speech, Augmentation.parse({"seed": seed, part: {"snr_db": decibel}, "gain_db": -12}))
    added = heard.astype(np.float64) * 10 ** (12 / 20) - speech
    found = 10 * np.log10(active_power(speech) / np.mean(added**2))
    assert found == pytest.approx(decibel, abs=0.1)


def test_each_part_draws_by_itself(folder: Path) -> None:
    speech = tone(level=0.01)
    parts = [{"noise": {"snr_db": 20}}, {"babble": {"snr_db": 15, "files": str(folder)}}]
    alone = [augment(speech, Augmentation.parse({"seed": 3, **part})) - speech for part in parts]
    both = augment(speech, Augmentation.parse({"seed": 3, **parts[0], **parts[1]}))
    np.testing.assert_allclose(both, speech + alone[0] + alone[1], atol=1e-6)


def test_a_room_is_the_room_of_a_mix() -> None:
    room = {"rt60": 0.4, "distance": 2.0, "volume": 60.0}
    found = augment(tone(), Augmentation.parse({"seed": 5, "room": room}))
    assert np.array_equal(found, apply_mix(tone(), {"seed": 5, "room": room}))


@given(st.integers(0, 3000), st.floats(1e-4, 4.0), st.integers(0, 50))
@settings(max_examples=30)
def test_nothing_exceeds_full_scale(length: int, level: float, seed: int) -> None:
    loud = np.random.default_rng(seed).uniform(-level, level, length).astype(np.float32)
    parts = {"seed": seed, "noise": {"snr_db": 0}, "packets": {"share": 0.2}, "gain_db": 30}
    heard = augment(loud, Augmentation.parse(parts))
    assert len(heard) == length
    assert np.abs(heard).max(initial=0) <= 0.9901


def test_silence_stays_silent() -> None:
    parts = {"noise": {"snr_db": 0}, "music": {"snr_db": 0}, "room": {"rt60": 0.3}, "gain_db": 20}
    assert not augment(np.zeros(RATE, np.float32), Augmentation.parse(parts)).any()


def test_a_folder_is_the_same_on_every_machine_and_its_excerpts_are_of_its_files(folder: Path) -> None:
    files = audio_files(folder)
    assert [file.name for file in files] == ["0.wav", "1.wav", "2.wav", "3.wav"]
    pitches = set()
    for seed in range(30):
        found = excerpt(files, RATE, np.random.default_rng(seed))
        assert np.mean(found.astype(np.float64) ** 2) == pytest.approx(1.0, rel=1e-4)
        pitches.add(round(float(np.abs(np.fft.rfft(found)).argmax()), -2))
    assert pitches == {300.0, 400.0, 500.0, 600.0}
    assert len(excerpt(files[:1], 3 * RATE, np.random.default_rng(0))) == 3 * RATE, "it goes round"


def test_a_babble_is_of_unit_power_and_of_several(folder: Path) -> None:
    found = babble(audio_files(folder), 12, 2 * RATE, np.random.default_rng(0))
    assert np.mean(found.astype(np.float64) ** 2) == pytest.approx(1.0, rel=1e-4)
    spectrum = np.abs(np.fft.rfft(found))
    assert sum(spectrum[2 * hz] > 0.05 * spectrum.max() for hz in (300, 400, 500, 600)) >= 3


def test_a_folder_without_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(AudioError, match=f"{tmp_path} holds no audio files"):
        augment(tone(), Augmentation.parse({"music": {"snr_db": 5, "files": str(tmp_path)}}))
    with pytest.raises(AudioError, match="mucis: no such folder"):
        augment(tone(), Augmentation.parse({"music": {"snr_db": 5, "files": "mucis"}}))
    (tmp_path / "noise.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"noise\.wav"):
        augment(tone(), Augmentation.parse({"noise": {"snr_db": 5, "files": str(tmp_path)}}))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"speed": 3}, "speed"),
        ({"codec": {"kind": "mp4"}}, "codec.kind"),
        ({"room": {}, "walk": {}}, "stands or walks"),
        ({"walk": {"near": 3, "far": 1}}, "farther"),
        ({"babble": {"snr_db": 5}}, "babble.files"),
        ({"band": {"low": 3400, "high": 300}}, "not below high"),
        ({"codec": {"kind": "alaw", "bit_rate": 64000}}, "codec: codec alaw has one bit rate"),
        ({"codec": {"kind": "mp3", "bit_rate": 320_000}}, "8000 … 160000"),
        ({"packets": {"share": 0.9, "burst": 2}}, "9 or more"),
        ({"noise": {"snr_db": 5, "files": "a", "colour": "pink"}}, "recorded or generated"),
        ({"gain_db": 1000}, "gain_db"),
        ({"walk": {"far": float("inf")}}, "walk.far"),
        ({"musik": {}}, "did you mean 'music'"),
    ],
)
def test_what_cannot_be_is_refused(parts: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Augmentation.parse(parts, "augment")


def test_who_walks_away_is_fainter_against_the_room() -> None:
    """Impulses on the way: the direct sound falls by 6 dB where the distance doubles, the tail does not."""
    clicks = np.zeros(4 * RATE, np.float32)
    clicks[[RATE // 2, 3 * RATE]] = 1.0
    path = np.array([1.0, 1.0, 1.0, 4.0, 4.0])  # at 0, 1, 2, 3 and 4 s
    heard = walk(clicks, path, 0.3, 60.0, np.random.default_rng(0))
    near, far = heard[RATE // 2], heard[3 * RATE]
    assert 20 * np.log10(near / far) == pytest.approx(20 * np.log10(4.0), abs=0.1)
    tails = [np.mean(heard[at + 100 : at + 4000].astype(np.float64) ** 2) for at in (RATE // 2, 3 * RATE)]
    assert tails[0] == pytest.approx(tails[1], rel=1e-3)


def test_who_stands_is_in_a_room() -> None:
    speech = tone()
    walked = walk(speech, np.array([2.0, 2.0]), 0.4, 60.0, np.random.default_rng(3))
    assert active_power(walked) == pytest.approx(active_power(speech), rel=1e-3)


@given(st.floats(0.2, 1.0), st.floats(1.0, 9.0), st.floats(0, 60), st.integers(0, 99))
def test_a_walk_stays_between_near_and_far_and_is_one(
    near: float, far: float, seconds: float, seed: int
) -> None:
    path = draw_walk(seconds, near, far, np.random.default_rng(seed))
    assert len(path) >= 2
    assert near - 1e-9 <= path.min() <= path.max() <= far + 1e-9
    assert np.abs(np.diff(path)).max() <= 1.5 * seconds / (len(path) - 1) + 1e-9, "metres a second"
    assert seconds / (len(path) - 1) <= 1.0


def test_of_a_long_recording_only_the_excerpt_is_read(tmp_path: Path) -> None:
    """Three minutes, each second of another pitch: an excerpt of two is from one place."""
    write_wav(
        tmp_path / "long.wav", np.concatenate([tone(200.0 + 10 * second, 1.0) for second in range(180)])
    )
    starts = set()
    for seed in range(8):
        found = excerpt([tmp_path / "long.wav"], 2 * RATE, np.random.default_rng(seed))
        assert len(found) == 2 * RATE
        assert np.mean(found.astype(np.float64) ** 2) == pytest.approx(1.0, rel=1e-4)
        pitches = [float(np.abs(np.fft.rfft(half)).argmax()) for half in (found[:RATE], found[RATE:])]
        assert 0 < pitches[1] - pitches[0] <= 20
        starts.add(pitches[0])
    assert len(starts) > 4


def test_distances_that_cannot_be_are_refused() -> None:
    for path in (np.array([]), np.array([1.0, 0.0])):
        with pytest.raises(AudioError, match="metres above 0"):
            walk(tone(), path, 0.3, 60.0, np.random.default_rng(0))


def test_at_a_ratio_pauses_do_not_count_as_speech() -> None:
    speech = np.concatenate([np.zeros(2 * RATE, np.float32), tone()])
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    added = behind(speech, noise, 10.0)
    assert 10 * np.log10(active_power(tone()) / np.mean(added.astype(np.float64) ** 2)) == pytest.approx(
        10, abs=0.1
    )
