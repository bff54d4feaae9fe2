"""What stays as it was first made, and the language model that follows the labels where nothing is labelled."""

from pathlib import Path
from typing import Any

import pytest

from raysr.corpus.utterance import Utterance
from raysr.decode import language_model
from raysr.decode.lm_file import StoredLm
from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram
from raysr.errors import CorpusError
from raysr.ipl.lm import LmConfig, WordsConfig
from raysr.ipl.materials import Materials
from raysr.model.config import ModelConfig
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

TOKENISER = Tokeniser.train(["press one or two"])


def said(*texts: str) -> list[Utterance]:
    return [Utterance(f"u{n}", f"/{n}.wav", 1.0, text=text) for n, text in enumerate(texts)]


def materials(folder: Path, order: int = 4, **lm: Any) -> Materials:
    return Materials(folder, TokeniserConfig(), LmConfig(order=order, **lm), ModelConfig(), seed=1)


def log_prob(lm: StoredLm | None, text: str) -> float:
    assert lm is not None
    return language_model.log_prob(lm, TOKENISER.encode(text))


def test_the_language_model_of_labelled_text_stays(tmp_path: Path) -> None:
    labelled = said("press one")
    first = materials(tmp_path).lm(TOKENISER, labelled, said("nine"))
    later = materials(tmp_path).lm(TOKENISER, labelled, said("press two", "press one or two"))
    for text in ("press one", "press two", "nine"):
        assert log_prob(first, text) == log_prob(later, text)


def test_without_labelled_text_it_follows_the_labels(tmp_path: Path) -> None:
    first = materials(tmp_path).lm(TOKENISER, [], said("press won", "press to"))
    later = materials(tmp_path).lm(TOKENISER, [], said("press one", "press two"))
    assert log_prob(later, "press two") > log_prob(first, "press two") + 1


def test_order_zero_makes_none(tmp_path: Path) -> None:
    assert materials(tmp_path, order=0).lm(TOKENISER, said("press one"), []) is None


WORDS = WordsConfig(at_least=1)


def text_of(folder: Path, *sentences: str) -> str:
    path = folder / "text.txt"
    path.write_text("\n".join(sentences))
    return str(path)


def test_further_text_teaches_words_and_leaves_the_tokens_alone(tmp_path: Path) -> None:
    text = text_of(tmp_path, "Press toe!", "zebra")
    with_text = materials(tmp_path / "with", text=text, words=WORDS)
    without = materials(tmp_path / "without", words=WORDS)
    labelled = said("press one or two")
    lm, plain = with_text.lm(TOKENISER, labelled, []), without.lm(TOKENISER, labelled, [])
    assert isinstance(lm, WordNgram)
    assert isinstance(plain, WordNgram)
    assert log_prob(lm, "press toe") > log_prob(plain, "press toe") + 2
    assert len(lm.lexicon) == len(plain.lexicon) + 1  # zebra has letters that no label has
    assert with_text.tokeniser(labelled).to_bytes() == without.tokeniser(labelled).to_bytes()


def test_a_word_model_of_labelled_text_is_kept_as_it_is(tmp_path: Path) -> None:
    first = materials(tmp_path, words=WORDS).lm(TOKENISER, said("press one"), [])
    later = materials(tmp_path, words=WORDS).lm(TOKENISER, said("press one", "press two"), [])
    assert log_prob(first, "press two") == log_prob(later, "press two")


def test_rare_words_of_the_text_stay_outside_but_those_of_labels_do_not(tmp_path: Path) -> None:
    text = text_of(tmp_path, "or or toes")
    lm = materials(tmp_path, text=text, words=WordsConfig(at_least=2)).lm(TOKENISER, said("press"), [])
    assert isinstance(lm, WordNgram)
    assert {TOKENISER.decode(spelling) for spelling in lm.lexicon.spellings} == {"press", "or"}


def test_without_a_word_that_can_be_spelt_the_tokens_do_alone(tmp_path: Path) -> None:
    lm = materials(tmp_path, words=WORDS).lm(TOKENISER, said("zzz"), [])
    assert isinstance(lm, Ngram)


def test_a_text_that_is_not_there_is_named_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"lm\.text: cannot read .*gone\.txt"):
        materials(tmp_path, text=str(tmp_path / "gone.txt"))
