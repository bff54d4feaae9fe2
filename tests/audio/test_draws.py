"""How speech is made harder is drawn within bounds, alike for the same seed, and each part by itself."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.audio.augment import augment
from raysr.audio.draws import PARTS, WaveformConfig
from raysr.errors import AudioError, ConfigError

EVERYTHING: dict[str, Any] = {
    "share": 1.0,
    "speed": {"range": [0.9, 1.1], "share": 0.5},
    "tempo": {"range": [0.85, 1.2], "share": 0.5},
    "room": {"rt60": [0.2, 0.4], "share": 0.4},
    "walk": {"share": 0.2},
    "noise": {"snr_db": [5, 15], "share": 0.5},
    "music": {"snr_db": [0, 10], "share": 0.5},
    "clip": {"samples": [0.01, 0.03], "share": 0.3},
    "band": {"share": 0.3},
    "codec": {"kinds": ["opus", "mulaw"], "bit_rate": [16_000, 32_000], "share": 0.3},
    "packets": {"lost": [0.02, 0.05], "share": 0.3},
    "gain_db": {"range": [-6, 3], "share": 0.5},
}
SPEECH = (0.2 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)


def drawn(config: WaveformConfig, count: int) -> list[dict[str, Any]]:
    found = [config.draw(seed) for seed in range(count)]
    return [{} if a is None else a.model_dump(exclude_defaults=True, exclude={"seed"}) for a in found]


def test_values_lie_within_their_bounds_and_parts_come_as_often_as_asked() -> None:
    count = 2000
    found = drawn(WaveformConfig.parse(EVERYTHING), count)
    for name in PARTS:
        times = sum(name in one for one in found)
        share = EVERYTHING.get(name, {}).get("share", 0.0)
        share *= 0.8 if name == "room" else 1.0  # those who walk do not stand
        spread = 4 * math.sqrt(share * (1 - share) / count)
        # a factor or a gain of exactly 1 or 0 is as if there were none
        assert share - spread - 0.06 <= times / count <= share + spread, name
    for one in found:
        assert not {"room", "walk"} <= one.keys()
        for value, bounds in (
            (one.get("speed", 1.0), (0.9, 1.1)),
            (one.get("tempo", 1.0), (0.85, 1.2)),
            (one.get("room", {}).get("rt60", 0.3), (0.2, 0.4)),
            (one.get("noise", {}).get("snr_db", 10), (5, 15)),
            (one.get("music", {}).get("snr_db", 5), (0, 10)),
            (one.get("clip", 0.02), (0.01, 0.03)),
            (one.get("packets", {}).get("share", 0.03), (0.02, 0.05)),
            (one.get("gain_db", 0.0), (-6, 3)),
        ):
            assert bounds[0] <= value <= bounds[1]
        if "codec" in one:
            assert ("bit_rate" in one["codec"]) == (one["codec"]["kind"] == "opus")
    assert {one["codec"]["kind"] for one in found if "codec" in one} == {"opus", "mulaw"}
    assert {one["noise"].get("colour") for one in found if "noise" in one} == {"white", "pink", "brown"}
    music = [one["music"]["snr_db"] for one in found if "music" in one]
    assert np.mean(music) == pytest.approx(5, abs=4 * 10 / math.sqrt(12 * len(music)))


def test_the_share_of_visits_that_stay_as_they_are() -> None:
    config = WaveformConfig.parse({"share": 0.3, "noise": {}})
    assert sum(config.draw(seed) is not None for seed in range(3000)) == pytest.approx(900, abs=100)
    assert WaveformConfig().draw(1) is None
    assert WaveformConfig.parse({"share": 0.0, "noise": {}}).draw(1) is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 2), left_out=st.sampled_from(sorted(set(EVERYTHING) - {"share", "walk"})))
def test_a_part_that_is_left_out_changes_no_other(seed: int, left_out: str) -> None:
    whole = WaveformConfig.parse(EVERYTHING).draw(seed)
    fewer = WaveformConfig.parse({k: v for k, v in EVERYTHING.items() if k != left_out}).draw(seed)
    found = [{} if a is None else a.model_dump(exclude={"seed", left_out}) for a in (whole, fewer)]
    assert found[0] == found[1] or not all(found)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**63 - 2))
def test_every_draw_can_be_carried_out_and_the_same_seed_gives_the_same_bits(seed: int) -> None:
    config = WaveformConfig.parse(EVERYTHING)
    recipe = config.draw(seed)
    if recipe is None:
        return
    once, again = augment(SPEECH, recipe), augment(SPEECH, config.draw(seed) or recipe)
    np.testing.assert_array_equal(once, again)
    assert len(once) <= math.ceil(len(SPEECH) * config.stretch) + 1
    assert np.isfinite(once).all()


def test_what_is_drawn_is_not_what_is_drawn_from_next(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    make = np.random.default_rng

    def noted(words: list[int]) -> np.random.Generator:
        asked.append(tuple(words))
        return make(words)

    monkeypatch.setattr(np.random, "default_rng", noted)
    for seed in range(40):
        recipe = WaveformConfig.parse(EVERYTHING).draw(seed)
        if recipe is not None:
            augment(SPEECH, recipe)
    streams = [words + (0,) * (3 - len(words)) for words in asked]  # as numpy pads them
    assert len(set(streams)) == len(streams)


def test_how_much_longer_speech_may_become() -> None:
    assert WaveformConfig().stretch == 1
    assert WaveformConfig.parse(EVERYTHING).stretch == pytest.approx(1 / 0.9 / 0.85)
    assert WaveformConfig.parse({**EVERYTHING, "share": 0}).stretch == 1
    assert WaveformConfig.parse({"share": 1, "speed": {"range": [1.1, 1.2]}}).stretch == 1
    assert WaveformConfig.parse({"speed": {"range": [0.845, 1]}}).stretch == pytest.approx(1 / 0.84)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"speed": {"range": [1.1, 0.9]}}, "should be a lowest and a highest value"),
        ({"speed": {"range": [0.01, 1.0]}}, "speed"),
        ({"room": {"rt60": [0.2, 50]}}, "room.rt60"),
        ({"walk": {"near": [0.5, 3.0]}}, r"near \(up to 3 m\) reaches beyond far \(from 1.5 m\)"),
        ({"band": {"low": [0, 3000]}}, r"low \(up to 3000 Hz\) reaches high"),
        ({"noise": {"snr_db": [0, math.inf]}}, "finite"),
        ({"noise": {"colours": ["purple"]}}, "white"),
        ({"babble": {}}, "babble.files"),
        ({"codec": {"kinds": ["opus", "gsm", "mp3"], "bit_rate": [6000, 64_000]}}, "mp3"),
        ({"packets": {"lost": [0.0, 0.1]}}, "packets.share"),
        ({"packets": {"lost": [0.01, 0.6]}}, "bursts of 1 packets, with a share of 0.6 lost"),
        ({"clip": {"samples": [0.0, 1.0]}}, "clip"),
        ({"reverb": {}}, "reverb"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_is_drawn(part: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        WaveformConfig.parse({"share": 1.0, **part}, "waveform")


def test_sounds_of_ones_own_are_looked_for_where_the_recipe_says(tmp_path: Path) -> None:
    config = WaveformConfig.parse({"share": 1.0, "music": {"files": "songs"}, "noise": {}}).located(tmp_path)
    assert config.music is not None
    assert config.music.files == str(tmp_path / "songs")
    assert config.located(Path("/elsewhere")) == config
    with pytest.raises(AudioError, match=f"{tmp_path}/songs: no such folder"):
        config.check_files()
    (tmp_path / "songs").mkdir()
    with pytest.raises(AudioError, match="holds no audio files"):
        config.check_files()
    soundfile.write(tmp_path / "songs" / "one.wav", SPEECH, 16000)
    config.check_files()
    recipe = config.draw(3)
    assert recipe is not None
    assert len(augment(SPEECH, recipe)) == len(SPEECH)
