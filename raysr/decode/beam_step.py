"""One frame of the CTC prefix beam search: what becomes of every kept prefix, all of them at once.

A prefix stays (it takes a blank, or repeats its last token) or is extended by a token. Where an extension
is a prefix that is kept anyway, the two are merged; the parent's hash that every prefix carries finds them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raysr.decode.beam_state import Floats, Integers, Prefixes, extend_hash
from raysr.decode.hypothesis import BLANK


@dataclass(slots=True)
class Origins:
    """What an extension continues, of every prefix (B, beam): all alignments, the best one, its node."""

    total: Floats
    best: Floats
    node: Integers

    @classmethod
    def of(cls, p: Prefixes) -> "Origins":
        """Take both kinds of alignments together, as for a token that differs from the last."""
        on_blank = p.best_blank >= p.best_nonblank
        return cls(
            total=p.total(),
            best=np.where(on_blank, p.best_blank, p.best_nonblank),
            node=np.where(on_blank, p.node_blank, p.node_nonblank),
        )

    def pick(self, p: Prefixes, places: Integers, repeats: NDArray[np.bool_]) -> "Origins":
        """Return the origins at ``places``; a token that repeats the last one must follow a blank."""
        blank = (p.blank, p.best_blank, p.node_blank)
        both = (self.total, self.best, self.node)
        picked = (
            np.where(repeats, b.reshape(-1)[places], a.reshape(-1)[places])
            for b, a in zip(blank, both, strict=True)
        )
        return Origins(*picked)


@dataclass(slots=True)
class Merges:
    """The extensions that are prefixes kept anyway: utterance, place of the parent, own place (each (N,))."""

    row: Integers
    parent: Integers
    child: Integers


def stay(p: Prefixes, lp: Floats) -> tuple[Prefixes, NDArray[np.bool_]]:
    """Let every prefix take a blank or repeat its last token.

    Args:
        p: the prefixes (B, beam).
        lp: log-posteriors of the frame (B, V).

    Returns the prefixes, and which of them have a new peak for their last token (B, beam).
    """
    blank, last = lp[:, BLANK, None], np.take_along_axis(lp, p.last, axis=1)
    origins = Origins.of(p)
    best_nonblank = p.best_nonblank + last
    higher = (last > p.peak) & np.isfinite(best_nonblank)
    stayed = replace(
        p,
        blank=origins.total + blank,
        nonblank=p.nonblank + last,
        best_blank=origins.best + blank,
        best_nonblank=best_nonblank,
        node_blank=origins.node,
        peak=np.where(higher, last, p.peak),
    )
    return stayed, higher


def merge(p: Prefixes, stayed: Prefixes, lp: Floats) -> tuple[Merges, NDArray[np.bool_]]:
    """Add to ``stayed`` what reaches each prefix from its parent, where the parent is kept too.

    Returns the extensions used up so, and which best alignments now come from the parent (B, beam).
    """
    batch, beam = p.last.shape
    is_parent = p.parent[:, :, None] == p.hash[:, None, :]  # (B, child, parent)
    row, child, parent = np.nonzero(is_parent)
    rerouted = np.zeros((batch, beam), bool)
    if len(row):
        last = p.last[row, child]
        origin = Origins.of(p).pick(p, row * beam + parent, p.last[row, parent] == last)
        token_lp = lp[row, last]
        stayed.nonblank[row, child] = np.logaddexp(stayed.nonblank[row, child], origin.total + token_lp)
        better = origin.best + token_lp > stayed.best_nonblank[row, child]
        at = (row[better], child[better])
        stayed.best_nonblank[at] = (origin.best + token_lp)[better]
        stayed.peak[at] = token_lp[better]
        stayed.before = stayed.before.copy()
        stayed.before[at] = origin.node[better]
        rerouted[at] = True
    return Merges(row, parent, child), rerouted


def extensions(p: Prefixes, merges: Merges, lp: Floats, tokens: Integers) -> Floats:
    """Return the log-probability (B, beam, M) of every prefix extended by each of ``tokens`` (B, M).

    It is ``-inf`` for extensions that were merged.
    """
    batch, beam = p.last.shape
    count = tokens.shape[1]
    extended = np.empty((batch, beam, count + 1))  # one column more, for the tokens left out
    extended[:, :, :count] = p.total()[:, :, None] + np.take_along_axis(lp, tokens, axis=1)[:, None, :]
    column = np.full(lp.shape, count)
    np.put_along_axis(column, tokens, np.arange(count)[None, :], axis=1)
    own = np.take_along_axis(column, p.last, axis=1)  # (B, beam)
    repeated = p.blank + np.take_along_axis(lp, p.last, axis=1)
    np.put_along_axis(extended, own[:, :, None], repeated[:, :, None], axis=2)
    extended[merges.row, merges.parent, own[merges.row, merges.child]] = -np.inf
    return extended[:, :, :count]


@dataclass(slots=True)
class Choice:
    """What is kept (B, beam), best first.

    Attributes:
        possible: false where there were not enough candidates to fill the beam.
        extends: whether it is an extension.
        source: the place of the prefix that stays or is extended.
        column: of the token that extends it.
    """

    possible: NDArray[np.bool_]
    extends: NDArray[np.bool_]
    source: Integers
    column: Integers


def choose(stay_scores: Floats, extension_scores: Floats) -> Choice:
    """Return the best of prefixes that stay (B, beam) and extensions (B, beam, M)."""
    batch, beam, count = extension_scores.shape
    scores = np.concatenate([stay_scores, extension_scores.reshape(batch, -1)], axis=1)
    kept = np.argpartition(scores, -beam, axis=1)[:, -beam:]
    order = np.argsort(-np.take_along_axis(scores, kept, axis=1), axis=1, kind="stable")
    kept = np.take_along_axis(kept, order, axis=1)
    possible = np.isfinite(np.take_along_axis(scores, kept, axis=1))
    extends = kept >= beam
    source, column = np.divmod(np.where(extends, kept - beam, kept * count), count)
    return Choice(possible, extends, source, column)


def follow(
    p: Prefixes,
    stayed: Prefixes,
    renewed: NDArray[np.bool_],
    choice: Choice,
    lp: Floats,
    tokens: Integers,
    times: Integers,
) -> Prefixes:
    """Return the chosen prefixes; the language model's part is left to the caller.

    Args:
        p: the prefixes before the frame.
        stayed: those that stayed, merges included.
        renewed: which of ``stayed`` need a new node for their last token.
        choice: what is kept.
        lp: log-posteriors of the frame (B, V).
        tokens: the token of each column of the extensions (B, M).
        times: the number of the frame in its utterance (B,).
    """
    batch, beam = p.last.shape
    places = choice.source + np.arange(batch)[:, None] * beam
    token = np.take_along_axis(tokens, choice.column, axis=1)
    token_lp = np.take_along_axis(lp, token, axis=1)
    kept, extends = stayed.pick(places), choice.extends
    origin = Origins.of(p).pick(p, places, p.last.reshape(-1)[places] == token)
    old_hash = kept.hash
    created = times[:, None] * beam + np.arange(beam) + 1
    kept.blank = np.where(extends, -np.inf, kept.blank)
    kept.nonblank = np.where(extends, origin.total + token_lp, kept.nonblank)
    kept.best_blank = np.where(extends, -np.inf, kept.best_blank)
    kept.best_nonblank = np.where(extends, origin.best + token_lp, kept.best_nonblank)
    kept.peak = np.where(extends, token_lp, kept.peak)
    kept.before = np.where(extends, origin.node, kept.before)
    kept.node_nonblank = np.where(extends | renewed.reshape(-1)[places], created, kept.node_nonblank)
    kept.last = np.where(extends, token, kept.last)
    kept.length = kept.length + extends
    kept.hash = np.where(extends, extend_hash(old_hash, token), old_hash)
    kept.parent = np.where(extends, old_hash, kept.parent)
    kept.forget(~choice.possible)
    return kept
