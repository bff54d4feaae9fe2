"""CTC greedy decoding: the best token of every frame, repeats folded, blanks dropped (Graves et al. 2006)."""

import numpy as np
from torch import Tensor

from raysr.decode.hypothesis import BLANK, Hypothesis


def greedy(log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """Return for every utterance the tokens of its single best alignment.

    Args:
        log_probs: natural-log CTC posteriors (B, T, V), column 0 the blank.
        lengths: valid frames of each utterance (B,).

    The score of a hypothesis is that of the one alignment, not of all alignments of its tokens.
    """
    best_values, best_tokens = log_probs.detach().max(dim=-1)  # (B, T)
    values, tokens = best_values.cpu().numpy(), best_tokens.cpu().numpy()
    return [_fold(v[:n], t[:n]) for v, t, n in zip(values, tokens, lengths.tolist(), strict=True)]


def _fold(values: np.ndarray, tokens: np.ndarray) -> Hypothesis:
    """Fold one utterance's best token a frame (T,) into a hypothesis."""
    score = float(values.sum(dtype=np.float64))
    starts = np.flatnonzero(np.diff(tokens, prepend=BLANK - 1))
    ends = np.flatnonzero(np.diff(tokens, append=BLANK - 1)) + 1
    runs = [(s, e) for s, e in zip(starts, ends, strict=True) if tokens[s] != BLANK]
    peaks = [int(s + values[s:e].argmax()) for s, e in runs]
    return Hypothesis(
        tokens=tuple(int(tokens[peak]) for peak in peaks),
        score=score,
        ctc=score,
        lm=0.0,
        attention=None,
        times=tuple(peaks),
        confidences=tuple(float(np.exp(values[peak])) for peak in peaks),
    )
