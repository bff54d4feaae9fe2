"""One frame of the CTC prefix beam search of one utterance, compiled.

A prefix stays (it takes a blank, or repeats its last token) or is extended by a token. Where an extension is a prefix
that is kept anyway, the two are merged; the parent's hash that every prefix carries finds them. An extension is scored
by the language model only if it could be kept were the model certain of it.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysr.decode.backoff import Integers, Records, walk
from raysr.decode.beam_places import rank
from raysr.decode.beam_records import ANSWERED, NGRAM, Scratch, Settings
from raysr.decode.bias import in_phrase
from raysr.decode.compiled import compiled
from raysr.decode.hypothesis import BLANK

_SPREAD, _STIR = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xBF58476D1CE4E5B9)
_HALF, _ODD = np.uint64(32), np.uint64(29)


@compiled
def read(
    prefixes: Records,
    alive: Integers,
    frames_read: Integers,
    nodes: Records,
    log_probs: NDArray[np.float32],
    lengths: Integers,
    settings: Settings,
    room: Scratch,
) -> None:
    """Read all frames of a batch in place: log-posteriors (B, T, V), of which ``lengths`` (B,) are valid.

    The first four are those of :class:`raysr.decode.beam_state.BeamState`.
    """
    nothing = np.zeros((0, 0), np.float32)
    for b in range(len(lengths)):
        for t in range(lengths[b]):
            time = frames_read[b]
            if log_probs[b, t, BLANK] <= settings.skip_above:
                likely(log_probs[b, t], room.tokens)
            alive[b] = step(
                prefixes[b], alive[b], nodes[b, time], log_probs[b, t], time, nothing, settings, room
            )
            frames_read[b] += 1


@compiled
def read_frame(
    prefixes: Records,
    alive: Integers,
    frames_read: Integers,
    nodes: Records,
    frame: NDArray[np.float32],
    rows: Integers,
    tokens: Integers,
    answers: NDArray[np.float32],
    settings: Settings,
    room: Scratch,
) -> NDArray[np.bool_]:
    """Read one frame (B, V) of the utterances ``rows`` (R,) in place.

    Args:
        prefixes, alive, frames_read, nodes: see :class:`raysr.decode.beam_state.BeamState`.
        frame: log-posteriors.
        rows: see there.
        tokens: those that may extend the prefixes of each row (R, M).
        answers: the language model's log-probabilities of the tokens, for every kept prefix of the rows whose blank
            does not make them skip the frame, one row after the other (N, M).
        settings: see there.
        room: see there.

    Returns which prefixes were extended (B, beam): the caller advances their language-model states.
    """
    extended = np.zeros(prefixes.shape, np.bool_)
    begin = 0
    for row in range(len(rows)):
        b, end = rows[row], begin
        if frame[b, BLANK] <= settings.skip_above:
            end = begin + alive[b]
        room.tokens[:] = tokens[row]
        time = frames_read[b]
        alive[b] = step(
            prefixes[b], alive[b], nodes[b, time], frame[b], time, answers[begin:end], settings, room
        )
        for k in range(alive[b]):
            extended[b, k] = room.ranked[k].column >= 0
        frames_read[b] += 1
        begin = end
    return extended


@compiled
def likely_all(frames: NDArray[np.float32], count: int) -> Integers:
    """Return the ``count`` most probable tokens of frames (R, V), the best one first."""
    tokens = np.empty((len(frames), count), np.int64)
    for row in range(len(frames)):
        likely(frames[row], tokens[row])
    return tokens


@compiled
def likely(frame: NDArray[np.float32], tokens: Integers) -> None:
    """Put the most probable tokens of a frame (V,) into ``tokens`` (M,), the best one first."""
    count = 0
    for token in range(1, len(frame)):
        if count < len(tokens):
            place = count
            count += 1
        elif frame[token] > frame[tokens[count - 1]]:
            place = count - 1
        else:
            continue
        while place > 0 and frame[tokens[place - 1]] < frame[token]:
            tokens[place] = tokens[place - 1]
            place -= 1
        tokens[place] = token


@compiled
def step(
    prefixes: Records,
    alive: int,
    nodes: Records,
    frame: NDArray[np.float32],
    time: int,
    answers: NDArray[np.float32],
    settings: Settings,
    room: Scratch,
) -> int:
    """Read one frame in place; return how many prefixes are kept now.

    Args:
        prefixes: of the utterance (beam,).
        alive: how many of them there are.
        nodes: those of this frame (beam,).
        frame: log-posteriors (V,).
        time: the number of the frame.
        answers: the language model's log-probabilities of the tokens after each prefix (alive, M), if it is
            ``ANSWERED``; the state of a prefix that is extended then stays as it was.
        settings: see there.
        room: with the tokens that may extend a prefix.
    """
    _stay(prefixes, alive, frame, room.work, room.stayed)
    if frame[BLANK] > settings.skip_above:
        count = alive
        for k in range(alive):
            room.ranked[k].source, room.ranked[k].column = k, -1
    else:
        _merge(prefixes, alive, frame, room.work, room.stayed)
        count = _choose(prefixes, alive, frame, answers, settings, room)
    _follow(prefixes, count, nodes, frame, time, room)
    return count


@compiled
def _stay(prefixes: Records, alive: int, frame: NDArray[np.float32], work: Records, stayed: Records) -> None:
    """Let every prefix take a blank or repeat its last token."""
    for k in range(alive):
        p, w, s = prefixes[k], work[k], stayed[k]
        on_blank = p.best_blank >= p.best_nonblank
        w.total = _logaddexp(p.blank, p.nonblank)
        w.best = p.best_blank if on_blank else p.best_nonblank
        w.node = p.node_blank if on_blank else p.node_nonblank
        repeated = frame[p.last]
        stayed[k] = p
        s.blank = w.total + frame[BLANK]
        s.best_blank = w.best + frame[BLANK]
        s.node_blank = w.node
        s.nonblank += repeated
        s.best_nonblank += repeated
        w.renewed = repeated > p.peak and s.best_nonblank > -np.inf
        if w.renewed:
            s.peak = repeated


@compiled
def _merge(prefixes: Records, alive: int, frame: NDArray[np.float32], work: Records, stayed: Records) -> None:
    """Add what reaches each prefix from its parent, where the parent is kept too."""
    for k in range(alive):
        w, s, token = work[k], stayed[k], prefixes[k].last
        w.parent = -1
        for q in range(alive):
            if prefixes[q].hash == prefixes[k].parent:
                w.parent = q
        if w.parent < 0:
            continue
        total, best, node = _origin(prefixes[w.parent], work[w.parent], token)
        s.nonblank = _logaddexp(s.nonblank, total + frame[token])
        if best + frame[token] > s.best_nonblank:
            s.best_nonblank = best + frame[token]
            s.peak = frame[token]
            s.before = node
            w.renewed = True


@compiled
def _choose(
    prefixes: Records,
    alive: int,
    frame: NDArray[np.float32],
    answers: NDArray[np.float32],
    settings: Settings,
    room: Scratch,
) -> int:
    """Rank the prefixes that stay and all their extensions; return how many are kept.

    What a prefix holds of a phrase that is not complete does not count for the first ``beam`` places: see
    :mod:`raysr.decode.beam_places`.
    """
    work, stayed, ranked, tokens, merged = room.work, room.stayed, room.ranked, room.tokens, room.merged
    offered, candidate = room.offered, room.offered[0]
    advance = settings.phrases.advance
    ngram_states, ngram_arcs = settings.ngram.states, settings.ngram.arcs
    phrase_states, phrase_arcs = settings.phrases.automaton.states, settings.phrases.automaton.arcs
    reward, begins_word = settings.phrases.reward, settings.phrases.begins_word
    depth = settings.phrases.depth
    count = 0
    for k in range(alive):
        p = prefixes[k]
        candidate.score = _logaddexp(stayed[k].blank, stayed[k].nonblank) + _extras(p, settings)
        candidate.rank = candidate.score - advance[p.bias_state] - p.owed
        candidate.source, candidate.column = k, -1
        count = rank(ranked, count, room.beam, offered)
    for k in range(alive):
        p, total = prefixes[k], work[k].total
        extras = _extras(p, settings) + settings.length_bonus
        _mark(prefixes, alive, k, work, merged, True)
        for column in range(len(tokens)):
            token = tokens[column]
            score = (p.blank if token == p.last else total) + frame[token] + extras
            worst = -np.inf
            if count == len(ranked):
                worst = min(ranked[room.beam - 1].rank, ranked[count - 1].rank)
            if merged[token] or score + settings.phrases.most <= worst:
                continue
            lm, lm_state, bias, bias_state, owed = 0.0, p.lm_state, 0.0, p.bias_state, 0.0
            if settings.lm == NGRAM:
                lm, lm_state = walk(ngram_states, ngram_arcs, p.lm_state, token)
            elif settings.lm == ANSWERED:
                lm = np.float64(answers[k, column])
            if settings.phrases.most > 0:
                repaid = -settings.phrase_lm_share * settings.lm_weight * lm
                bias, bias_state, owed = in_phrase(
                    p, token, repaid, phrase_states, phrase_arcs, reward, depth, begins_word
                )
            score += settings.lm_weight * lm + bias
            if score > worst:
                candidate.score, candidate.rank = score, score - advance[bias_state] - owed
                candidate.source, candidate.column = k, column
                candidate.lm, candidate.lm_state = p.lm + lm, lm_state
                candidate.bias, candidate.bias_state = p.bias + bias, bias_state
                candidate.owed = owed
                count = rank(ranked, count, room.beam, offered)
        _mark(prefixes, alive, k, work, merged, False)
    return count


@compiled
def _follow(
    prefixes: Records, count: int, nodes: Records, frame: NDArray[np.float32], time: int, room: Scratch
) -> None:
    """Put the chosen prefixes in place of the former ones, and what their tracebacks need into ``nodes``."""
    work, stayed, following, tokens = room.work, room.stayed, room.following, room.tokens
    for i in range(count):
        candidate, kept = room.ranked[i], following[i]
        k = candidate.source
        following[i] = stayed[k]
        renewed = work[k].renewed
        if candidate.column >= 0:
            token = tokens[candidate.column]
            total, best, node = _origin(prefixes[k], work[k], token)
            kept.blank = -np.inf
            kept.nonblank = total + frame[token]
            kept.best_blank = -np.inf
            kept.best_nonblank = best + frame[token]
            kept.peak, kept.before = frame[token], node
            kept.lm, kept.lm_state = candidate.lm, candidate.lm_state
            kept.bias, kept.bias_state = candidate.bias, candidate.bias_state
            kept.owed = candidate.owed
            kept.parent = stayed[k].hash
            kept.hash = _extend_hash(stayed[k].hash, token)
            kept.last = token
            kept.length += 1
            renewed = True
        if renewed:
            nodes[i].token, nodes[i].parent, nodes[i].peak = kept.last, kept.before, kept.peak
            kept.node_nonblank = time * len(prefixes) + i + 1
    for i in range(count):
        prefixes[i] = following[i]


@compiled
def _origin(p: Any, work: Any, token: int) -> tuple[float, float, int]:
    """Return what ``token`` continues of a prefix: all alignments, the best one, its node.

    A token that repeats the last one must follow a blank.
    """
    if p.last == token:
        return p.blank, p.best_blank, int(p.node_blank)
    return work.total, work.best, work.node


@compiled
def _mark(
    prefixes: Records, alive: int, k: int, work: Records, merged: NDArray[np.bool_], mark: bool
) -> None:
    """Mark the tokens that extend prefix k to one that is kept anyway."""
    for child in range(alive):
        if work[child].parent == k:
            merged[prefixes[child].last] = mark


@compiled
def _extras(p: Any, settings: Settings) -> float:
    """Return what a prefix is worth beside its CTC log-probability."""
    return settings.lm_weight * p.lm + p.bias + settings.length_bonus * p.length


@compiled
def _extend_hash(hash_: np.uint64, token: int) -> np.uint64:
    """Return the hash of a prefix after one more token."""
    mixed = (hash_ + np.uint64(token)) * _SPREAD
    mixed = (mixed ^ (mixed >> _HALF)) * _STIR
    return mixed ^ (mixed >> _ODD)


@compiled
def _logaddexp(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))
