"""What stays as it was first made, and the language model that follows the labels where nothing is labelled."""

from pathlib import Path

from raysr.corpus.utterance import Utterance
from raysr.decode.ngram import Ngram
from raysr.ipl.materials import LmConfig, Materials
from raysr.model.config import ModelConfig
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

TOKENISER = Tokeniser.train(["press one or two"])


def said(*texts: str) -> list[Utterance]:
    return [Utterance(f"u{n}", f"/{n}.wav", 1.0, text=text) for n, text in enumerate(texts)]


def materials(folder: Path, order: int = 4) -> Materials:
    return Materials(folder, TokeniserConfig(), LmConfig(order=order), ModelConfig(), seed=1)


def log_prob(lm: Ngram | None, text: str) -> float:
    assert lm is not None
    return lm.log_prob(TOKENISER.encode(text))


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
