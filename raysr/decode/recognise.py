"""Recognising whole utterances in batches, and long recordings segment by segment."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysr.decode.bias import ContextBias, bias_of
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.greedy import greedy
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.language_model import LanguageModel
from raysr.decode.lm_pass import PassBeam
from raysr.decode.one_pass import ONE_PASS, one_pass
from raysr.decode.rescore import rescore
from raysr.decode.segments import Event, SegmentDecoder, check_phrases
from raysr.errors import ConfigError
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser

__all__ = ["DecodeConfig", "recognise", "recognise_masked", "recognise_with_greedy"]


def recognise(
    model: AsrModel,
    tokeniser: Tokeniser,
    features: Sequence[Tensor],
    config: DecodeConfig,
    lm: LanguageModel | None = None,
    chunk_size: int = -1,
    left_chunks: int = -1,
    lookahead: int = 0,
    phrases: Sequence[Mapping[str, float]] | None = None,
) -> list[list[Hypothesis]]:
    """Return the n-best hypotheses, best first, of every utterance.

    Args:
        model: the recogniser, on any device.
        tokeniser: that of the model.
        features: raw fbank (T, mel_bins) of each utterance; one too short for a frame is taken for silence.
        config: the method and its options.
        lm: a language model for every method but ``greedy``.
        chunk_size, left_chunks, lookahead: as of :meth:`AsrModel.encode`; full context by default.
        phrases: of each utterance the phrases that are expected in it, and their boosts: see
            :func:`raysr.decode.bias.bias_of`.

    Raises :class:`ConfigError` when model, tokeniser and language model do not belong together, and for phrases
    that cannot be boosted.
    """
    _check_vocabulary(model, tokeniser, lm)
    check_phrases(phrases or [], config)
    found: dict[int, list[Hypothesis]] = {}
    with _evaluating(model):
        for indices in batches_of_like_length([len(f) for f in features], config):
            out, lengths = _encode(model, [features[i] for i in indices], chunk_size, left_chunks, lookahead)
            bias = bias_of([phrases[i] for i in indices], tokeniser) if phrases else None
            found.update(zip(indices, _search(model, out, lengths, config, lm, bias), strict=True))
    return [found[i] for i in range(len(features))]


def recognise_with_greedy(
    model: AsrModel,
    tokeniser: Tokeniser,
    features: Sequence[Tensor],
    config: DecodeConfig,
    lm: LanguageModel | None = None,
) -> list[tuple[list[Hypothesis], Hypothesis | None]]:
    """Return what :func:`recognise` does, each with the greedy CTC reading of the same pass of the encoder.

    The second is None of a model without a CTC head.
    """
    _check_vocabulary(model, tokeniser, lm)
    found: dict[int, tuple[list[Hypothesis], Hypothesis | None]] = {}
    with _evaluating(model):
        for indices in batches_of_like_length([len(f) for f in features], config):
            out, lengths = _encode(model, [features[i] for i in indices], -1, -1, 0)
            log_probs = None if model.ctc is None else model.ctc_log_probs(out)
            nbest = _search(model, out, lengths, config, lm, None, log_probs)
            read = [None] * len(indices) if log_probs is None else greedy(log_probs, lengths)
            found.update(zip(indices, zip(nbest, read, strict=True), strict=True))
    return [found[i] for i in range(len(features))]


def recognise_masked(
    model: AsrModel,
    tokeniser: Tokeniser,
    lm: LanguageModel | None,
    features: Tensor,
    chunk_size: int,
    left_chunks: int,
    lookahead: int,
    config: DecodeConfig,
    phrases: Mapping[str, float] | None = None,
) -> list[Event]:
    """Return the events of a recording (T, mel_bins) whose encoder is masked as streaming would see it.

    The encoder runs once over everything; segments are then cut and decoded as in a stream, so that the
    finals equal those of a session that was fed the same audio.
    """
    _check_vocabulary(model, tokeniser, lm)
    with _evaluating(model):
        out, lengths = _encode(model, [features], chunk_size, left_chunks, lookahead)
        decoder = SegmentDecoder(model, config, lm, tokeniser, phrases)
        return [*decoder.push(out[0, : int(lengths[0])]), *decoder.finish()]


def _search(
    model: AsrModel,
    out: Tensor,
    lengths: Tensor,
    config: DecodeConfig,
    lm: LanguageModel | None,
    bias: ContextBias | None,
    log_probs: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Return the n-best hypotheses of a batch of encoder output (B, T', D); ``log_probs`` are CTC's of it."""
    if config.method in ONE_PASS:
        return one_pass(model, out, lengths, config, lm, bias)
    log_probs = model.ctc_log_probs(out) if log_probs is None else log_probs
    if config.method == "greedy":
        return [[h] for h in greedy(log_probs, lengths)]
    nbest = PassBeam(config, lm, bias).decode(log_probs, lengths, config.nbest)
    return rescore(model, out, lengths, nbest, config) if config.method == "rescore" else nbest


def _check_vocabulary(model: AsrModel, tokeniser: Tokeniser, lm: LanguageModel | None) -> None:
    sizes = {"model": model.vocab_size, "tokeniser": tokeniser.vocab_size}
    if lm is not None:
        sizes["language model"] = lm.vocab_size
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ConfigError(f"vocabularies differ in size ({told}); use those of one and the same pool entry")


def _encode(
    model: AsrModel, features: Sequence[Tensor], chunk_size: int, left_chunks: int, lookahead: int
) -> tuple[Tensor, Tensor]:
    """Return encoder output (B, T', D) and its lengths (B,) of a batch."""
    device = next(model.parameters()).device
    lengths = torch.tensor([len(f) for f in features], device=device)
    padded = pad_sequence(list(features), batch_first=True).to(device)
    return model.encode(padded, lengths, chunk_size, left_chunks, lookahead)


def batches_of_like_length(lengths: Sequence[int], config: DecodeConfig) -> Iterator[list[int]]:
    """Group indices of like length, the longest first, so that a batch too large fails at once."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (len(batch) == config.batch_size or (len(batch) + 1) * longest > config.batch_frames):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@contextmanager
def _evaluating(model: AsrModel) -> Iterator[None]:
    """Switch dropout and gradients off, and leave the model as it was."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
