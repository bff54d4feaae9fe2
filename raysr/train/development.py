"""The loss on utterances that are not trained on, computed by all ranks together."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist

from raysr.train.batch import BatchMaker
from raysr.train.student import Student


def development_loss(student: Student, maker: BatchMaker, frames: Sequence[int], most: int) -> float:
    """Return the mean loss of an utterance, without augmentation or dropout, in the widest context of training.

    All ranks call this, and take batches in turn; replicas that are apart each judge their own part.

    Args:
        student: whose model is judged: its average where there is one.
        maker: of the utterances' batches.
        frames: of each utterance.
        most: frames of a batch, padding included.
    """
    model = student.published
    total = torch.zeros(2, dtype=torch.float64)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), student.precision.autocast():
        for indices in _batches(frames, most)[student.rank :: student.ranks]:
            batch = maker.make(indices, None).to(student.device)
            total += torch.tensor([float(model(*batch.tensors).total) * len(indices), len(indices)])
    model.train(was_training)
    if student.ranks > 1:
        total = total.to(student.device)
        dist.all_reduce(total)
    loss, count = total.tolist()
    return loss / count


def _batches(frames: Sequence[int], most: int) -> list[np.ndarray]:
    """Cut utterances, by falling length, into batches of no more than ``most`` padded frames."""
    order, batches, first = np.argsort(-np.asarray(frames), kind="stable"), [], 0
    while first < len(order):
        count = max(1, most // max(1, frames[order[first]]))
        batches.append(order[first : first + count])
        first += count
    return batches
