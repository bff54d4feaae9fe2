"""The hybrid CTC/attention recogniser (Watanabe et al. 2017): features in, losses and scores out."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raysr.errors import ConfigError
from raysr.model.config import DECODERS, ENCODERS, ModelConfig
from raysr.model.ctc import CtcHead, frames_needed
from raysr.model.decoder import AttentionDecoder
from raysr.model.distillation import Distributions, SequenceLevel, WordLevel
from raysr.model.encoder import Encoder
from raysr.model.losses import reversed_tokens
from raysr.model.mask import Chunk
from raysr.model.teacher_forcing import attention_loss, distributions, token_log_probs

FRAME_SHIFT_MS = 10
FRAME_WINDOW_MS = 25
BY_TOKEN = frozenset(
    {"ctc.linear.weight", "ctc.linear.bias"}
    | {
        f"{decoder}.{parameter}"
        for decoder in ("decoder", "reverse_decoder")
        for parameter in ("embedding.weight", "output.weight", "output.bias")
    }
)
"""The parameters that have a row for every token of the vocabulary; a model need not have all of them."""


class Encoded(NamedTuple):
    """Encoder output (B, T', D) and how many of its frames are valid (B,)."""

    out: Tensor
    lengths: Tensor


class Losses(NamedTuple):
    """Scalars: weighted means over the batch, and how many of its utterances were too short for their tokens."""

    total: Tensor
    ctc: Tensor
    attention: Tensor
    utterances_too_short: Tensor


class Latency(NamedTuple):
    """How long a frame waits for its chunk, from its first sample on; computation comes on top."""

    worst_ms: float
    mean_ms: float


class AsrModel(nn.Module):
    """An encoder with a CTC head and an attention decoder; a head of weight 0 in the loss is not built."""

    cmvn_mean: Tensor
    cmvn_inverse_std: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        dim = config.encoder.dim
        self.register_buffer("cmvn_mean", torch.zeros(config.mel_bins))
        self.register_buffer("cmvn_inverse_std", torch.ones(config.mel_bins))
        self.encoder: Encoder = ENCODERS.resolve(config.encoder.kind)(config.encoder, config.mel_bins)
        self.ctc = CtcHead(dim, vocab_size) if config.ctc_weight > 0 else None
        self.decoder = self._build_decoder(config.decoder.layers)
        self.reverse_decoder = self._build_decoder(config.decoder.reverse_layers)

    def set_cmvn(self, mean: Tensor, inverse_std: Tensor) -> None:
        """Set the global mean and 1 / standard deviation, each (mel_bins,)."""
        self.cmvn_mean.copy_(mean)
        self.cmvn_inverse_std.copy_(inverse_std)

    def normalise(self, features: Tensor) -> Tensor:
        """Apply CMVN to raw fbank (…, mel_bins) of any float type."""
        return (features.to(self.cmvn_mean.dtype) - self.cmvn_mean) * self.cmvn_inverse_std

    def output_frames(self, frames: int) -> int:
        """Return how many encoder frames T' come of ``frames`` fbank frames: see :class:`Encoder`."""
        return self.encoder.output_frames(frames)

    def latency(self, chunk: int, lookahead: int = 0) -> Latency:
        """Return the algorithmic latency of streaming in chunks of ``chunk`` encoder frames.

        It includes the look-ahead, chunk-flow's too, and is infinite for an encoder that does not stream, and for
        full context (< 0): those wait for the end of the utterance.
        """
        encoder = self.encoder
        if chunk < 0 or not encoder.streams:
            return Latency(math.inf, math.inf)
        frame_ms = encoder.hop * FRAME_SHIFT_MS
        context = self.check_chunk(chunk, 0, lookahead)
        beyond = (context.ahead + encoder.delay(context)) * frame_ms
        last = (encoder.window - 1) * FRAME_SHIFT_MS + FRAME_WINDOW_MS + beyond
        first = (chunk - 1) * frame_ms + last
        return Latency(worst_ms=first, mean_ms=(first + last) / 2)

    def encode(
        self,
        features: Tensor,
        lengths: Tensor,
        chunk_size: int = -1,
        left_chunks: int = -1,
        lookahead: int = 0,
    ) -> Encoded:
        """Encode raw fbank (B, T, mel_bins) with lengths (B,).

        ``chunk_size`` < 0 is the widest context of training, which is full but for the attention kinds
        ``left``, ``chunk`` and ``flow``; > 0 masks the attention to chunks of that many output frames and
        ``left_chunks`` chunks to their left (< 0: all), each with ``lookahead`` frames after it, which is what
        streaming computes. T' is ``output_frames(T)``, 0 when T is shorter than one window.
        """
        chunk = self.check_chunk(chunk_size, left_chunks, lookahead)
        out, out_lengths = self.encoder(self.normalise(features), lengths, chunk)
        return Encoded(out[:, : self.output_frames(features.shape[1])], out_lengths)

    def check_chunk(self, chunk_size: int, left_chunks: int, lookahead: int = 0) -> Chunk:
        """Return the context to use; raise :class:`ConfigError` for one that this model cannot compute.

        Models that could not make use of a look-ahead (kinds ``left``, ``flow``, ``lstm``) have none.
        """
        if chunk_size == 0:
            raise ConfigError("chunk_size: 0 is no chunk; give a number of frames, or -1 for full context")
        if lookahead < 0:
            raise ConfigError(f"lookahead: a number of frames, 0 or more (got {lookahead})")
        return self.encoder.context(chunk_size, left_chunks, lookahead)

    def ctc_log_probs(self, out: Tensor) -> Tensor:
        """(B, T', D) -> log-probabilities (B, T', V), float32."""
        if self.ctc is None:
            raise ConfigError("ctc_weight: 0 leaves the model without a CTC head; decode it with attention")
        return self.ctc.log_probs(out)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        generator: torch.Generator | None = None,
        distillation: WordLevel | SequenceLevel | None = None,
        weights: Tensor | None = None,
    ) -> Losses:
        """Compute :meth:`loss`: DDP wraps ``forward``."""
        return self.loss(features, lengths, tokens, token_lengths, generator, distillation, weights)

    def loss(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        generator: torch.Generator | None = None,
        distillation: WordLevel | SequenceLevel | None = None,
        weights: Tensor | None = None,
    ) -> Losses:
        """Return the loss of raw fbank (B, T, mel_bins), lengths (B,), tokens (B, U), token_lengths (B,).

        Each part is summed over the utterance and averaged over the batch, by ``weights`` (B,) where they are
        given: Σ wᵢ·lossᵢ / Σ wᵢ. Utterances with fewer frames than their tokens need in CTC count as 0 in both
        parts, and with their weight in the mean, so that sums over ranks stay exact. With
        ``dynamic`` attention a training batch's context is drawn from ``generator`` (a CPU one; None:
        torch's global one); in eval mode the loss is that of the widest context of training.

        ``distillation`` by word is for the left-to-right decoder, and raises :class:`ConfigError` where there
        is none; by sequence it is for every part.
        """
        weight = self.config.ctc_weight
        context = (
            self.encoder.training_context(features.shape[1], generator)
            if self.training
            else self.check_chunk(-1, -1)
        )
        out, out_lengths = self.encoder(self.normalise(features), lengths, context)
        words = distillation if isinstance(distillation, WordLevel) else None
        if words is not None and self.decoder is None:
            raise ConfigError("ctc_weight: 1 leaves no attention decoder to distil into word by word")
        parts, too_short = self._parts(out, out_lengths, tokens, token_lengths, words)  # (2, B), (B,)
        if isinstance(distillation, SequenceLevel):
            taught, _ = self._parts(out, out_lengths, distillation.tokens, distillation.token_lengths)
            parts = (1 - distillation.weight) * parts + distillation.weight * taught
        means = parts.mean(dim=1) if weights is None else (parts * weights).sum(dim=1) / weights.sum()
        ctc, attention = means
        return Losses(weight * ctc + (1 - weight) * attention, ctc, attention, too_short.sum())

    def _parts(
        self,
        out: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        words: WordLevel | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the CTC and the attention loss (2, B), and which utterances are too short for them (B,)."""
        too_short = (lengths < frames_needed(tokens, token_lengths)) | (lengths == 0)
        # Some CTC kernels refuse an utterance of no frames; its loss does not count anyway.
        ctc = self._ctc(out, lengths.clamp(min=1), tokens, token_lengths)  # (B,)
        attention = self._attention(out, lengths, tokens, token_lengths, words)  # (B,)
        return torch.stack((ctc, attention)).masked_fill(too_short, 0.0), too_short

    def attention_log_probs(
        self,
        out: Tensor,
        lengths: Tensor,
        hypotheses: Sequence[Sequence[Sequence[int]]],
        reverse: bool = False,
    ) -> list[Tensor]:
        """Return log p(tokens, eos | out) of every hypothesis: for each of B utterances a tensor (N_b,).

        ``reverse``: that of the right-to-left decoder.
        """
        scored = self.attention_token_log_probs(out, lengths, hypotheses, reverse)
        return [
            torch.stack([tokens.sum() for tokens in nbest])
            if nbest
            else out.new_zeros(0, dtype=torch.float32)
            for nbest in scored
        ]

    def attention_token_log_probs(
        self,
        out: Tensor,
        lengths: Tensor,
        hypotheses: Sequence[Sequence[Sequence[int]]],
        reverse: bool = False,
    ) -> list[list[Tensor]]:
        """Return log p of every token and of eos, (U + 1,) float32 for each hypothesis of each utterance.

        All hypotheses are scored in one pass, teacher-forced. ``reverse``: by the right-to-left decoder, the
        last token first.
        """
        if reverse:
            hypotheses = [[tokens[::-1] for tokens in nbest] for nbest in hypotheses]
        return token_log_probs(self._decoder(reverse), out, lengths, hypotheses)

    def attention_distributions(self, out: Tensor, lengths: Tensor, tokens: Tensor, k: int) -> Distributions:
        """Return what the decoder expects at every token of the texts (B, U) and at eos, (B, U + 1, k).

        A teacher's answer to a student's labels, for :class:`WordLevel`; without gradient.
        """
        return distributions(self._decoder(), out, lengths, tokens, k)

    def _build_decoder(self, layers: int) -> AttentionDecoder[Any] | None:
        if self.config.ctc_weight == 1 or layers == 0:
            return None
        config = self.config.decoder.model_copy(update={"layers": layers})
        decoder: AttentionDecoder[Any] = DECODERS.resolve(config.kind)(
            config, self.config.encoder.dim, self.vocab_size
        )
        return decoder

    def _ctc(self, out: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
        if self.ctc is None:
            return out.new_zeros(len(out), dtype=torch.float32)
        return self.ctc.loss(out, lengths, tokens, token_lengths)

    def _attention(
        self, out: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, words: WordLevel | None
    ) -> Tensor:
        if self.decoder is None:
            return out.new_zeros(len(out), dtype=torch.float32)
        smoothing = self.config.label_smoothing
        loss = attention_loss(self.decoder, out, lengths, tokens, token_lengths, smoothing, words)
        if self.reverse_decoder is None:
            return loss
        tokens = reversed_tokens(tokens, token_lengths)
        backwards = attention_loss(self.reverse_decoder, out, lengths, tokens, token_lengths, smoothing)
        return torch.lerp(loss, backwards, self.config.reverse_weight)

    def _decoder(self, reverse: bool = False) -> AttentionDecoder[Any]:
        if self.decoder is None:
            raise ConfigError(
                "ctc_weight: 1 leaves the model without an attention decoder; decode it with CTC"
            )
        if not reverse:
            return self.decoder
        if self.reverse_decoder is None:
            raise ConfigError(
                "reverse_weight: this model has no right-to-left decoder; train one with decoder.reverse_layers"
            )
        return self.reverse_decoder
