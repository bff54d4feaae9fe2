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
from raysr.text.byte_letters import LETTERS, from_letters, to_letters
from raysr.text.scripts import SPACELESS

BLANK = 0
UNKNOWN = 1
EOS = 2
BOUNDARY = "▁"
OF_BYTES = "<bytes>"
"""A control piece that says that the others spell bytes."""
LONGEST_TEXT = 1_000_000


class TokeniserConfig(Config):
    """Which pieces a tokeniser is trained to use."""

    kind: Literal["char", "bpe", "byte_bpe", "mixed"] = "char"
    """``char``: characters, for small data. ``bpe``: BPE, for large. ``byte_bpe``: BPE over the bytes of UTF-8, which
    can write any script. ``mixed``: of scripts that are written without spaces each character, of all others BPE; for
    speech that switches between such languages.
    """
    vocab_size: int = Field(default=500, ge=8)
    """Most pieces of a vocabulary, of ``mixed`` beside those characters; ``char`` takes all that the texts have."""


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
        self._bytewise = self._processor.piece_to_id(OF_BYTES) != UNKNOWN

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
        if config.kind == "byte_bpe":
            lines = [to_letters(line) for line in lines]
            longest *= 2
        alone = sorted(c for c in set("".join(lines)) if config.kind == "mixed" and SPACELESS.match(c))
        held = set(LETTERS) if config.kind == "byte_bpe" else set("".join(lines)) - {" ", *alone}
        characters = len(held) + 4 + (config.kind == "byte_bpe")  # blank, unk, eos, the boundary and the mark
        if config.kind != "char" and config.vocab_size < characters:
            of = "bytes and signs" if config.kind == "byte_bpe" else "characters of the texts"
            raise ConfigError(f"tokenizer.vocab_size: {config.vocab_size} is below the {characters} {of}")
        size = characters if config.kind == "char" else config.vocab_size + len(alone)
        return cls(_train(lines, config.kind, size, longest, alone))

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
        return list(self._processor.encode(to_letters(text) if self._bytewise else text))

    def unknown(self, text: str) -> list[str]:
        """Return the characters of a text that the vocabulary lacks, sorted."""
        return sorted({character for character in text if UNKNOWN in self.encode(character)})

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; blanks and ends are silent, unknown pieces show as ``⁇``.

        Of bytes, those that make no whole character are silent too.
        """
        text = str(self._processor.decode([int(token) for token in tokens]))
        return from_letters(text) if self._bytewise else text

    def words(self, tokens: Sequence[int]) -> list[Word]:
        """Return the words of token ids with the span of tokens that spells each."""
        words: list[Word] = []
        first, pieces = 0, [""]
        for place, token in enumerate(tokens):
            spelt = self._spelling(int(token))
            if spelt.startswith(BOUNDARY):
                words += self._word(pieces, first, place)
                pieces, first = [spelt[1:]], place + (spelt == BOUNDARY)
            elif spelt:
                first = first if any(pieces) else place
                pieces.append(spelt)
        return words + self._word(pieces, first, len(tokens))

    def _word(self, pieces: Sequence[str], first: int, end: int) -> list[Word]:
        text = "".join(pieces)
        text = from_letters(text) if self._bytewise else text
        return [Word(text, first, end)] if text else []

    def _spelling(self, token: int) -> str:
        if token in (BLANK, EOS) or self._processor.is_control(token):
            return ""
        return "⁇" if token == UNKNOWN else self.piece(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._bytes,)


def _train(lines: Sequence[str], kind: str, size: int, longest: int, alone: Sequence[str]) -> bytes:
    model = io.BytesIO()
    special: dict[str, Any] = {}
    if kind == "byte_bpe":
        special = {"control_symbols": [OF_BYTES], "required_chars": LETTERS, "split_by_unicode_script": False}
        special["split_by_number"] = False
    elif kind == "mixed":
        special = {"user_defined_symbols": list(alone)}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="char" if kind == "char" else "bpe",
        **special,
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
