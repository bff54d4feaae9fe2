"""An utterance that cannot be read costs its own loss, is told once, and keeps no rank from any step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.batch import BatchMaker
from raysr.train.job import AugmentConfig
from raysr.train.reading.faults import MOST_IN_A_ROW, FaultTolerant, Unreadable
from raysr.train.reading.stream import Streamed
from raysr.train.sampler import MixedSampler, scale, shard
from tests.train.noise import CONFIG, files
from tests.train.ranks import on_ranks

MODEL = ModelConfig.parse(
    {
        "encoder": {
            "dim": 16,
            "layers": 1,
            "heads": 2,
            "feed_forward": 16,
            "subsampling_channels": 4,
            "dropout": 0,
        },
        "decoder": {"heads": 2, "feed_forward": 16, "dropout": 0},
    }
)
STILL = AugmentConfig.parse(
    {"spec": {"freq_masks": 0, "time_masks": 0}, "warp": {"tempo": 0, "frequency": 0, "level_db": 0}}
)


def batches(
    utterances: Sequence[Utterance], told: dict[str, str], augment: AugmentConfig = STILL
) -> BatchMaker:
    tokeniser = Tokeniser.train([u.text or "" for u in utterances])
    reader = FaultTolerant(Streamed(CONFIG), Unreadable(10_000, told.__setitem__))
    return BatchMaker(utterances, reader, tokeniser, augment)


def student() -> AsrModel:
    torch.manual_seed(0)
    return AsrModel(MODEL, 20)


def test_an_utterance_that_is_gone_has_no_loss_and_keeps_its_weight(tmp_path: Path) -> None:
    utterances = files(tmp_path, 6, 0.6)
    Path(utterances[2].audio).unlink()
    told: dict[str, str] = {}
    maker, indices = batches(utterances, told), np.arange(6)
    batch = maker.make(indices, torch.Generator().manual_seed(0))
    others = maker.make(np.delete(indices, 2), torch.Generator().manual_seed(0))
    assert list(told) == ["u2"]
    gradients = []
    for part, share in ((batch, 1.0), (others, 5 / 6)):
        model = student()
        losses = model(*part.tensors, torch.Generator().manual_seed(1), None, part.weights)
        assert int(losses.utterances_too_short) == (1 if part is batch else 0)
        (share * losses.total).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_it_is_told_once_with_its_reason(tmp_path: Path) -> None:
    utterances = files(tmp_path, 3)
    Path(utterances[1].audio).unlink()
    told: list[tuple[str, str]] = []
    reader = FaultTolerant(Streamed(CONFIG), Unreadable(3, lambda *row: told.append(row)))
    for utterance in 3 * utterances:
        assert len(reader.get(utterance)) == (1 if utterance.id == "u1" else reader.frames(utterance))
    ((name, reason),) = told
    assert name == "u1"
    assert reason.startswith(f"utterance u1: {utterances[1].audio}: no such file")


@pytest.mark.parametrize(("count", "allowed"), [(5, 1), (250, 3), (100_000, MOST_IN_A_ROW - 1)])
def test_too_many_end_the_training(tmp_path: Path, count: int, allowed: int) -> None:
    reader = FaultTolerant(Streamed(CONFIG), Unreadable(count, lambda *_: None))
    gone = [Utterance(f"u{n}", str(tmp_path / f"{n}.wav"), 1.0) for n in range(allowed + 1)]
    for utterance in gone[:-1]:
        reader.get(utterance)
    with pytest.raises(
        CorpusError, match=rf"^{allowed + 1} of {count} utterances cannot be read.*u{allowed}"
    ):
        reader.get(gone[-1])


def test_one_that_is_gone_may_come_as_often_as_it_likes(tmp_path: Path) -> None:
    good, bad = files(tmp_path, 1)[0], Utterance("bad", str(tmp_path / "bad.wav"), 1.0)
    reader = FaultTolerant(Streamed(CONFIG), Unreadable(2, lambda *_: None))
    for utterance in 2 * MOST_IN_A_ROW * [good, bad]:
        reader.get(utterance)


def train(utterances: list[Utterance], steps: int) -> tuple[int, torch.Tensor]:
    """Train for some steps on this rank; return how many it took and its weights."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    maker = batches(utterances, {}, AugmentConfig())
    lengths = [maker.reader.frames(u) for u in utterances]
    sampler = MixedSampler([lengths], [1.0], 210, 0.5, seed=1)  # three utterances a batch or so
    model = student()
    ddp, optimiser = DistributedDataParallel(model), torch.optim.SGD(model.parameters(), 1e-3)
    for step in range(steps):
        indices = sampler.next()
        batch = maker.make(shard(indices, rank, ranks), torch.Generator().manual_seed(2 * step + rank))
        losses = ddp(*batch.tensors, torch.Generator().manual_seed(step), None, batch.weights)
        optimiser.zero_grad()
        (losses.total * batch.weights.sum() * scale(maker.weights[indices], rank, ranks)).backward()
        optimiser.step()
    return steps, torch.cat([p.detach().flatten() for p in model.parameters()])


def test_all_ranks_take_all_steps_when_one_of_them_has_nothing_to_read(tmp_path: Path) -> None:
    utterances = files(tmp_path, 6, 0.6)
    for utterance in utterances[::2]:
        Path(utterance.audio).unlink()
    (steps, weights), (others_steps, others_weights) = on_ranks(2, train, utterances, 8)
    assert steps == others_steps == 8
    assert weights.isfinite().all()
    assert torch.equal(weights, others_weights)
