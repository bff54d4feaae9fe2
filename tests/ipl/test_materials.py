"""What stays as it was first made, and the language model that follows the labels where nothing is labelled."""

import sys
from pathlib import Path
from typing import Any

import pytest

from raysr.corpus.utterance import Utterance
from raysr.decode import language_model
from raysr.decode.lm_file import StoredLm
from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram
from raysr.errors import ConfigError, CorpusError
from raysr.ipl.lm import LmConfig, WordsConfig, train_lm
from raysr.ipl.materials import Materials
from raysr.model.config import ModelConfig
from raysr.text.tokeniser import Tokeniser, TokeniserConfig
from tests.decode import plain_arpa

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


def arpa_of(folder: Path, *sentences: str) -> str:
    """Write an ARPA bigram over the words of sentences as another toolkit would, and return its path."""
    words = sorted({word for sentence in sentences for word in sentence.split()})
    names = ["", "<unk>", "</s>", *words, "<s>"]
    ids = {word: number for number, word in enumerate(names)}
    lm = Ngram.train([[ids[w] for w in s.split()] for s in sentences], 2, len(names) - 1)
    lm.save(folder / "made.arpa")
    lines = []
    for line in (folder / "made.arpa").read_text().splitlines():
        prob, *rest = line.split("\t")
        if rest:
            rest[0] = " ".join(names[int(word)] if word.isdigit() else word for word in rest[0].split(" "))
        lines.append("\t".join([prob, *rest]))
    path = folder / "foreign.arpa"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def spelt(*texts: str) -> list[str]:
    return [" ".join(TOKENISER.piece(token) for token in TOKENISER.encode(text)) for text in texts]


def test_a_model_over_pieces_takes_the_place_of_the_labels_and_is_kept(tmp_path: Path) -> None:
    path = arpa_of(tmp_path, *spelt("press two", "press toe"))
    run = materials(tmp_path / "run", arpa=path)
    first = run.lm(TOKENISER, [], said("one one"))
    assert isinstance(first, Ngram)
    assert log_prob(first, "press two") > log_prob(first, "press one") + 1
    Path(path).unlink()
    assert log_prob(run.lm(TOKENISER, said("press one"), []), "press two") == log_prob(first, "press two")


def test_words_on_top_of_a_model_over_pieces_follow_the_labels(tmp_path: Path) -> None:
    run = materials(tmp_path / "run", arpa=arpa_of(tmp_path, *spelt("press two")), words=WORDS)
    first, later = (run.lm(TOKENISER, [], said(text)) for text in ("press one", "press two"))
    assert isinstance(first, WordNgram)
    assert log_prob(later, "press two") > log_prob(first, "press two") + 1


def test_a_model_over_words_joins_that_of_the_labels(tmp_path: Path) -> None:
    path = arpa_of(tmp_path, "press toe", "zebra toe")
    lm = materials(tmp_path / "run", arpa=path, unit="words").lm(TOKENISER, said("press one or two"), [])
    plain = materials(tmp_path / "plain", words=WORDS).lm(TOKENISER, said("press one or two"), [])
    assert isinstance(lm, WordNgram)
    assert {TOKENISER.decode(s) for s in lm.lexicon.spellings} == {"press", "one", "or", "two", "toe"}
    assert log_prob(lm, "press toe") > log_prob(plain, "press toe") + 2
    assert log_prob(lm, "stop") > -100  # in neither: the vocabulary stays open
    kept = materials(tmp_path / "run", arpa=path, unit="words").lm(TOKENISER, said("press one or two"), [])
    assert log_prob(kept, "press toe") == log_prob(lm, "press toe")


def test_a_model_over_words_does_without_any_text(tmp_path: Path) -> None:
    path = arpa_of(tmp_path, "press two", "press two or one")
    lm = train_lm(LmConfig(arpa=path, unit="words"), TOKENISER, [], [])
    assert log_prob(lm, "press two") > log_prob(lm, "two press") + 1
    assert log_prob(lm, "two press") > log_prob(lm, "woet rpess")


@pytest.mark.parametrize("unit", ["tokens", "words"])
def test_a_file_of_no_word_we_can_spell_is_named_with_its_key(tmp_path: Path, unit: str) -> None:
    path = arpa_of(tmp_path, "zzz yyy")
    with pytest.raises(CorpusError, match=r"^lm\.arpa: .*foreign\.arpa line \d+: .*none of its words"):
        train_lm(LmConfig.parse({"arpa": path, "unit": unit}), TOKENISER, [], [])


def test_a_model_of_kenlm_needs_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ConfigError, match=r"^lm\.kenlm: .*pip install kenlm"):
        train_lm(LmConfig(kenlm=arpa_of(tmp_path, *spelt("press two"))), TOKENISER, [], [])


def test_a_model_of_kenlm_is_copied_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", plain_arpa)
    path = arpa_of(tmp_path, *spelt("press two", "press toe"))
    run = materials(tmp_path / "run", kenlm=path)
    first = run.lm(TOKENISER, [], said("one one"))
    same = train_lm(LmConfig(arpa=path), TOKENISER, [], [])
    Path(path).unlink()
    kept = run.lm(TOKENISER, [], [])
    assert kept is not first
    for text in ("press two", "one", "or press"):
        assert log_prob(kept, text) == pytest.approx(log_prob(same, text), abs=1e-4)


@pytest.mark.parametrize("key", ["arpa", "kenlm"])
def test_a_model_that_is_not_there_is_named_before_anything_is_done(tmp_path: Path, key: str) -> None:
    with pytest.raises(CorpusError, match=rf"lm\.{key}: there is no file .*gone\.lm"):
        materials(tmp_path, **{key: str(tmp_path / "gone.lm")})


@pytest.mark.parametrize(
    "options",
    [
        {"kenlm": "a", "arpa": "b"},
        {"kenlm": "a", "words": {}},
        {"unit": "words"},
        {"arpa": "a", "text": "b"},
        {"arpa": "a", "text": "b", "unit": "words", "words": {}},
    ],
)
def test_what_would_be_left_unread_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="name"):
        LmConfig.parse(options)
