"""The language model of a run: what it is configured by, and how it is made of texts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from raysr.config import Config
from raysr.decode.hypothesis import EOS
from raysr.decode.lexicon import FIRST_WORD, NO_WORD, Lexicon
from raysr.decode.lm_file import StoredLm
from raysr.decode.mixture import Mixture
from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram
from raysr.errors import CorpusError
from raysr.text.sentences import read_sentences
from raysr.text.tokeniser import UNKNOWN, Tokeniser


class WordsConfig(Config):
    """The word n-gram within which tokens are scored: of the labelled texts, mixed with that of ``lm.text``.

    Attributes:
        order: words of the labelled texts' n-grams.
        text_order: words of ``lm.text``'s n-grams.
        text_weight: share of ``lm.text`` in the probability of a word; without such a text it is 0.
        at_least: a word of ``lm.text`` belongs to the lexicon if it is there so often; those of labels always do.
        escape: the token n-gram's share of every token, lest a word that no text has be impossible.
    """

    order: int = Field(default=3, ge=1)
    text_order: int = Field(default=2, ge=1)
    text_weight: float = Field(default=0.5, gt=0, lt=1)
    at_least: int = Field(default=2, ge=1)
    escape: float = Field(default=0.02, gt=0, lt=1)


class LmConfig(Config):
    """The n-gram that decodes and labels; trained on labelled texts, without any on each cycle's kept labels.

    Attributes:
        order: tokens of its n-grams; 0 leaves it out.
        text: a file of further sentences, one a line.
        prose: ``text`` is running text instead, its paragraphs apart by an empty line or one of a single ``%``.
        words: a word n-gram on top, see :class:`raysr.decode.word_ngram.WordNgram`; ``text`` then teaches it
            words, and nothing to the tokens.
    """

    order: int = Field(default=6, ge=0)
    text: str | None = None
    prose: bool = False
    words: WordsConfig | None = None


def further_text(config: LmConfig) -> list[str]:
    """Return the sentences of ``lm.text``; raise :class:`CorpusError` that names the key if there are none."""
    if config.text is None:
        return []
    try:
        return read_sentences(Path(config.text), config.prose)
    except CorpusError as error:
        raise CorpusError(f"lm.text: {error}") from None


def train_lm(
    config: LmConfig, tokeniser: Tokeniser, texts: Iterable[str], further: Sequence[str]
) -> StoredLm:
    """Make the language model of ``texts`` and of ``further`` ones, :func:`further_text`'s.

    A text counts once, however often it was spoken.
    """
    texts = list(dict.fromkeys(texts))
    if config.words is None:
        return _tokens(config, tokeniser, dict.fromkeys([*texts, *further]))
    return _words(config.words, _tokens(config, tokeniser, texts), tokeniser, texts, further)


def _tokens(config: LmConfig, tokeniser: Tokeniser, texts: Iterable[str]) -> Ngram:
    return Ngram.train([tokeniser.encode(text) for text in texts], config.order, tokeniser.vocab_size)


def _words(
    config: WordsConfig, tokens: Ngram, tokeniser: Tokeniser, texts: Sequence[str], further: Sequence[str]
) -> StoredLm:
    """Put a word n-gram on top of ``tokens``; words that the tokeniser cannot spell stay unknown."""
    counted = Counter(word for text in further for word in text.split())
    often = (word for word, count in counted.items() if count >= config.at_least)
    candidates = sorted({*often, *(word for text in texts for word in text.split())})
    spellings = {word: tuple(tokeniser.encode(word)) for word in candidates}
    known = {word: spelling for word, spelling in spellings.items() if UNKNOWN not in spelling}
    if not known:
        return tokens
    ids = {word: number for number, word in enumerate(known, start=FIRST_WORD)}

    def estimate(sentences: Iterable[str], order: int) -> Ngram:
        numbered = ([ids.get(word, NO_WORD) for word in text.split()] for text in sentences)
        return Ngram.train(numbered, order, len(ids) + FIRST_WORD)

    models, weights = [estimate(texts, config.order)], [1.0]
    if further:
        models.append(estimate(dict.fromkeys(further), config.text_order))
        weights = [1 - config.text_weight, config.text_weight]
    begins = [token for token in range(EOS + 1, tokeniser.vocab_size) if tokeniser.begins_word(token)]
    return WordNgram(tokens, Mixture(models, weights), Lexicon(list(known.values())), begins, config.escape)
