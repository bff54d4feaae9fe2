"""What a training makes of the utterances it is given: pieces of batches, a development set, and what is no good."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysr.corpus.demo import demo_corpus
from raysr.corpus.disk import exclusive
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.errors import CorpusError, RunError
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train import loop
from raysr.train.checkpoint import save_weights
from raysr.train.data import Budget, open_data
from raysr.train.job import TrainJob
from raysr.train.local import fit_local
from raysr.train.step import MOST_SKIPPED
from tests.train.jobs import changed, small_job, sources, still
from tests.train.ranks import on_ranks
from tests.train.recorder import Recorder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    folder = tmp_path_factory.mktemp("data")
    data = small_job(folder).dump()
    data["dev"] = str(folder / "labelled.jsonl")
    return TrainJob.parse(data)


def model_of(job: TrainJob) -> AsrModel:
    model = AsrModel(job.model, Tokeniser.load(job.tokeniser).vocab_size)
    model.load_state_dict(load_file(job.init))
    return model


def with_sources(job: TrainJob, given: list[dict[str, Any]], **train: Any) -> TrainJob:
    return TrainJob.parse(changed(job, **train).dump() | {"sources": given})


def test_pieces_of_a_batch_move_the_weights_as_the_whole_does(job: TrainJob, tmp_path: Path) -> None:
    data = still(job)
    moved = {}
    for pieces in (None, 3.0, 0.01):
        data["train"] |= {"micro_batch_seconds": pieces, "batch_seconds": 20.0, "steps": 2}
        recorder = Recorder(tmp_path / str(pieces))
        model = loop.train(TrainJob.parse(data), recorder).model
        moved[pieces] = (torch.cat([p.flatten() for p in model.parameters()]), recorder.losses)
    weights, losses = moved[None]
    begin = torch.cat([p.flatten() for p in model_of(job).parameters()])
    for pieces in (3.0, 0.01):
        assert moved[pieces][1] == pytest.approx(losses, rel=1e-5)
        assert (moved[pieces][0] - weights).norm() < 1e-2 * (weights - begin).norm()


def test_pieces_hold_no_more_than_they_may_and_nothing_is_lost(job: TrainJob) -> None:
    tokeniser = Tokeniser.load(job.tokeniser)
    with open_data(job, model_of(job), tokeniser, print, print, print) as data:
        indices = data.sampler(Budget(4000, None)).next()
        for rank in range(2):
            part = data.part(0, indices, 900, rank, 2)
            assert len(part.pieces) > 1
            assert [name for names in part.names for name in names] == [
                data.names[i] for i in indices[rank::2]
            ]
            frames = [f for source in data.lengths.frames for f in source]
            longest = {data.names[i]: frames[i] for i in indices}
            for names in part.names:
                assert len(names) == 1 or len(names) * max(longest[n] for n in names) <= 900


def dev_losses(job: TrainJob, folder: Path) -> list[float | None]:
    recorder = Recorder(folder)
    loop.train(job, recorder)
    return recorder.dev_losses


def test_the_loss_on_dev_is_the_models_own_however_many_ranks_compute_it(
    job: TrainJob, tmp_path: Path
) -> None:
    data = still(job)
    data["train"] |= {"steps": 1, "optimiser": {"lr": 1e-12}}
    this = TrainJob.parse(data)
    [alone] = dev_losses(this, tmp_path / "alone")
    two, other = (losses[0] for losses in on_ranks(2, dev_losses, this, tmp_path / "two"))
    model = model_of(job).eval()
    with (
        open_data(this, model, Tokeniser.load(job.tokeniser), print, print, print) as data,
        torch.inference_mode(),
    ):
        assert data.dev is not None
        batch = data.dev.make(np.arange(len(data.dev_frames)), None)
        expected = float(model(*batch.tensors).total)
    assert alone == pytest.approx(expected, rel=1e-4)
    assert two == other == pytest.approx(expected, rel=1e-4)


def test_an_empty_set_is_named(job: TrainJob, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"source\.jsonl: an empty training set"):
        loop.train(with_sources(job, sources(tmp_path, [])), Recorder(tmp_path))
    (tmp_path / "dev.jsonl").touch()
    with pytest.raises(CorpusError, match=r"dev\.jsonl: an empty development set"):
        loop.train(TrainJob.parse(job.dump() | {"dev": str(tmp_path / "dev.jsonl")}), Recorder(tmp_path))


def test_what_is_too_short_for_its_text_is_left_out_with_the_reason(job: TrainJob, tmp_path: Path) -> None:
    good, short = list(open_manifest(job.sources[0].manifest))[:2]
    short = short.with_text("the cat sat " * 50)
    recorder = Recorder(tmp_path)
    loop.train(with_sources(job, sources(tmp_path, [good, short])), recorder)
    assert list(recorder.missing) == [short.id]
    assert "too short for its text: the encoder makes" in recorder.missing[short.id]
    assert sum(row.too_short for row in recorder.rows) == 0
    loop.train(
        TrainJob.parse(job.dump() | {"sources": [*sources(tmp_path, [short]), job.dump()["sources"][1]]}),
        recorder,
    )
    with pytest.raises(CorpusError, match="no utterance is long enough for its text: there is nothing"):
        loop.train(with_sources(job, sources(tmp_path, [short])), Recorder(tmp_path))


def test_more_ranks_than_utterances_train_on_the_same_and_stay_one(job: TrainJob, tmp_path: Path) -> None:
    one = list(open_manifest(job.sources[0].manifest))[:1]
    this = with_sources(job, sources(tmp_path, one), steps=3)
    losses = on_ranks(3, dev_losses, this, tmp_path / "three")
    assert losses[0] == losses[1] == losses[2]


def test_losses_that_are_never_finite_end_the_training_on_all_ranks(job: TrainJob, tmp_path: Path) -> None:
    broken = load_file(job.init)
    broken["cmvn_mean"].fill_(float("nan"))
    save_weights(tmp_path / "broken.safetensors", broken)
    data = changed(job, steps=MOST_SKIPPED + 9, checkpoint_every=100).dump()
    this = TrainJob.parse(data | {"init": str(tmp_path / "broken.safetensors"), "dev": None})
    said = on_ranks(2, how_it_fails, this, tmp_path / "two")
    assert all(f"gradients of {MOST_SKIPPED} steps in a row are not finite" in words for words in said)


def how_it_fails(job: TrainJob, folder: Path) -> str:
    with pytest.raises(RunError) as failed:
        loop.train(job, Recorder(folder))
    return str(failed.value)


def test_audio_that_is_gone_is_told_and_the_training_goes_on(job: TrainJob, tmp_path: Path) -> None:
    utterances = list(demo_corpus().labelled)[:30]
    gone = replace(utterances[3], audio=str(tmp_path / "gone.wav"), row=None, start=0.0)
    write_jsonl(tmp_path / "source.jsonl", [*utterances[:3], gone, *utterances[4:]])
    given = [{"name": "labelled", "manifest": str(tmp_path / "source.jsonl")}]
    recorder = Recorder(tmp_path)
    this = with_sources(job, given, reading={"stream": True, "cache": "disk"}, steps=30, checkpoint_every=30)
    loop.train(this, recorder)
    assert list(recorder.missing) == [gone.id]
    assert sum(row.too_short for row in recorder.rows) > 0


def test_the_newest_and_the_best_checkpoints_are_kept_and_the_best_may_be_the_student(
    job: TrainJob, tmp_path: Path
) -> None:
    options = {"checkpoint_every": 1, "keep_newest": 2, "keep_best": 2, "final": "best", "steps": 8}
    data = changed(job, **options, optimiser={"lr": 0.3}).dump()
    weights = fit_local(TrainJob.parse(data | {"out": str(tmp_path)}))
    kept = {int(folder.name.split("-")[1]): folder for folder in tmp_path.glob("checkpoint-*")}
    scores = {step: float((folder / "dev_loss.json").read_text()) for step, folder in kept.items()}
    assert {7, 8} <= set(kept)
    assert len(kept) <= 4
    assert weights == kept[min(scores, key=scores.__getitem__)] / "model.safetensors"


def test_two_trainings_do_not_share_a_folder(job: TrainJob, tmp_path: Path) -> None:
    with exclusive(tmp_path, wait=False), pytest.raises(CorpusError, match="another process is writing"):
        fit_local(job.model_copy(update={"out": str(tmp_path)}))


def test_the_average_is_what_is_published(job: TrainJob, tmp_path: Path) -> None:
    data = changed(job, ema_decay=0.5).dump() | {"out": str(tmp_path)}
    weights = fit_local(TrainJob.parse(data))
    average, last = load_file(weights), load_file(weights.with_name("model.safetensors"))
    assert weights.name == "ema.safetensors"
    assert not torch.equal(average["ctc.linear.weight"], last["ctc.linear.weight"])
    assert torch.equal(average["cmvn_mean"], last["cmvn_mean"])


@pytest.mark.parametrize(
    "options", [{"init": "junk"}, {"init": "nothing.safetensors"}, {"out": "/proc/nowhere"}]
)
def test_a_file_that_is_no_good_ends_the_command_with_a_line_that_names_it(
    job: TrainJob, tmp_path: Path, options: dict[str, str]
) -> None:
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "job.json").write_text(json.dumps(job.dump()))
    [(key, value)] = options.items()
    command = [sys.executable, "-m", "raysr.train", str(tmp_path / "job.json"), f"{key}={tmp_path / value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / value) in done.stderr
    assert "Traceback" not in done.stderr
