"""Audio made harder at each visit: a function of (seed, step, rank), never of threads, and never kept."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from raysr.audio.augment import augment
from raysr.audio.draws import WaveformConfig
from raysr.audio.fbank import Fbank
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, CorpusError
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.batch import Batch, BatchMaker
from raysr.train.data import Data, open_data
from raysr.train.job import AugmentConfig, TrainJob
from raysr.train.reading.ahead import read_ahead
from raysr.train.reading.faults import MOST_IN_A_ROW, Unreadable
from raysr.train.reading.harder import Harder
from raysr.train.reading.stream import Streamed
from tests.train.jobs import small_job, still
from tests.train.noise import CONFIG, files

WAVEFORM: dict[str, Any] = {
    "share": 0.7,
    "speed": {"range": [0.9, 1.1], "share": 0.5},
    "music": {"snr_db": [0, 10], "share": 0.5},
    "codec": {"kinds": ["mulaw"], "share": 0.3},
    "room": {"rt60": [0.2, 0.4], "share": 0.3},
}
STILL: dict[str, Any] = {
    "spec": {"freq_masks": 0, "time_masks": 0},
    "warp": {"tempo": 0, "frequency": 0, "level_db": 0},
}


def maker_of(utterances: list[Utterance], told: dict[str, str], waveform: dict[str, Any]) -> BatchMaker:
    tokeniser = Tokeniser.train([u.text or "" for u in utterances])
    harder = Harder(
        WaveformConfig.parse(waveform), CONFIG, Unreadable(1000 * len(utterances), told.__setitem__)
    )
    return BatchMaker(utterances, Streamed(CONFIG), tokeniser, AugmentConfig.parse(STILL), harder=harder)


def apart(batch: Batch) -> list[torch.Tensor]:
    return [f[:length] for f, length in zip(batch.features, batch.lengths.tolist(), strict=True)]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether features are the same but for the rounding of a warp by nothing at all."""
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-3)


def test_features_are_those_of_the_audio_after_what_was_drawn(tmp_path: Path) -> None:
    utterances = files(tmp_path, 12)
    maker = maker_of(utterances, {}, WAVEFORM)
    batch = maker.make(np.arange(12), torch.Generator().manual_seed(5))
    seeds = torch.randint(2**63 - 1, (12,), generator=torch.Generator().manual_seed(5)).tolist()
    done = 0
    for utterance, seed, features in zip(utterances, seeds, apart(batch), strict=True):
        recipe = WaveformConfig.parse(WAVEFORM).draw(seed)
        samples = load_waveform(utterance)
        if recipe is not None:
            samples, done = augment(samples, recipe), done + 1
            assert len(features) == CONFIG.frames(len(samples))
        expected = Fbank(CONFIG)(torch.from_numpy(samples)).half().float()
        assert close(features, expected)
    assert 4 < done < 12


def test_the_same_draws_give_the_same_bits_in_any_thread_and_others_do_not(tmp_path: Path) -> None:
    utterances = files(tmp_path, 4)

    def tasks(maker: BatchMaker) -> Iterator[tuple[partial[Batch], None]]:
        for step in range(8):
            yield partial(maker.make, np.arange(4), torch.Generator().manual_seed(step)), None

    maker = maker_of(utterances, {}, WAVEFORM)
    alone = [make() for make, _ in tasks(maker)]
    for threads in (1, 3):
        for batch, ready in zip(alone, read_ahead(tasks(maker), 4, threads), strict=True):
            assert torch.equal(batch.features, ready.item.features)
            assert torch.equal(batch.lengths, ready.item.lengths)
    assert len({tuple(batch.features[0, :5].flatten().tolist()) for batch in alone}) > 4


def test_ranks_draw_apart_and_a_step_draws_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    with data_of(with_waveform(small_job(tmp_path))) as data:
        monkeypatch.setattr(data.batches.harder, "get", lambda utterance, seed: drawn.append(seed))

        def seeds(step: int, rank: int, piece: int | None = None) -> list[int]:
            drawn.clear()
            data.part(step, np.arange(12), piece, rank, 2)
            return list(drawn)

        visits = [seeds(step, rank) for step in range(5) for rank in range(2)]
        assert len({seed for visit in visits for seed in visit}) == 5 * 12
        assert seeds(3, 1) == visits[7]


def with_waveform(job: TrainJob, **more: Any) -> TrainJob:
    data = still(job)
    data["train"]["augment"]["waveform"] = WAVEFORM | more
    return TrainJob.parse(data)


def data_of(job: TrainJob) -> Any:
    tokeniser = Tokeniser.load(job.tokeniser)
    return open_data(job, AsrModel(job.model, tokeniser.vocab_size), tokeniser, print, print, pytest.fail)


def test_a_cache_is_read_and_what_was_made_harder_is_not_put_into_it(tmp_path: Path) -> None:
    job = with_waveform(small_job(tmp_path))
    before = sorted((tmp_path / "cache").rglob("*"))
    with data_of(job) as data:
        kept = FeatureCache(job.cache)
        batch = data.batches.make(np.arange(24), torch.Generator().manual_seed(0))
        same = [
            close(found, kept.get(u)) for found, u in zip(apart(batch), data.batches.utterances, strict=True)
        ]
        assert 3 < sum(same) < 15
    assert sorted((tmp_path / "cache").rglob("*")) == before


