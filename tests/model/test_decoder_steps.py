"""A decoder that reads token by token says what it says of the whole text, however a search sorts its beam."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from raysr.model.config import DECODERS, DecoderConfig
from raysr.model.decoder import SOS, AttentionDecoder
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
DIM, VOCABULARY = 8, 6


class Bigram(AttentionDecoder[Tensor]):
    """A user's own decoder: the next token depends on the last one and the mean of the valid frames."""

    def __init__(self, config: DecoderConfig, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        self.output = nn.Linear(dim, vocab_size)

    def forward(self, memory: Tensor, memory_valid: Tensor, tokens: Tensor) -> Tensor:
        state = self.initial_state(memory, memory_valid, tokens.shape[1])
        return self.output(self.embedding(F.pad(tokens, (1, 0), value=SOS)) + state[:, None, None])

    def initial_state(self, memory: Tensor, memory_valid: Tensor, sequences: int) -> Tensor:
        frames = memory_valid.sum(dim=1, keepdim=True).clamp(min=1)
        return memory.masked_fill(~memory_valid.unsqueeze(-1), 0.0).sum(dim=1) / frames

    def step(self, state: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.output(self.embedding(tokens) + state[:, None]), state

    def reorder(self, state: Tensor, source: Tensor) -> Tensor:
        return state

    def select(self, state: Tensor, utterances: Tensor) -> Tensor:
        return state[utterances]


KINDS = [*DECODERS.known, f"{__name__}:Bigram"]


def build(kind: str, **options: Any) -> AttentionDecoder[Any]:
    torch.manual_seed(0)
    config = DecoderConfig(**{"kind": kind, "layers": 2, "heads": 2, "feed_forward": 12} | options)
    decoder: AttentionDecoder[Any] = DECODERS.resolve(kind)(config, DIM, VOCABULARY)
    return decoder.eval().requires_grad_(False)


def memory_of(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Return a ragged memory with garbage behind its frames, and which frames are valid."""
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    generator = torch.Generator().manual_seed(len(lengths))
    return torch.randn(*valid.shape, DIM, generator=generator), valid


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_steps_of_a_beam_that_grows_and_shrinks_equal_the_forward(
    kind: str, lengths: list[int], widths: list[int], seed: int
) -> None:
    decoder = build(kind)
    memory, valid = memory_of(lengths)
    draw = torch.Generator().manual_seed(seed)
    texts = torch.empty(len(memory), widths[0], 0, dtype=torch.long)  # (B, N, U)
    state = decoder.initial_state(memory, valid, sequences=widths[0])
    tokens = torch.full((len(memory), widths[0]), SOS)
    utterances = torch.arange(len(memory))
    for width in widths:
        logits, state = decoder.step(state, tokens)
        expected = decoder(memory[utterances], valid[utterances], texts)[:, :, -1]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
        if len(utterances) > 1 and torch.rand((), generator=draw) < 0.3:
            kept = torch.randperm(len(utterances), generator=draw)[:-1]
            utterances, texts, state = utterances[kept], texts[kept], decoder.select(state, kept)
        batch, beam = texts.shape[:2]
        source = torch.randint(beam, (batch, width), generator=draw)
        state = decoder.reorder(state, source)
        tokens = torch.randint(VOCABULARY, (batch, width), generator=draw)
        parents = texts.gather(1, source.unsqueeze(-1).expand(-1, -1, texts.shape[-1]))
        texts = torch.cat((parents, tokens.unsqueeze(-1)), dim=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_can_be_gone_on_from_twice(kind: str) -> None:
    decoder = build(kind)
    _, state = decoder.step(decoder.initial_state(*memory_of([5, 3]), sequences=2), torch.full((2, 2), SOS))
    first, _ = decoder.step(state, torch.tensor([[3, 4], [5, 3]]))
    decoder.step(decoder.reorder(state, torch.tensor([[1, 1], [1, 0]])), torch.tensor([[1, 1], [4, 0]]))
    again, _ = decoder.step(state, torch.tensor([[3, 4], [5, 3]]))
    assert again.equal(first)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_are_not_valid_change_nothing(kind: str) -> None:
    decoder = build(kind)
    memory, valid = memory_of([6, 4])
    tokens = torch.tensor([[[3, 4, 5]], [[5, 5, 1]]])
    together = decoder(memory, valid, tokens)
    for b, length in enumerate([6, 4]):
        alone = decoder(memory[b : b + 1, :length], valid[b : b + 1, :length], tokens[b : b + 1])
        torch.testing.assert_close(together[b], alone[0], atol=1e-5, rtol=0)
    louder = torch.where(valid.unsqueeze(-1), memory, 1e3)
    torch.testing.assert_close(decoder(louder, valid, tokens), together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_without_a_frame_gives_finite_logits(kind: str) -> None:
    decoder = build(kind)
    memory, valid = torch.randn(2, 0, DIM), torch.zeros(2, 0, dtype=torch.bool)
    assert decoder(memory, valid, torch.tensor([[[3]], [[4]]])).isfinite().all()
    state = decoder.initial_state(memory, valid, sequences=1)
    assert decoder.step(state, torch.full((2, 1), SOS))[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_under_autocast_are_nearly_those_in_float32(kind: str, dtype: torch.dtype) -> None:
    decoder = build(kind)
    memory, valid = memory_of([6, 4])
    tokens = torch.tensor([[[SOS, 3, 4, 5]], [[SOS, 5, 5, 1]]])

    def logits() -> Tensor:
        state, out = decoder.initial_state(memory, valid, sequences=1), []
        for u in range(4):
            step, state = decoder.step(state, tokens[:, :, u])
            out.append(step)
        return torch.stack(out)

    expected = logits()
    with torch.autocast("cpu", dtype=dtype):
        torch.testing.assert_close(logits().float(), expected, atol=0.05, rtol=0.05)


def test_a_users_own_decoder_trains_both_ways(make_model: MakeModel) -> None:
    model = make_model(decoder=f"{__name__}:Bigram", reverse_weight=0.3)
    assert isinstance(model.decoder, Bigram)
    assert isinstance(model.reverse_decoder, Bigram)
    model.loss(
        torch.randn(1, 40, 32), torch.tensor([40]), torch.tensor([[3, 4]]), torch.tensor([2])
    ).attention.backward()
    assert model.reverse_decoder.embedding.weight.grad is not None
    assert model.reverse_decoder.embedding.weight.grad[[SOS, 3, 4]].any(dim=1).all()
