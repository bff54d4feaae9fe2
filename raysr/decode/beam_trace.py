"""Tracing kept prefixes of the beam back to their tokens, compiled: each partial text of a stream asks for all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysr.decode.backoff import Integers, Records
from raysr.decode.compiled import compiled


@compiled
def traced(p: Any, nodes: Records) -> tuple[Integers, Integers, NDArray[np.float32]]:
    """Return the tokens (n,) of a prefix, their frames and their log-posteriors, all on its best alignment.

    Args:
        p: a record of :data:`raysr.decode.beam_records.PREFIX`.
        nodes: tracebacks of its utterance (frames, beam).
    """
    beam = nodes.shape[1]
    last = p.node_blank if p.best_blank >= p.best_nonblank else p.node_nonblank
    count, node = 0, last
    while node > 0:
        count += 1
        node = nodes[(node - 1) // beam, (node - 1) % beam].parent
    tokens, times = np.empty(count, np.int64), np.empty(count, np.int64)
    peaks = np.empty(count, np.float32)
    node = last
    for place in range(count - 1, -1, -1):
        time = (node - 1) // beam
        record = nodes[time, (node - 1) % beam]
        tokens[place], times[place], peaks[place] = record.token, time, record.peak
        node = record.parent
    return tokens, times, peaks


@compiled
def shared(prefixes: Records, nodes: Records) -> Integers:
    """Return the tokens that prefixes (n,), at least one, all begin with."""
    tokens = traced(prefixes[0], nodes)[0]
    count = len(tokens)
    for k in range(1, len(prefixes)):
        count = _agreeing(tokens[:count], traced(prefixes[k], nodes)[0])
    return tokens[:count]


@compiled
def beginning_with(prefixes: Records, nodes: Records, tokens: Integers) -> NDArray[np.bool_]:
    """Return which prefixes (n,) begin with the tokens."""
    found = np.empty(len(prefixes), np.bool_)
    for k in range(len(prefixes)):
        found[k] = _agreeing(tokens, traced(prefixes[k], nodes)[0]) == len(tokens)
    return found


@compiled
def _agreeing(tokens: Integers, others: Integers) -> int:
    """Return how many tokens both begin with."""
    count = min(len(tokens), len(others))
    for place in range(count):
        if tokens[place] != others[place]:
            return place
    return count
