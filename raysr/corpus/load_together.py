"""Pieces of one recording loaded in one pass: most formats are decoded from their beginning, whatever is wanted."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from raysr.audio.files import SAMPLE_RATE, decode_blocks
from raysr.audio.mix import apply_mix
from raysr.corpus.load import encoded, load_waveform
from raysr.corpus.utterance import Utterance

WIDEST_GAP_S = 60.0


def neighbours(utterances: Sequence[Utterance]) -> Iterator[list[int]]:
    """Yield positions that are best loaded together: pieces of one recording with no wide gap between them."""
    order = sorted(range(len(utterances)), key=lambda n: _place(utterances[n]))
    group: list[int] = []
    end = 0.0
    for n in order:
        utterance = utterances[n]
        if group and (
            _place(utterances[group[-1]])[:2] != _place(utterance)[:2] or utterance.start > end + WIDEST_GAP_S
        ):
            yield group
            group, end = [], 0.0
        group.append(n)
        end = max(end, utterance.start + utterance.duration)
    if group:
        yield group


def load_together(utterances: Sequence[Utterance]) -> list[np.ndarray | Exception]:
    """Return the waveform of each piece of one recording, as :func:`load_waveform` gives it, or its error.

    A recording that breaks off is loaded piece by piece, so that what lies before the break can still be had.
    """
    pieces: list[np.ndarray | None] = [None] * len(utterances)
    if len(utterances) > 1:
        with suppress(Exception):
            pieces = _one_pass(utterances)
    return [
        _alone(utterance) if piece is None else piece
        for utterance, piece in zip(utterances, pieces, strict=True)
    ]


def _one_pass(utterances: Sequence[Utterance]) -> list[np.ndarray | None]:
    """Return the waveforms of all pieces that are whole, decoding from the first one's start to the last one's end."""
    spans = [(round(u.start * SAMPLE_RATE), max(1, round(u.duration * SAMPLE_RATE))) for u in utterances]
    start = min(u.start for u in utterances)
    first, last = round(start * SAMPLE_RATE), max(begin + count for begin, count in spans)
    samples = [np.empty(count, np.float32) for _, count in spans]
    position = first
    for block in decode_blocks(
        encoded(utterances[0]),
        start=start,
        duration=(last - first) / SAMPLE_RATE,
        name=utterances[0].audio,
    ):
        for (begin, count), piece in zip(spans, samples, strict=True):
            low, high = max(begin, position), min(begin + count, position + len(block))
            if low < high:
                piece[low - begin : high - begin] = block[low - position : high - position]
        position += len(block)
    return [
        (piece if u.mix is None else apply_mix(piece, u.mix)) if begin + count <= position else None
        for u, (begin, count), piece in zip(utterances, spans, samples, strict=True)
    ]


def _alone(utterance: Utterance) -> np.ndarray | Exception:
    try:
        return load_waveform(utterance)
    except Exception as error:
        # Decoders may raise anything on damaged bytes; it costs this piece and no other.
        return error


def _place(utterance: Utterance) -> tuple[str, int, float]:
    return utterance.audio, -1 if utterance.row is None else utterance.row, utterance.start
