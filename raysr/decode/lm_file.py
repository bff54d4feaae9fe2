"""The language model in a folder: an n-gram as ARPA text, one of words as a NumPy archive, KenLM's as it came."""

from pathlib import Path

from raysr.decode.kenlm import KenLm
from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram
from raysr.text.tokeniser import Tokeniser

StoredLm = Ngram | WordNgram | KenLm

_KENLM = "lm.kenlm.bin"
_FILES: dict[str, type[Ngram] | type[WordNgram]] = {"lm.arpa.gz": Ngram, "lm.npz": WordNgram}


def file_name(lm: StoredLm) -> str:
    """Return the name that the model's file has in a folder."""
    return next((name for name, kind in _FILES.items() if isinstance(lm, kind)), _KENLM)


def load_lm(folder: Path, tokeniser: Tokeniser) -> StoredLm | None:
    """Read the model of a folder, None if it has none.

    Raises :class:`raysr.errors.PoolError` if it is damaged, and ConfigError if it is KenLM's and that is not installed.
    """
    for name, kind in _FILES.items():
        if (folder / name).exists():
            return kind.load(folder / name)
    return KenLm(folder / _KENLM, pieces(tokeniser)) if (folder / _KENLM).exists() else None


def pieces(tokeniser: Tokeniser) -> list[str]:
    """Return how each token is spelt."""
    return [tokeniser.piece(token) for token in range(tokeniser.vocab_size)]
