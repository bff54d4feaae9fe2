"""Tokenisers keep every character, give the ids that the models rely on, and train the same way twice."""

import pickle
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from raysr.errors import ConfigError, CorpusError
from raysr.text.normalise import normalise
from raysr.text.tokeniser import Tokeniser, TokeniserConfig, Word

TEXTS = [
    "the meeting starts at nine",
    "don't send the report to zoë",
    "日本語 テスト",
    "a quick brown fox jumps over",
]
CONFIGS = [
    TokeniserConfig(kind="char"),
    TokeniserConfig(kind="bpe", vocab_size=80),
    TokeniserConfig(kind="mixed", vocab_size=80),
    TokeniserConfig(kind="byte_bpe", vocab_size=300),
]
OF_CHARACTERS = CONFIGS[:3]
words_of = st.lists(st.sampled_from(sorted(set(" ".join(TEXTS).split()))), max_size=8).map(" ".join)


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.kind)
def tokeniser(request: pytest.FixtureRequest) -> Tokeniser:
    return Tokeniser.train(TEXTS, request.param)


@pytest.fixture(scope="module", params=OF_CHARACTERS, ids=lambda config: config.kind)
def of_characters(request: pytest.FixtureRequest) -> Tokeniser:
    return Tokeniser.train(TEXTS, request.param)


def test_ids_are_blank_unknown_end_then_pieces(of_characters: Tokeniser) -> None:
    tokeniser = of_characters
    assert [tokeniser.piece(token) for token in range(3)] == ["<blank>", "<unk>", "<eos>"]
    pieces = {tokeniser.piece(token) for token in range(3, tokeniser.vocab_size)}
    assert set("".join(TEXTS)) - {" "} | {"▁"} <= pieces
    assert len(pieces) == tokeniser.vocab_size - 3


@given(text=words_of)
def test_decoding_gives_back_the_text(tokeniser: Tokeniser, text: str) -> None:
    tokens = tokeniser.encode(text)
    assert tokeniser.decode(tokens) == text
    assert tokeniser.decode([0, *tokens, 2]) == text
    assert min(tokens, default=3) >= 3


@given(texts=st.lists(st.text().map(normalise).filter(bool), min_size=1, max_size=5))
def test_any_normalised_text_survives_its_own_character_model(texts: list[str]) -> None:
    tokeniser = Tokeniser.train(texts)
    assert [tokeniser.decode(tokeniser.encode(text)) for text in texts] == texts


def test_text_is_not_rewritten() -> None:
    tokeniser = Tokeniser.train(["ﬁ②Ａ Straße"])
    assert tokeniser.decode(tokeniser.encode("ﬁ②Ａ Straße")) == "ﬁ②Ａ Straße"


def test_characters_spell_word_boundaries(tokeniser: Tokeniser) -> None:
    characters = Tokeniser.train(TEXTS, CONFIGS[0])
    assert [characters.piece(token) for token in characters.encode("at nine")] == list("▁at▁nine")


@given(text=words_of)
def test_words_are_the_spans_that_spell_them(tokeniser: Tokeniser, text: str) -> None:
    tokens = tokeniser.encode(text)
    words = tokeniser.words(tokens)
    assert [word.text for word in words] == text.split()
    assert sum(tokeniser.begins_word(token) for token in tokens) == len(words)
    for word in words:
        assert tokeniser.decode(tokens[word.first : word.end]) == word.text
        assert tokeniser.piece(tokens[word.first]) != "▁"


def test_words_cope_with_what_a_decoder_may_emit() -> None:
    tokeniser = Tokeniser.train(["ab c"])
    pieces = [tokeniser.piece(token) for token in range(tokeniser.vocab_size)]
    boundary, a, b, c = (pieces.index(piece) for piece in "▁abc")
    assert tokeniser.words([]) == []
    assert tokeniser.words([boundary, boundary]) == []
    assert tokeniser.words([a, b, boundary, boundary, c]) == [Word("ab", 0, 2), Word("c", 4, 5)]
    assert tokeniser.words([0, boundary, 0, a, 1, 2]) == [Word("a⁇", 3, 6)]


def test_unknown_characters_become_one_id_and_show(of_characters: Tokeniser) -> None:
    tokeniser = of_characters
    tokens = tokeniser.encode("the ÿ")
    assert tokens.count(1) == 1
    assert tokeniser.decode(tokens) == "the ⁇"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_training_repeats_itself_quietly(config: TokeniserConfig, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = Tokeniser.train(iter(TEXTS), config), Tokeniser.train(TEXTS, config)
    assert first.to_bytes() == second.to_bytes()
    assert first.contract() == second.contract()
    assert first.contract() != Tokeniser.train(TEXTS[:3], config).contract()
    assert capfd.readouterr() == ("", "")


def test_survives_a_file_and_a_pickle(tokeniser: Tokeniser, tmp_path: Path) -> None:
    tokeniser.save(tmp_path / "tokenizer.model")
    for copy in (Tokeniser.load(tmp_path / "tokenizer.model"), pickle.loads(pickle.dumps(tokeniser))):
        assert copy.contract() == tokeniser.contract()
        assert copy.encode(TEXTS[0]) == tokeniser.encode(TEXTS[0])


def test_a_model_file_is_sentencepieces_own(of_characters: Tokeniser, tmp_path: Path) -> None:
    of_characters.save(tmp_path / "tokenizer.model")
    plain = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert plain.encode(TEXTS[0]) == of_characters.encode(TEXTS[0])


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_no_texts_is_an_error_with_its_mend(texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="there are no texts; give transcripts"):
        Tokeniser.train(texts)


def test_tiny_and_huge_texts_can_be_trained_on() -> None:
    assert Tokeniser.train(["a"]).vocab_size == 5
    assert Tokeniser.train(["a"], TokeniserConfig(kind="bpe")).vocab_size <= 6
    long = "word " * 5000 + "z"
    tokeniser = Tokeniser.train([long, "a"])
    assert 1 not in tokeniser.encode("z")


def test_a_vocabulary_below_the_characters_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocab_size: 8 is below the 31 characters"):
        Tokeniser.train(["abcdefghijklmnopqrstuvwxyz'"], TokeniserConfig(kind="bpe", vocab_size=8))


def test_files_that_are_no_tokeniser_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"cannot read tokeniser .*gone.model: No such file"):
        Tokeniser.load(tmp_path / "gone.model")
    (tmp_path / "bad.model").write_bytes(b"junk")
    with pytest.raises(CorpusError, match=r"bad.model: not a SentencePiece model"):
        Tokeniser.load(tmp_path / "bad.model")
    foreign = b""
    with pytest.raises(CorpusError, match="should have the ids 0, 1 and 2"):
        Tokeniser(foreign)
