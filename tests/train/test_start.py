"""A student that starts from a model with another vocabulary hears what that model heard."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save_file
from torch import Tensor

from raysr.errors import RunError
from raysr.model.config import DECODERS, DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import BY_TOKEN, AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.start import transplant

SMALL = ModelConfig(
    mel_bins=16,
    encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
    decoder=DecoderConfig(heads=2, feed_forward=16),
)
BOTH_WAYS = {
    kind: ModelConfig(
        mel_bins=16,
        encoder=SMALL.encoder,
        decoder=DecoderConfig(kind=kind, reverse_layers=1, heads=2, feed_forward=16),
        reverse_weight=0.3,
    )
    for kind in DECODERS.known
}
LETTERS = st.text("abcdefghijkl", min_size=1)


def model(tokeniser: Tokeniser, seed: int, config: ModelConfig = SMALL) -> AsrModel:
    torch.manual_seed(seed)
    made = AsrModel(config, tokeniser.vocab_size)
    made.set_cmvn(torch.randn(16), torch.rand(16) + 0.5)
    return made.eval()


def grafted(folder: Path, old: AsrModel, theirs: Tokeniser, fresh: AsrModel, ours: Tokeniser) -> AsrModel:
    save_file(old.state_dict(), folder / "old.safetensors")
    save_file(fresh.state_dict(), folder / "fresh.safetensors")
    weights = transplant(folder / "old.safetensors", theirs, folder / "fresh.safetensors", ours)
    student = AsrModel(fresh.config, ours.vocab_size).eval()
    student.load_state_dict(load(weights))
    return student


def heard(model: AsrModel, tokeniser: Tokeniser, pieces: list[str]) -> tuple[Tensor, Tensor]:
    """Return what both heads say of these pieces, their logits up to a constant."""
    tokens = {tokeniser.piece(t): t for t in range(tokeniser.vocab_size)}
    rows = torch.tensor([tokens[p] for p in pieces])
    features, lengths = torch.linspace(-2, 3, 40 * 16).view(1, 40, 16), torch.tensor([40])
    with torch.inference_mode():
        encoded = model.encode(features, lengths)
        ctc = model.ctc_log_probs(encoded.out)[0, :, rows]
        assert model.decoder is not None
        valid = torch.ones(encoded.out.shape[:2], dtype=torch.bool)
        attention = model.decoder(encoded.out, valid, rows[None, None, -2:])[0, 0][:, rows]
    return ctc - ctc[:, :1], attention - attention[:, :1]


@settings(max_examples=25, deadline=None)
@given(theirs=LETTERS, ours=LETTERS)
def test_pieces_in_both_vocabularies_keep_what_both_heads_say_of_them(
    theirs: str, ours: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    old_tokens, new_tokens = Tokeniser.train([theirs]), Tokeniser.train([ours])
    old, fresh = model(old_tokens, 1), model(new_tokens, 2)
    student = grafted(tmp_path_factory.mktemp("graft"), old, old_tokens, fresh, new_tokens)
    shared = ["<blank>", "<unk>", "<eos>", *sorted({*theirs} & {*ours}), "▁"]
    for before, after in zip(heard(old, old_tokens, shared), heard(student, new_tokens, shared), strict=True):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("kind", DECODERS.known)
def test_a_new_piece_is_that_of_the_fresh_student(tmp_path: Path, kind: str) -> None:
    old_tokens, new_tokens = Tokeniser.train(["ab"]), Tokeniser.train(["abz"])
    config = BOTH_WAYS[kind]
    old, fresh = model(old_tokens, 1, config), model(new_tokens, 2, config)
    student = grafted(tmp_path, old, old_tokens, fresh, new_tokens).state_dict()
    [z] = new_tokens.encode("z")[1:]
    [a], [b] = new_tokens.encode("a")[1:], old_tokens.encode("a")[1:]
    for name in BY_TOKEN:
        torch.testing.assert_close(student[name][z], fresh.state_dict()[name][z])
        torch.testing.assert_close(student[name][a], old.state_dict()[name][b])


@pytest.mark.parametrize("kind", DECODERS.known)
def test_the_tensors_by_token_are_those_that_grow_with_the_vocabulary(kind: str) -> None:
    few, many = (AsrModel(BOTH_WAYS[kind], vocab_size).state_dict() for vocab_size in (10, 11))
    assert {name for name in few if few[name].shape != many[name].shape} == BY_TOKEN
    assert all(many[name].shape[0] == 11 for name in BY_TOKEN)


def test_a_model_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    tokens = Tokeniser.train(["ab"])
    wider = SMALL.model_copy(update={"decoder": DecoderConfig(heads=2, feed_forward=32)})
    with pytest.raises(
        RunError, match=r"old\.safetensors has another model.*feed_forward.* is .*give `model`"
    ):
        grafted(tmp_path, model(tokens, 1, wider), tokens, model(tokens, 2), tokens)
    deeper = SMALL.model_copy(update={"decoder": DecoderConfig(heads=2, feed_forward=16, layers=2)})
    with pytest.raises(RunError, match=r"decoder\.blocks\.1.* and none"):
        grafted(tmp_path, model(tokens, 1, deeper), tokens, model(tokens, 2), tokens)
