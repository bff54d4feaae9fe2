"""Tokenisers for many scripts: bytes can write any text; mixed ones keep characters of spaceless scripts apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.errors import ConfigError
from raysr.text.byte_letters import LETTERS, from_letters, to_letters
from raysr.text.normalise import normalise
from raysr.text.scripts import SPACELESS
from raysr.text.tokeniser import OF_BYTES, Tokeniser, TokeniserConfig

SWITCHED = [
    "我们 schedule 一个 meeting",
    "please check 一下 the report",
    "今天的会议很重要",
    "the weather is nice today",
    "我们 今天 check 一下 schedule",
]
NORMAL = st.text().map(normalise)


@given(st.text())
def test_every_text_has_its_letters_and_they_no_other_text(text: str) -> None:
    letters = to_letters(text)
    assert set(letters) <= {*LETTERS, " "}
    assert from_letters(letters) == text
    assert len(letters) == len(text.encode())


def test_letters_are_no_white_space_and_stay_apart() -> None:
    assert len(set(LETTERS)) == 256
    assert all(letter.isalpha() and letter.isprintable() for letter in LETTERS)


@given(NORMAL)
def test_a_byte_vocabulary_writes_what_it_never_saw(byte_bpe: Tokeniser, text: str) -> None:
    tokens = byte_bpe.encode(text)
    assert 1 not in tokens
    assert byte_bpe.decode(tokens) == text
    assert [word.text for word in byte_bpe.words(tokens)] == text.split()
    assert byte_bpe.unknown(text) == []


@given(NORMAL, st.data())
def test_a_caption_that_ends_within_a_character_shows_the_whole_ones(
    byte_bpe: Tokeniser, text: str, data: st.DataObject
) -> None:
    tokens = byte_bpe.encode(text)
    shown = byte_bpe.decode(tokens[: data.draw(st.integers(0, len(tokens)))])
    assert text.startswith(shown)


@pytest.fixture(scope="module")
def byte_bpe() -> Tokeniser:
    return Tokeniser.train(SWITCHED * 5, TokeniserConfig(kind="byte_bpe", vocab_size=320))


def test_byte_pieces_are_learned_and_its_mark_is_no_text(byte_bpe: Tokeniser) -> None:
    pieces = [byte_bpe.piece(token) for token in range(byte_bpe.vocab_size)]
    assert {*LETTERS} <= set(pieces)
    assert any(len(piece.strip("▁")) > 3 for piece in pieces[3:])
    mark = pieces.index(OF_BYTES)
    tokens = byte_bpe.encode("meeting")
    assert byte_bpe.decode([mark, *tokens, mark]) == "meeting"
    assert [word.text for word in byte_bpe.words([mark, *tokens])] == ["meeting"]
    assert len(byte_bpe.encode("meeting")) < 4


def test_mixed_pieces_are_single_characters_of_spaceless_scripts_and_pieces_of_words() -> None:
    mixed = Tokeniser.train(SWITCHED * 5, TokeniserConfig(kind="mixed", vocab_size=60))
    pieces = [mixed.piece(token) for token in range(3, mixed.vocab_size)]
    of_both = [piece for piece in pieces if SPACELESS.search(piece) and len(piece) > 1]
    assert of_both == []
    assert {c for text in SWITCHED for c in text if SPACELESS.match(c)} <= set(pieces)
    assert any(piece.isascii() is False and len(piece) > 4 for piece in pieces)  # ▁ and a part of a word
    for text in SWITCHED:
        tokens = mixed.encode(text)
        assert mixed.decode(tokens) == text
        assert [word.text for word in mixed.words(tokens)] == text.split()
    plain = Tokeniser.train(SWITCHED * 5, TokeniserConfig(kind="bpe", vocab_size=80))
    assert any(
        SPACELESS.search(plain.piece(t)) and len(plain.piece(t).strip("▁")) > 1
        for t in range(3, plain.vocab_size)
    )


def test_a_byte_vocabulary_that_cannot_hold_all_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocab_size: 100 is below the 261 bytes and signs"):
        Tokeniser.train(SWITCHED, TokeniserConfig(kind="byte_bpe", vocab_size=100))
