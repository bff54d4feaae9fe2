"""The language model in a folder: a token n-gram as ARPA text, a word n-gram as a NumPy archive."""

from pathlib import Path

from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram

StoredLm = Ngram | WordNgram

_FILES: dict[str, type[Ngram] | type[WordNgram]] = {"lm.arpa.gz": Ngram, "lm.npz": WordNgram}


def file_name(lm: StoredLm) -> str:
    """Return the name that the model's file has in a folder."""
    return next(name for name, kind in _FILES.items() if isinstance(lm, kind))


def load_lm(folder: Path) -> StoredLm | None:
    """Read the model of a folder, None if it has none; raise :class:`raysr.errors.PoolError` if it is damaged."""
    for name, kind in _FILES.items():
        if (folder / name).exists():
            return kind.load(folder / name)
    return None
