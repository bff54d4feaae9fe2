"""Distillation against PyTorch's own divergence, brute force and finite differences; a student becomes its teacher."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raysr.errors import ConfigError
from raysr.model.config import DECODERS
from raysr.model.distillation import (
    Distributions,
    SequenceLevel,
    WordLevel,
    dense,
    top,
    word_level_loss,
)
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def logits_of(*shape: int, seed: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def everywhere(logits: Tensor) -> Tensor:
    return torch.ones(logits.shape[:-1], dtype=torch.bool)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 9)),
    temperature=st.floats(0.3, 10),
    seed=st.integers(0, 999),
)
def test_the_word_level_loss_is_the_divergence_of_tempered_distributions(
    shape: tuple[int, ...], temperature: float, seed: int
) -> None:
    student, teacher = logits_of(*shape, seed=seed), logits_of(*shape, seed=seed + 1)
    loss = word_level_loss(student, top(teacher, shape[-1]), everywhere(student), temperature)
    divergence = F.kl_div(
        (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="none"
    )
    torch.testing.assert_close(loss, temperature**2 * divergence.sum(dim=-1))


@given(k=st.integers(1, 8), temperature=st.floats(0.5, 5), seed=st.integers(0, 999))
def test_what_the_top_leaves_over_is_spread_evenly(k: int, temperature: float, seed: int) -> None:
    student, teacher = logits_of(2, 8, seed=seed), logits_of(2, 8, seed=seed + 1)
    spread = []
    for row in teacher.softmax(-1).tolist():
        kept = sorted(range(8), key=lambda token: -row[token])[:k]
        rest = 1 - sum(row[token] for token in kept)
        spread.append([row[token] if token in kept else rest / (8 - k) for token in range(8)])
    expected = word_level_loss(
        student, Distributions(torch.tensor(spread).double().log()), everywhere(student), temperature
    )
    found = word_level_loss(student, top(teacher, k), everywhere(student), temperature)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_top_of_all_tokens_in_any_order_is_the_dense_distribution() -> None:
    student, teacher = logits_of(3, 4, 6, seed=0), logits_of(3, 4, 6, seed=1)
    sorted_by_size = Distributions(*teacher.log_softmax(-1).topk(6))
    torch.testing.assert_close(dense(sorted_by_size, 6), teacher.log_softmax(-1))
    torch.testing.assert_close(
        word_level_loss(student, sorted_by_size, everywhere(student)),
        word_level_loss(student, top(teacher, 6), everywhere(student)),
    )


def test_a_certain_teacher_is_a_hard_label() -> None:
    student = logits_of(5, 6, seed=2)
    labels = torch.tensor([0, 5, 2, 2, 1])
    certain = Distributions(torch.zeros(5, 1), labels.int().unsqueeze(1))
    loss = word_level_loss(student, certain, everywhere(student))
    torch.testing.assert_close(loss, F.cross_entropy(student, labels, reduction="none"))


def test_half_precision_stores_a_teacher_well_enough() -> None:
    student, teacher = logits_of(4, 50, seed=3), top(logits_of(4, 50, seed=4), 8)
    stored = Distributions(teacher.log_probs.half(), teacher.ids)
    torch.testing.assert_close(
        word_level_loss(student, stored, everywhere(student)),
        word_level_loss(student, teacher, everywhere(student)),
        rtol=2e-3,
        atol=0,
    )


def test_padding_counts_nothing_whatever_it_holds() -> None:
    student = logits_of(1, 3, 5, seed=5).requires_grad_()
    log_probs, ids = logits_of(1, 3, 5, seed=6).log_softmax(-1).topk(2)
    log_probs[0, 2] = float("nan")
    valid = torch.tensor([[True, True, False]])
    loss = word_level_loss(student, Distributions(log_probs, ids), valid)
    loss.sum().backward()
    assert loss[0, :2].all()
    assert loss[0, 2] == 0
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert not student.grad[0, 2].any()


@pytest.mark.parametrize("k", [2, 5])
def test_gradients_agree_with_finite_differences(k: int) -> None:
    student = logits_of(2, 3, 5, seed=7).requires_grad_()
    teacher = top(logits_of(2, 3, 5, seed=8), k)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    assert torch.autograd.gradcheck(lambda logits: word_level_loss(logits, teacher, valid, 2.0), (student,))


def test_it_is_in_float32_under_autocast() -> None:
    student, teacher = logits_of(2, 5, seed=9).bfloat16(), top(logits_of(2, 5, seed=10), 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = word_level_loss(student, teacher, everywhere(student), 2.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, word_level_loss(student.double(), teacher, everywhere(student), 2.0).float()
    )


def test_distributions_of_other_texts_or_vocabularies_are_refused() -> None:
    student = logits_of(2, 3, 5, seed=0)
    for shape in ((2, 4, 5), (2, 3, 4)):
        with pytest.raises(ValueError, match="cannot teach"):
            word_level_loss(student, top(logits_of(*shape, seed=1), 9), everywhere(student))


@torch.no_grad()
@pytest.mark.parametrize("reverse_weight", [0.0, 0.3])
@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_words_are_mixed_with_the_labels(
    make_model: MakeModel, batch: Batch, weight: float, reverse_weight: float
) -> None:
    model, tokens, token_lengths = make_model(reverse_weight=reverse_weight), batch[2], batch[3]
    teacher = top(logits_of(3, 5, 7, seed=1).float(), 3)
    plain, mixed = model(*batch), model(*batch, None, WordLevel(teacher, weight, temperature=2.0))
    assert model.decoder is not None
    out, lengths = model.encode(*batch[:2])
    taught, labels = 0.0, 0.0
    for b in range(3):
        memory, length = out[b : b + 1, : lengths[b]], int(token_lengths[b])
        valid = torch.ones(memory.shape[:2], dtype=torch.bool)
        logits = model.decoder(memory, valid, tokens[b : b + 1, None, :length])[0, 0]
        row = Distributions(*(part[b, : length + 1] for part in teacher if part is not None))
        taught += float(word_level_loss(logits, row, everywhere(logits), 2.0).sum()) / 3
        smooth = torch.full_like(logits, 0.1 / 6).scatter(1, torch.tensor([[*tokens[b, :length], 2]]).T, 0.9)
        labels += float(F.kl_div(logits.log_softmax(-1), smooth, reduction="sum")) / 3
    change = (1 - reverse_weight) * weight * (taught - labels)
    assert float(mixed.attention - plain.attention) == pytest.approx(change, abs=1e-4)
    assert float(mixed.total - plain.total) == pytest.approx(0.5 * change, abs=1e-4)
    assert mixed.ctc.equal(plain.ctc)


def test_weights_may_differ_by_utterance(make_model: MakeModel, batch: Batch) -> None:
    model, tokens, lengths = make_model(), torch.tensor([[4, 4, 3], [3, 0, 0], [5, 0, 0]]), [3, 1, 0]
    each = torch.tensor([1.0, 0.0, 0.5])
    targets: list[Callable[[float | Tensor], WordLevel | SequenceLevel]] = [
        lambda weight: WordLevel(top(logits_of(3, 5, 7, seed=1).float(), 3), weight),
        lambda weight: SequenceLevel(tokens, torch.tensor(lengths), weight),
    ]
    for target in targets:
        together = model(*batch, None, target(each))
        alone = [
            model(*batch, None, target(torch.eye(3)[b] * each[b])).total - model(*batch).total
            for b in range(3)
        ]
        torch.testing.assert_close(together.total, model(*batch).total + sum(alone))


@pytest.mark.parametrize("decoder", DECODERS.known)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_teachers_text_is_mixed_with_the_labels(
    make_model: MakeModel, batch: Batch, decoder: str, weight: float
) -> None:
    model = make_model(decoder=decoder, reverse_weight=0.3)
    tokens, token_lengths = torch.tensor([[3, 4, 5, 3, 6], [6, 5, 0, 0, 0], [0] * 5]), torch.tensor([5, 2, 0])
    mixed = model(*batch, None, SequenceLevel(tokens, token_lengths, weight))
    gold, taught = model(*batch), model(*batch[:2], tokens, token_lengths)
    for part in ("total", "ctc", "attention"):
        expected = (1 - weight) * getattr(gold, part) + weight * getattr(taught, part)
        torch.testing.assert_close(getattr(mixed, part), expected)


def test_an_utterance_too_short_for_the_teachers_text_still_learns_its_labels(make_model: MakeModel) -> None:
    model = make_model()
    batch = torch.randn(1, 11, 32), torch.tensor([11]), torch.tensor([[3]]), torch.tensor([1])
    target = SequenceLevel(torch.tensor([[3, 4, 5, 6]]), torch.tensor([4]), 0.25)
    losses = model(*batch, None, target)
    torch.testing.assert_close(losses.total, 0.75 * model(*batch).total)
    assert losses.utterances_too_short == 0


@pytest.mark.parametrize("decoder", DECODERS.known)
def test_the_models_gradients_agree_with_finite_differences(
    make_model: MakeModel, batch: Batch, decoder: str
) -> None:
    model = make_model(decoder=decoder, ctc_weight=0.0, reverse_weight=0.3, dim=4, layers=1).double()
    teacher = top(logits_of(3, 5, 7, seed=1), 3)
    other = torch.tensor([[5, 4], [6, 6], [3, 0]]), torch.tensor([2, 2, 1])
    parameters = dict(model.named_parameters())
    in_the_encoder = next(
        name for name in parameters if name.startswith("encoder.") and name.endswith("bias")
    )
    for target in (WordLevel(teacher, 0.6, temperature=2.0), SequenceLevel(*other, 0.6)):
        for name in ("decoder.output.bias", "reverse_decoder.output.bias", in_the_encoder):

            def loss(value: Tensor, name: str = name, target: WordLevel | SequenceLevel = target) -> Tensor:
                losses = torch.func.functional_call(model, {name: value}, (*batch, None, target))
                return losses.total

            value = parameters[name].detach().clone().requires_grad_()
            assert torch.autograd.gradcheck(loss, (value,))


def test_a_model_without_an_attention_decoder_has_no_words_to_learn(
    make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(ctc_weight=1.0)
    with pytest.raises(ConfigError, match="word by word"):
        model(*batch, None, WordLevel(top(logits_of(3, 5, 7, seed=1), 3), 0.5))
    model(*batch, None, SequenceLevel(*batch[2:], 0.5)).total.backward()


@pytest.mark.parametrize("k", [3, 7])
@pytest.mark.parametrize("decoder", DECODERS.known)
def test_a_student_reaches_the_distribution_of_its_teacher(
    make_model: MakeModel, batch: Batch, decoder: str, k: int
) -> None:
    teacher = make_model(kind="transformer")
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.5)
    wanted = teacher.attention_distributions(*teacher.encode(*batch[:2]), batch[2], k)
    student = make_model(decoder=decoder, ctc_weight=0.0)
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-2)
    valid = torch.arange(5) <= batch[3].unsqueeze(1)

    def furthest() -> float:
        now = student.attention_distributions(*student.encode(*batch[:2]), batch[2], 7)
        return float((now.log_probs.exp() - dense(wanted, 7).exp())[valid].abs().max())

    before = furthest()
    for _ in range(150):
        optimiser.zero_grad()
        student(*batch, None, WordLevel(wanted, 1.0)).total.backward()
        optimiser.step()
    assert before > 0.1
    assert furthest() < 0.02
