"""Forced alignment: the most probable CTC path of given tokens (Viterbi; Kürzinger et al. 2020, section 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysr.decode.hypothesis import BLANK

NOWHERE = float("-inf")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where each of the tokens lies on their best path; frames count from 0.

    Attributes:
        log_prob: of the one path, blanks included.
        first, last: the first and the last frame that each token takes.
        peaks: the frame among these in which its posterior is highest, the earliest of equals.
        confidences: the posterior there, in [0, 1].
    """

    log_prob: float
    first: tuple[int, ...]
    last: tuple[int, ...]
    peaks: tuple[int, ...]
    confidences: tuple[float, ...]


def align(
    log_probs: Tensor, lengths: Tensor, tokens: Sequence[Sequence[Sequence[int]]]
) -> list[list[Alignment | None]]:
    """Align every token sequence of every utterance, all at once.

    Args:
        log_probs: natural-log CTC posteriors (B, T, V) on any device, column 0 the blank.
        lengths: valid frames of each utterance (B,).
        tokens: for each of the B utterances any number of sequences, without blanks; one may be empty.

    Returns an alignment for each sequence, in their order. It is None where there is no path: where the frames are
    fewer than the tokens and the blanks between equal ones (:func:`raysr.model.ctc.frames_needed`), or where every
    path has probability 0.

    Raises:
        ValueError: a token is the blank or outside the vocabulary.
    """
    _check_tokens(tokens, log_probs.shape[2])
    most = max(map(len, tokens), default=0)
    if most == 0:
        return [[] for _ in tokens]
    rows = [torch.tensor(list(s), dtype=torch.long) for n in tokens for s in [*n, *[()] * (most - len(n))]]
    token_lengths = torch.tensor([len(row) for row in rows], device=log_probs.device)  # (R,), R = B · most
    padded = pad_sequence(rows, batch_first=True, padding_value=BLANK).to(log_probs.device)  # (R, U)
    frames = log_probs.detach().to(torch.promote_types(log_probs.dtype, torch.float32))
    row_lengths = lengths.to(log_probs.device).repeat_interleave(most)  # (R,)
    scores, path = _best_paths(frames, row_lengths, padded, token_lengths)
    spans = _spans(frames, row_lengths, padded, path)
    columns = [values.tolist() for values in (scores, token_lengths, *spans)]
    found = [_alignment(*row) for row in zip(*columns, strict=True)]
    return [found[b * most : b * most + len(n)] for b, n in enumerate(tokens)]


def _check_tokens(tokens: Sequence[Sequence[Sequence[int]]], vocab_size: int) -> None:
    for utterance, sequences in enumerate(tokens):
        for token in (token for sequence in sequences for token in sequence):
            if not BLANK < token < vocab_size:
                raise ValueError(
                    f"utterance {utterance}: {token} is no token to align; tokens are 1 to {vocab_size - 1}"
                )


def _best_paths(
    frames: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the best path's log-probability (R,) and its state in every frame (R, T).

    State 2u + 1 is token u; even states are the blanks around them, S = 2U + 1 in all.
    """
    batch, longest, _ = frames.shape
    rows, most = tokens.shape
    labels = tokens.new_full((rows, 2 * most + 1), BLANK)
    labels[:, 1::2] = tokens
    may_skip = torch.zeros_like(labels, dtype=torch.bool)  # the blank before a token, unless it repeats
    may_skip[:, 3::2] = tokens[:, 1:] != tokens[:, :-1]
    score = frames.new_full(labels.shape, NOWHERE)
    score[:, 0] = 0.0  # before the first frame: the blank ahead of all tokens, not yet emitted
    steps = torch.zeros((longest, *labels.shape), dtype=torch.uint8, device=frames.device)  # (T, R, S)
    for t in range(longest):
        step, skip = _shifted(score, 1), _shifted(score, 2).masked_fill(~may_skip, NOWHERE)
        best = torch.maximum(score, step)
        steps[t] = torch.where(skip > best, 2, (step > score).to(torch.uint8))
        emitted = frames[:, t].gather(1, labels.view(batch, -1)).view(labels.shape)  # (R, S)
        score = torch.where((t < lengths).unsqueeze(1), torch.maximum(best, skip) + emitted, score)
    ends = (2 * token_lengths).unsqueeze(1)  # (R, 1): the last blank; the last token is before it
    on_blank, on_token = score.gather(1, ends), score.gather(1, (ends - 1).clamp(min=0))
    state = torch.where(on_token > on_blank, ends - 1, ends)
    path = torch.empty((rows, longest), dtype=torch.long, device=frames.device)
    for t in range(longest - 1, -1, -1):
        path[:, t : t + 1] = state
        state = torch.where((t < lengths).unsqueeze(1), state - steps[t].gather(1, state), state)
    return torch.maximum(on_blank, on_token).squeeze(1), path


def _shifted(score: Tensor, states: int) -> Tensor:
    """Return what the state ``states`` before each has (R, S)."""
    return torch.nn.functional.pad(score, (states, 0), value=NOWHERE)[:, : score.shape[1]]


class _Spans(NamedTuple):
    """Of every token of every row (R, U): frames, and the posterior at the peak."""

    first: Tensor
    last: Tensor
    peaks: Tensor
    confidences: Tensor


def _spans(frames: Tensor, lengths: Tensor, tokens: Tensor, path: Tensor) -> _Spans:
    (rows, longest), most = path.shape, tokens.shape[1]
    times = torch.arange(longest, device=path.device).expand(rows, -1)  # (R, T)
    spoken = (path % 2 == 1) & (times < lengths.unsqueeze(1))
    place = torch.where(spoken, path // 2, most)  # (R, T); blanks are put in a column of their own
    padded = torch.nn.functional.pad(tokens, (0, 1), value=BLANK)
    labels = padded.gather(1, place)  # (R, T)
    by_utterance = labels.view(len(frames), rows // len(frames), longest).transpose(1, 2)  # (B, T, N)
    values = frames.gather(2, by_utterance).transpose(1, 2).reshape(rows, longest)

    def reduce(source: Tensor, how: str, initial: float) -> Tensor:
        found = source.new_full((rows, most + 1), initial)
        return found.scatter_reduce(1, place, source, how)

    highest = reduce(values, "amax", NOWHERE)  # (R, U + 1)
    at_peak = torch.where(values == highest.gather(1, place), times, longest)
    found = (
        reduce(times, "amin", longest),
        reduce(times, "amax", -1),
        reduce(at_peak, "amin", longest),
        highest.exp(),
    )
    return _Spans(*(values[:, :most] for values in found))


def _alignment(
    log_prob: float,
    count: int,
    first: Sequence[int],
    last: Sequence[int],
    peaks: Sequence[int],
    confidences: Sequence[float],
) -> Alignment | None:
    if log_prob == NOWHERE:
        return None
    return Alignment(
        log_prob,
        tuple(first[:count]),
        tuple(last[:count]),
        tuple(peaks[:count]),
        tuple(confidences[:count]),
    )
