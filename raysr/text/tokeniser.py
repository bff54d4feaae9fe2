"""SentencePiece tokenisers, characters or BPE, with the ids that every part of raysr relies on."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sentencepiece
from pydantic import Field

from raysr.config import Config
from raysr.errors import ConfigError, CorpusError

BLANK = 0
UNKNOWN = 1
EOS = 2
BOUNDARY = "▁"
LONGEST_TEXT = 1_000_000


class TokeniserConfig(Config):
    """Which pieces a tokeniser is trained to use."""

    kind: Literal["char", "bpe"] = "char"
    """Characters for small data, BPE for large."""
    vocab_size: int = Field(default=500, ge=8)
    """Most pieces of a BPE vocabulary; characters always take every one that the texts hold."""


class Word(NamedTuple):
    """A word and the tokens ``[first, end)`` that spell it; a boundary token of its own is not among them."""

    text: str
    first: int
    end: int


class Tokeniser:
    """Texts to token ids and back. Id 0 is the CTC blank, 1 the unknown piece, 2 the end of a sentence.

    Text is taken as it is (SentencePiece's identity normalisation): whoever wants it folded calls
    :func:`raysr.text.normalise.normalise` first.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Read a SentencePiece model; raise :class:`CorpusError` when it is damaged or has other ids."""
        self._bytes = bytes(model_bytes)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self._bytes)
            layout = (self._processor.pad_id(), self._processor.unk_id(), self._processor.eos_id())
        except (RuntimeError, TypeError):
            raise CorpusError("not a SentencePiece model: the tokeniser's bytes are damaged") from None
        if layout != (BLANK, UNKNOWN, EOS):
            raise CorpusError(
                f"pad, unk and eos should have the ids 0, 1 and 2, not {layout}: train it with raysr"
            )

    @classmethod
    def train(cls, texts: Iterable[str], config: TokeniserConfig | None = None) -> "Tokeniser":
        """Train on texts; the same texts in the same order give the same bytes.

        Raises:
            CorpusError: there is no text.
            ConfigError: ``vocab_size`` cannot even hold the characters.
        """
        config = config or TokeniserConfig()
        lines = [line for text in texts for line in text.splitlines() if line.strip()]
        if not lines:
            raise CorpusError(
                "cannot train a tokeniser: there are no texts; give transcripts, or keep more pseudo-labels"
            )
        longest = max(len(line.encode()) for line in lines)
        if longest > LONGEST_TEXT:
            raise CorpusError(
                f"cannot train a tokeniser: a text has {longest} bytes; split it into utterances"
            )
        characters = len(set("".join(lines)) - {" "}) + 4  # blank, unk, eos and the boundary
        if config.kind == "bpe" and config.vocab_size < characters:
            raise ConfigError(
                f"tokenizer.vocab_size: {config.vocab_size} is below the {characters} characters of the texts"
            )
        size = characters if config.kind == "char" else config.vocab_size
        return cls(_train(lines, config.kind, size, longest))

    @classmethod
    def load(cls, path: str | Path) -> "Tokeniser":
        """Read a model file; raise :class:`CorpusError` that names it."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise CorpusError(f"cannot read tokeniser {path}: {error.strerror}") from None
        except CorpusError as error:
            raise CorpusError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the model file."""
        Path(path).write_bytes(self._bytes)

    def to_bytes(self) -> bytes:
        """Return the model as :meth:`save` writes it."""
        return self._bytes

    def contract(self) -> str:
        """Return the SHA-256 of the model: equal only for tokenisers that give every text the same ids."""
        return hashlib.sha256(self._bytes).hexdigest()

    @property
    def vocab_size(self) -> int:
        return int(self._processor.vocab_size())

    def piece(self, token: int) -> str:
        """Return the piece of a token, ``▁`` standing for a word boundary."""
        return str(self._processor.id_to_piece(int(token)))

    def begins_word(self, token: int) -> bool:
        """Return whether a word begins at this token (a bare ``▁`` begins the word that follows it)."""
        return self.piece(token).startswith(BOUNDARY)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without an end token; what the vocabulary lacks becomes id 1."""
        return list(self._processor.encode(text))

    def unknown(self, text: str) -> list[str]:
        """Return the characters of a text that the vocabulary lacks, sorted."""
        return sorted({character for character in text if UNKNOWN in self.encode(character)})

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; blanks and ends are silent, unknown pieces show as ``⁇``."""
        return str(self._processor.decode([int(token) for token in tokens]))

    def words(self, tokens: Sequence[int]) -> list[Word]:
        """Return the words of token ids with the span of tokens that spells each."""
        words: list[Word] = []
        first, pieces = 0, [""]
        for place, token in enumerate(tokens):
            spelt = self._spelling(int(token))
            if spelt.startswith(BOUNDARY):
                words += _word(pieces, first, place)
                pieces, first = [spelt[1:]], place + (spelt == BOUNDARY)
            elif spelt:
                first = first if any(pieces) else place
                pieces.append(spelt)
        return words + _word(pieces, first, len(tokens))

    def _spelling(self, token: int) -> str:
        if token in (BLANK, EOS):
            return ""
        return "⁇" if token == UNKNOWN else self.piece(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._bytes,)


def _word(pieces: Sequence[str], first: int, end: int) -> list[Word]:
    text = "".join(pieces)
    return [Word(text, first, end)] if text else []


def _train(lines: Sequence[str], kind: str, size: int, longest: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        use_all_vocab=kind == "char",
        character_coverage=1.0,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        max_sentence_length=max(10, longest),
        pad_id=BLANK,
        pad_piece="<blank>",
        unk_id=UNKNOWN,
        unk_surface="⁇",
        eos_id=EOS,
        eos_piece="<eos>",
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
