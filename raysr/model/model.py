"""The hybrid CTC/attention recogniser (Watanabe et al. 2017): features in, losses and scores out."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from raysr.errors import ConfigError
from raysr.model.config import ENCODERS, ModelConfig
from raysr.model.ctc import CtcHead, frames_needed
from raysr.model.decoder import AttentionDecoder, append_eos, label_smoothing_loss
from raysr.model.encoder import Encoder
from raysr.model.mask import Chunk, valid_frames

FRAME_SHIFT_MS = 10
FRAME_WINDOW_MS = 25
BY_TOKEN = frozenset(
    {
        "ctc.linear.weight",
        "ctc.linear.bias",
        "decoder.embedding.weight",
        "decoder.output.weight",
        "decoder.output.bias",
    }
)
"""The parameters that have a row for every token of the vocabulary."""


class Encoded(NamedTuple):
    """Encoder output (B, T', D) and how many of its frames are valid (B,)."""

    out: Tensor
    lengths: Tensor


class Losses(NamedTuple):
    """Scalars: means over the batch, and how many of its utterances were too short for their tokens."""

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
        self.decoder = AttentionDecoder(config.decoder, dim, vocab_size) if config.ctc_weight < 1 else None

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

    def latency(self, chunk: int) -> Latency:
        """Return the algorithmic latency of streaming in chunks of ``chunk`` encoder frames.

        It includes the look-ahead of chunk-flow, and is infinite for an encoder that does not stream, and for
        full context (< 0): those wait for the end of the utterance.
        """
        encoder = self.encoder
        if chunk < 0 or not encoder.streams:
            return Latency(math.inf, math.inf)
        frame_ms = encoder.hop * FRAME_SHIFT_MS
        lookahead = encoder.lookahead(self.check_chunk(chunk, 0)) * frame_ms
        last = (encoder.window - 1) * FRAME_SHIFT_MS + FRAME_WINDOW_MS + lookahead
        first = (chunk - 1) * frame_ms + last
        return Latency(worst_ms=first, mean_ms=(first + last) / 2)

    def encode(
        self, features: Tensor, lengths: Tensor, chunk_size: int = -1, left_chunks: int = -1
    ) -> Encoded:
        """Encode raw fbank (B, T, mel_bins) with lengths (B,).

        ``chunk_size`` < 0 is the widest context of training, which is full but for the attention kinds
        ``left``, ``chunk`` and ``flow``; > 0 masks the attention to chunks of that many output frames and
        ``left_chunks`` chunks to their left (< 0: all), which is what streaming computes. T' is
        ``output_frames(T)``, 0 when T is shorter than one window.
        """
        chunk = self.check_chunk(chunk_size, left_chunks)
        out, out_lengths = self.encoder(self.normalise(features), lengths, chunk)
        return Encoded(out[:, : self.output_frames(features.shape[1])], out_lengths)

    def check_chunk(self, chunk_size: int, left_chunks: int) -> Chunk:
        """Return the context to use; raise :class:`ConfigError` for one that this model cannot compute."""
        if chunk_size == 0:
            raise ConfigError("chunk_size: 0 is no chunk; give a number of frames, or -1 for full context")
        return self.encoder.context(chunk_size, left_chunks)

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
    ) -> Losses:
        """Compute :meth:`loss`: DDP wraps ``forward``."""
        return self.loss(features, lengths, tokens, token_lengths, generator)

    def loss(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """Return the loss of raw fbank (B, T, mel_bins), lengths (B,), tokens (B, U), token_lengths (B,).

        Each part is summed over the utterance and averaged over the batch. Utterances with fewer frames than
        their tokens need in CTC count as 0 in both parts, so that sums over ranks stay exact. With
        ``dynamic`` attention a training batch's context is drawn from ``generator`` (a CPU one; None:
        torch's global one); in eval mode the loss is that of the widest context of training.
        """
        weight = self.config.ctc_weight
        context = (
            self.encoder.training_context(features.shape[1], generator)
            if self.training
            else self.check_chunk(-1, -1)
        )
        out, out_lengths = self.encoder(self.normalise(features), lengths, context)
        long_enough = (out_lengths >= frames_needed(tokens, token_lengths)) & (out_lengths > 0)
        # Some CTC kernels refuse an utterance of no frames; its loss does not count anyway.
        ctc = self._ctc(out, out_lengths.clamp(min=1), tokens, token_lengths)  # (B,)
        ctc = ctc.masked_fill(~long_enough, 0.0).mean()
        attention = self._attention(out, out_lengths, tokens, token_lengths)  # (B,)
        attention = attention.masked_fill(~long_enough, 0.0).mean()
        return Losses(weight * ctc + (1 - weight) * attention, ctc, attention, (~long_enough).sum())

    def attention_log_probs(
        self, out: Tensor, lengths: Tensor, hypotheses: Sequence[Sequence[Sequence[int]]]
    ) -> list[Tensor]:
        """Return log p(tokens, eos | out) of every hypothesis: for each of B utterances a tensor (N_b,)."""
        token_log_probs = self.attention_token_log_probs(out, lengths, hypotheses)
        return [
            torch.stack([tokens.sum() for tokens in nbest])
            if nbest
            else out.new_zeros(0, dtype=torch.float32)
            for nbest in token_log_probs
        ]

    def attention_token_log_probs(
        self, out: Tensor, lengths: Tensor, hypotheses: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[Tensor]]:
        """Return log p of every token and of eos, (U + 1,) float32 for each hypothesis of each utterance.

        All hypotheses are scored in one pass, teacher-forced.
        """
        if self.decoder is None:
            raise ConfigError(
                "ctc_weight: 1 leaves the model without an attention decoder; decode it with CTC"
            )
        most = max((len(nbest) for nbest in hypotheses), default=0)
        if most == 0:
            return [[] for _ in hypotheses]
        flat = [
            torch.tensor(list(tokens), dtype=torch.long)
            for nbest in hypotheses
            for tokens in [*nbest, *[()] * (most - len(nbest))]
        ]
        shape = (len(hypotheses), most)
        token_lengths = torch.tensor([len(tokens) for tokens in flat], device=out.device).view(shape)
        tokens = pad_sequence(flat, batch_first=True).view(*shape, -1).to(out.device)  # (B, N, U)
        logits = self.decoder(out, valid_frames(lengths, out.shape[1]), tokens)
        targets = append_eos(tokens, token_lengths).clamp(min=0)  # (B, N, U + 1)
        scores = logits.float().log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return [
            [scores[b, n, : len(tokens) + 1] for n, tokens in enumerate(nbest)]
            for b, nbest in enumerate(hypotheses)
        ]

    def _ctc(self, out: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
        if self.ctc is None:
            return out.new_zeros(len(out), dtype=torch.float32)
        return self.ctc.loss(out, lengths, tokens, token_lengths)

    def _attention(self, out: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
        if self.decoder is None:
            return out.new_zeros(len(out), dtype=torch.float32)
        logits = self.decoder(
            out, valid_frames(lengths, out.shape[1]), tokens.unsqueeze(1)
        )  # (B, 1, U + 1, V)
        targets = append_eos(tokens, token_lengths)
        return label_smoothing_loss(logits.squeeze(1), targets, self.config.label_smoothing).sum(dim=1)
