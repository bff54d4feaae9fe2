"""The LSTM decoder of Listen, Attend and Spell (Chan et al. 2016), with location-aware attention."""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysr.model.config import DecoderConfig
from raysr.model.decoder import SOS, AttentionDecoder, attendable, take


class LstmState(NamedTuple):
    """The memory, projected once, and what each of N texts per utterance remembers."""

    memory: Tensor
    """(B, T, D)."""
    keys: Tensor
    """Its projection, (B, T, D)."""
    mask: Tensor
    """Which frames may be attended to, (B, T)."""
    hidden: tuple[Tensor, ...]
    """Of every layer, (B, N, D); so are ``cell`` and ``context``."""
    cell: tuple[Tensor, ...]
    context: Tensor
    alignment: Tensor
    """The weights of the frames at the last step, (B, N, T) float32."""


class LocationAwareAttention(nn.Module):
    """Chorowski et al. 2015 (arXiv:1506.07503): the energies also see where the last step looked.

    Attention by content alone must find out from the labels that speech is read from left to right, and on a few
    hours it often does not. A convolution over the last alignment gives it the means to move on from there.
    """

    def __init__(self, dim: int, filters: int, kernel: int) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.convolution = nn.Conv1d(1, filters, kernel, padding=kernel // 2, bias=False)
        self.location = nn.Linear(filters, dim, bias=False)
        self.energy = nn.Linear(dim, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor, alignment: Tensor) -> Tensor:
        """Return the next alignment (B, N, T) of queries (B, N, D) with keys (B, T, D) and mask (B, T)."""
        filtered = self.convolution(alignment.flatten(0, 1).unsqueeze(1))  # (B x N, filters, T)
        location = self.location(filtered.transpose(1, 2)).unflatten(0, alignment.shape[:2])  # (B, N, T, D)
        energy = self.energy(torch.tanh(keys.unsqueeze(1) + self.query(query).unsqueeze(2) + location))
        masked = energy.squeeze(-1).masked_fill(~mask.unsqueeze(1), float("-inf"))
        return masked.softmax(dim=-1, dtype=torch.promote_types(energy.dtype, torch.float32))


class LstmDecoder(AttentionDecoder[LstmState]):
    """Layers of LSTM that read the last token and context; their output asks the attention for the next context.

    The recurrence is in float32 under autocast, since its cells add up over the whole text.
    """

    def __init__(self, config: DecoderConfig, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.cells = nn.ModuleList(
            nn.LSTMCell(dim if layer else 2 * dim, dim) for layer in range(config.layers)
        )
        self.attention = LocationAwareAttention(dim, config.location_filters, config.location_kernel)
        self.combine = nn.Linear(2 * dim, dim)
        self.output = nn.Linear(dim, vocab_size)

    def forward(self, memory: Tensor, memory_valid: Tensor, tokens: Tensor) -> Tensor:
        embedded = self.embedding(F.pad(tokens, (1, 0), value=SOS))  # (B, N, U + 1, D)
        state, said = self.initial_state(memory, memory_valid, tokens.shape[1]), []
        for step in embedded.unbind(dim=2):
            combined, state = self._advance(state, step)
            said.append(combined)
        return self.output(torch.stack(said, dim=2))

    def initial_state(self, memory: Tensor, memory_valid: Tensor, sequences: int) -> LstmState:
        memory, mask = attendable(memory, memory_valid)
        zeros = self.output.weight.new_zeros(len(memory), sequences, memory.shape[2])
        layers = (zeros,) * len(self.cells)
        # As if the step before had looked at the first frame: the convolution then knows where speech begins.
        alignment = zeros.new_zeros(len(memory), sequences, memory.shape[1])
        alignment[..., 0] = 1
        return LstmState(memory, self.attention.key(memory), mask, layers, layers, zeros, alignment)

    def step(self, state: LstmState, tokens: Tensor) -> tuple[Tensor, LstmState]:
        combined, state = self._advance(state, self.embedding(tokens))
        return self.output(combined), state

    def reorder(self, state: LstmState, source: Tensor) -> LstmState:
        return state._replace(
            hidden=tuple(take(layer, source) for layer in state.hidden),
            cell=tuple(take(layer, source) for layer in state.cell),
            context=take(state.context, source),
            alignment=take(state.alignment, source),
        )

    def select(self, state: LstmState, utterances: Tensor) -> LstmState:
        return LstmState(
            memory=state.memory[utterances],
            keys=state.keys[utterances],
            mask=state.mask[utterances],
            hidden=tuple(layer[utterances] for layer in state.hidden),
            cell=tuple(layer[utterances] for layer in state.cell),
            context=state.context[utterances],
            alignment=state.alignment[utterances],
        )

    def _advance(self, state: LstmState, embedded: Tensor) -> tuple[Tensor, LstmState]:
        """Read the embedded tokens (B, N, D); return what the output layer is to see, (B, N, D)."""
        spoken, hidden, cell = self._recur(torch.cat((self.dropout(embedded), state.context), dim=-1), state)
        alignment = self.attention(spoken, state.keys, state.mask, state.alignment)
        context = (alignment.to(state.memory.dtype) @ state.memory).to(embedded.dtype)  # (B, N, D)
        combined = torch.tanh(self.combine(torch.cat((spoken, context), dim=-1)))
        state = state._replace(hidden=hidden, cell=cell, context=context, alignment=alignment)
        return self.dropout(combined), state

    def _recur(self, x: Tensor, state: LstmState) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the output (B, N, D) of the last layer, and every layer's hidden vector and cell."""
        shape, hidden, cell = x.shape[:2], [], []
        x = x.flatten(0, 1)  # (B x N, 2 D)
        with torch.autocast(x.device.type, enabled=False):
            for lstm, h, c in zip(self._cells(), state.hidden, state.cell, strict=True):
                h, c = lstm(x, (h.flatten(0, 1), c.flatten(0, 1)))
                x = self.dropout(h)
                hidden.append(h.unflatten(0, shape))
                cell.append(c.unflatten(0, shape))
        return x.unflatten(0, shape), tuple(hidden), tuple(cell)

    def _cells(self) -> Iterator[nn.LSTMCell]:
        return cast("Iterator[nn.LSTMCell]", iter(self.cells))
