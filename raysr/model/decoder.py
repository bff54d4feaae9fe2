"""The interface of attention decoders: all tokens of a text at once, or one after the other with caches."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

SOS = EOS = 2

State = TypeVar("State")


class AttentionDecoder(nn.Module, ABC, Generic[State]):
    """Predicts every token from the tokens before it and the encoder's output; sos = eos = 2.

    Built as ``Decoder(config, dim, vocab_size)``, a :class:`DecoderConfig` and the width of the encoder. A
    decoder reads N texts per utterance that share its memory, which is never copied for them. Its ``State`` is a
    NamedTuple of tensors that begin with the batch: a state is a value, and an earlier one stays usable.

    The parameters that have a row for every token are called ``embedding.*`` and ``output.*``.
    """

    @abstractmethod
    def forward(self, memory: Tensor, memory_valid: Tensor, tokens: Tensor) -> Tensor:
        """Return logits (B, N, U + 1, V) of the tokens (B, N, U) and eos, given the memory (B, T, D).

        ``memory_valid`` (B, T) is True at its frames; a memory of no frames gives logits that mean nothing.
        """

    @abstractmethod
    def initial_state(self, memory: Tensor, memory_valid: Tensor, sequences: int) -> State:
        """Return the state of ``sequences`` texts per utterance of which nothing is read, not even sos."""

    @abstractmethod
    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """Read one more token (B, N) of every text, sos first; return the logits (B, N, V) of the next."""

    @abstractmethod
    def reorder(self, state: State, source: Tensor) -> State:
        """Return the state of N' texts, of which text n goes on from what ``source`` (B, N') numbers in 0 .. N-1."""

    @abstractmethod
    def select(self, state: State, utterances: Tensor) -> State:
        """Return the state of some ``utterances`` (B',) of the batch, in that order."""


def attendable(memory: Tensor, memory_valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the memory and the mask of its valid frames with at least one in each row.

    Softmax over nothing would be NaN: a memory of no valid frames is attended to as if valid, and one of no
    frames at all gets a frame of zeros.
    """
    if memory.shape[1] == 0:
        memory = memory.new_zeros(len(memory), 1, memory.shape[2])
        return memory, torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
    return memory, memory_valid | ~memory_valid.any(dim=1, keepdim=True)


def take(rows: Tensor, source: Tensor) -> Tensor:
    """Return (B, N', …): of each utterance's rows (B, N, …) those that ``source`` (B, N') numbers."""
    batch, sequences = rows.shape[:2]
    first = torch.arange(0, batch * sequences, sequences, device=rows.device).unsqueeze(1)
    return rows.flatten(0, 1).index_select(0, (source + first).flatten()).view(*source.shape, *rows.shape[2:])
