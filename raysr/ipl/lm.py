"""The language model of a run: what it is configured by, and how it is made of texts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from raysr.config import Config
from raysr.decode import arpa
from raysr.decode.hypothesis import EOS
from raysr.decode.kenlm import KenLm
from raysr.decode.lexicon import FIRST_WORD, NO_WORD, Lexicon
from raysr.decode.lm_file import StoredLm, pieces
from raysr.decode.mixture import Mixture
from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram
from raysr.errors import CorpusError, PoolError
from raysr.text.sentences import read_sentences
from raysr.text.tokeniser import BOUNDARY, UNKNOWN, Tokeniser


class WordsConfig(Config):
    """The word n-gram within which tokens are scored: of the labelled texts, mixed with one from elsewhere.

    Attributes:
        order: words of the labelled texts' n-grams.
        text_order: words of ``lm.text``'s n-grams.
        text_weight: share of ``lm.text``, or of an ``lm.arpa`` of words, in the probability of a word; 0 without
            either. Without labelled texts such an ``lm.arpa`` has it all.
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
        order: tokens of its n-grams; 0 leaves the language model out.
        text: a file of further sentences, one a line.
        prose: ``text`` is running text instead, its paragraphs apart by an empty line or one of a single ``%``.
        words: a word n-gram on top, see :class:`raysr.decode.word_ngram.WordNgram`; ``text`` then teaches it
            words, and nothing to the tokens.
        arpa: an ARPA file (.gz too) made elsewhere. See :func:`raysr.decode.arpa.read_words` for what it lacks.
        unit: what the words of ``arpa`` are: the tokeniser's pieces, and the file takes the token n-gram's place; or
            words, and it takes that of ``text`` in ``words``.
        kenlm: a file of KenLM over the tokeniser's pieces, in the token n-gram's place; see
            :class:`raysr.decode.kenlm.KenLm`.
    """

    order: int = Field(default=6, ge=0)
    text: str | None = None
    prose: bool = False
    words: WordsConfig | None = None
    arpa: str | None = None
    unit: Literal["tokens", "words"] = "tokens"
    kenlm: str | None = None

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        if self.kenlm and (self.arpa or self.text or self.words):
            raise ValueError("kenlm is the whole model: name no arpa, text or words beside it")
        if self.unit == "words" and not self.arpa:
            raise ValueError("unit says what the words of arpa are: name an arpa file")
        if self.arpa and self.text and (self.unit == "words" or not self.words):
            raise ValueError("arpa takes the place of text: name one of them")
        return self

    @property
    def reads_texts(self) -> bool:
        """Whether the model depends on the texts of labels."""
        return not (self.kenlm or (self.arpa and self.unit == "tokens" and not self.words))


def further_text(config: LmConfig) -> list[str]:
    """Return the sentences of ``lm.text``.

    Raises :class:`CorpusError` that names the key if there are none, or if another file of the model is not there.
    """
    for key, path in (("arpa", config.arpa), ("kenlm", config.kenlm)):
        if path is not None and not Path(path).is_file():
            raise CorpusError(f"lm.{key}: there is no file {path}")
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

    A text counts once, however often it was spoken. Raises :class:`CorpusError` naming key, file and line of a model
    from elsewhere that cannot be used, and :class:`raysr.errors.ConfigError` where KenLM is not installed.
    """
    texts = list(dict.fromkeys(texts))
    with _naming_key(config):
        if config.kenlm:
            return KenLm(config.kenlm, pieces(tokeniser))
        if config.arpa and config.unit == "words":
            return _with_words_of(Path(config.arpa), config, tokeniser, texts)
        if config.words is None:
            return _tokens(config, tokeniser, [*texts, *further])
        return _words(config.words, _tokens(config, tokeniser, texts), tokeniser, texts, further)


@contextmanager
def _naming_key(config: LmConfig) -> Iterator[None]:
    try:
        yield
    except PoolError as error:
        raise CorpusError(f"lm.{'kenlm' if config.kenlm else 'arpa'}: {error}") from None


def _tokens(config: LmConfig, tokeniser: Tokeniser, texts: Iterable[str]) -> Ngram:
    if config.arpa and config.unit == "tokens":
        ids = {tokeniser.piece(token): token for token in range(EOS + 1, tokeniser.vocab_size)}
        return Ngram.load_words(config.arpa, ids, tokeniser.vocab_size)
    sentences = [tokeniser.encode(text) for text in dict.fromkeys(texts)]
    return Ngram.train(sentences, config.order, tokeniser.vocab_size)


def _words(
    config: WordsConfig, tokens: Ngram, tokeniser: Tokeniser, texts: Sequence[str], further: Sequence[str]
) -> StoredLm:
    """Put a word n-gram of ``texts`` and of ``further`` ones on top of ``tokens``."""
    counted = Counter(word for text in further for word in text.split())
    often = (word for word, count in counted.items() if count >= config.at_least)
    known = _spellings(tokeniser, {*often, *_words_of(texts)})
    if not known:
        return tokens
    models = [_estimate(known, texts, config.order)]
    if further:
        models.append(_estimate(known, dict.fromkeys(further), config.text_order))
    return _on_top(config, tokens, tokeniser, known, models)


def _with_words_of(path: Path, config: LmConfig, tokeniser: Tokeniser, texts: Sequence[str]) -> WordNgram:
    """Make a model of the words of an ARPA file and of ``texts``, which teach the tokens; without any its words do."""
    words = config.words or WordsConfig()
    known = _spellings(tokeniser, {*arpa.words(path), *_words_of(texts)})
    ids = {word: number for number, word in enumerate(known, start=FIRST_WORD)}
    models = [Ngram.load_words(path, ids, len(ids) + FIRST_WORD)]
    if texts:
        models.insert(0, _estimate(known, texts, words.order))
    return _on_top(words, _tokens(config, tokeniser, texts or known), tokeniser, known, models)


def _words_of(texts: Iterable[str]) -> Iterator[str]:
    return (word for text in texts for word in text.split())


def _spellings(tokeniser: Tokeniser, words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return words, sorted, and their tokens; those that the tokeniser cannot spell are left out."""
    spellings = {word: tuple(tokeniser.encode(word)) for word in sorted(words) if BOUNDARY not in word}
    return {word: spelling for word, spelling in spellings.items() if UNKNOWN not in spelling}


def _estimate(known: Iterable[str], sentences: Iterable[str], order: int) -> Ngram:
    ids = {word: number for number, word in enumerate(known, start=FIRST_WORD)}
    numbered = ([ids.get(word, NO_WORD) for word in text.split()] for text in sentences)
    return Ngram.train(numbered, order, len(ids) + FIRST_WORD)


def _on_top(
    config: WordsConfig,
    tokens: Ngram,
    tokeniser: Tokeniser,
    known: Mapping[str, tuple[int, ...]],
    models: Sequence[Ngram],
) -> WordNgram:
    weights = [1.0] if len(models) == 1 else [1 - config.text_weight, config.text_weight]
    begins = [token for token in range(EOS + 1, tokeniser.vocab_size) if tokeniser.begins_word(token)]
    return WordNgram(tokens, Mixture(models, weights), Lexicon(list(known.values())), begins, config.escape)