def test_dev_stays_as_it_is(tmp_path: Path) -> None:
    job = with_waveform(small_job(tmp_path))
    job = TrainJob.parse(job.dump() | {"dev": job.sources[0].manifest})
    with data_of(job) as data:
        assert data.dev is not None
        batch = data.dev.make(np.arange(12), None)
        cache = FeatureCache(job.cache)
        for found, utterance in zip(apart(batch), data.dev.utterances, strict=True):
            assert close(found, cache.get(utterance))


def test_memory_is_planned_for_the_slowest_speech(tmp_path: Path) -> None:
    job = with_waveform(small_job(tmp_path), speed={"range": [0.8, 1.1]})
    data: Data
    with data_of(job) as data:
        assert data.lengths.stretch == pytest.approx(1 / 0.8)


def test_audio_that_is_gone_is_told_once_and_its_kept_features_are_taken(tmp_path: Path) -> None:
    utterances = files(tmp_path / "files", 6)
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    cache.ensure(utterances)
    told: list[tuple[str, str]] = []
    harder = Harder(
        WaveformConfig.parse({"share": 1.0, "noise": {}}),
        CONFIG,
        Unreadable(6000, lambda *row: told.append(row)),
    )
    kept = [cache.get(u) for u in utterances]
    Path(utterances[2].audio).unlink()
    found = [[harder.get(u, seed) for u in utterances] for seed in range(3)]
    assert [[f is None for f in visit] for visit in found] == 3 * [[False, False, True, False, False, False]]
    ((name, reason),) = told
    assert name == "u2"
    assert "to be made harder" in reason
    assert "no such file" in reason
    assert not any(
        torch.equal(f, k) for visit in found for f, k in zip(visit, kept, strict=True) if f is not None
    )


def test_a_disk_that_is_gone_ends_the_training(tmp_path: Path) -> None:
    utterances = files(tmp_path, 1)
    Path(utterances[0].audio).unlink()
    harder = Harder(
        WaveformConfig.parse({"share": 1.0, "noise": {}}), CONFIG, Unreadable(10**6, lambda *_: None)
    )
    for seed in range(MOST_IN_A_ROW - 1):
        assert harder.get(utterances[0], seed) is None
    with pytest.raises(CorpusError, match="cannot be read"):
        harder.get(utterances[0], MOST_IN_A_ROW)


def test_one_bad_sound_among_many_ends_no_training(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    for number in range(9):
        soundfile.write(tmp_path / "songs" / f"{number}.wav", np.full(8000, 0.1, np.float32), 16000)
    (tmp_path / "songs" / "bad.wav").write_bytes(b"RIFF")
    told: list[tuple[str, str]] = []
    config = WaveformConfig.parse({"music": {"files": str(tmp_path / "songs")}})
    harder = Harder(config, CONFIG, Unreadable(300, lambda *row: told.append(row)))
    utterances = files(tmp_path / "u", 12)
    failed = sum(
        harder.get(u, 100 * visit + n) is None for visit in range(20) for n, u in enumerate(utterances)
    )
    assert 8 < failed < 60
    assert 4 < len(told) <= 12
    assert len({name for name, _ in told}) == len(told)


def test_speech_that_would_be_too_short_for_its_text_stays_as_it_is(tmp_path: Path) -> None:
    job = with_waveform(small_job(tmp_path), share=1.0, speed={"range": [1.0, 1.9]})
    with data_of(job) as data:
        model = AsrModel(job.model, Tokeniser.load(job.tokeniser).vocab_size)
        for seed in range(6):
            batch = data.batches.make(np.arange(24), torch.Generator().manual_seed(seed))
            needed = batch.token_lengths + (batch.tokens[:, 1:] == batch.tokens[:, :-1]).logical_and(
                batch.tokens[:, 1:] != 0
            ).sum(1)
            assert (model.output_frames(batch.lengths) >= needed).all()


def test_a_damaged_sound_is_named(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "bad.wav").write_bytes(b"RIFF")
    told: dict[str, str] = {}
    maker = maker_of(
        files(tmp_path / "u", 2), told, {"share": 1.0, "music": {"files": str(tmp_path / "songs")}}
    )
    batch = maker.make(np.arange(2), torch.Generator().manual_seed(0))
    assert len(batch.features) == 2
    assert "bad.wav" in told["u0"]


def test_a_folder_without_sounds_is_told_before_the_training(tmp_path: Path) -> None:
    job = with_waveform(small_job(tmp_path), noise={"files": str(tmp_path / "nowhere")})
    with pytest.raises(AudioError, match="nowhere: no such folder"), data_of(job):
        pass
    (tmp_path / "some").mkdir()
    soundfile.write(tmp_path / "some" / "hum.wav", np.full(16000, 0.1, np.float32), 16000)
    with data_of(with_waveform(job, noise={"files": str(tmp_path / "some")})) as data:
        assert len(data.batches.make(np.arange(3), torch.Generator().manual_seed(0)).features) == 3
