"""ARPA back-off files: the text form of n-gram models that KenLM and SRILM share (SRILM's ngram-format(5)).

In the files we write the words are the decimal token ids, with ``<s>``, ``</s>`` and ``<unk>`` by their usual names;
the blank is left out, so that the vocabulary is as large as the header says that there are unigrams. Nine digits
bring every float32 back bit for bit.
"""

import gzip
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raysr.decode.arpa_file import ArpaFile, opened
from raysr.decode.hypothesis import BLANK, EOS
from raysr.decode.ngram_estimate import Level
from raysr.text.tokeniser import UNKNOWN

NEVER = -99.0
FLOOR = -20.0
"""The least log10 probability that a file from elsewhere can give, lest anything be impossible."""
SPECIAL = frozenset({"<s>", "</s>", "<unk>", "<UNK>"})
Gram = tuple[int, ...]
Grams = dict[Gram, tuple[float, float]]
"""n-grams of one order, their log10 probabilities and back-offs."""


def write(path: Path, levels: list[Level], vocab_size: int) -> None:
    """Write ``levels`` to ``path``, gzipped (without a time stamp) if its name ends in .gz."""
    words = [str(token) for token in range(vocab_size)] + ["<s>"]
    words[EOS], words[UNKNOWN] = "</s>", "<unk>"
    text = "\n".join(_lines(levels, words)) + "\n"
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _lines(levels: list[Level], words: list[str]) -> Iterator[str]:
    yield "\\data\\"
    for n, level in enumerate(levels, start=1):
        yield f"ngram {n}={len(level) - (n == 1)}"
    spelled = [""]
    for n, level in enumerate(levels, start=1):
        yield f"\n\\{n}-grams:"
        parents = level.prefix.tolist()
        spelled = [
            f"{spelled[p]} {words[t]}".lstrip() for p, t in zip(parents, level.token.tolist(), strict=True)
        ]
        rows = zip(level.log10_prob.tolist(), spelled, level.log10_backoff.tolist(), strict=True)
        for i, (prob, gram, backoff) in enumerate(rows):
            if n == 1 and i == BLANK:
                continue
            tail = f"\t{backoff:.9g}" if backoff else ""
            yield f"{prob if math.isfinite(prob) else NEVER:.9g}\t{gram}{tail}"
    yield "\n\\end\\"


def read(path: Path) -> tuple[list[Level], int]:
    """Read what :func:`write` wrote; return the levels and the vocabulary size.

    Raises :class:`raysr.errors.PoolError` naming the file and line that is not understood.
    """
    with opened(path) as file:
        vocab_size = file.counts[0]
        ids = {str(token): token for token in range(vocab_size) if token not in (BLANK, UNKNOWN, EOS)}
        found = _collect(file, _with_special(ids, vocab_size), ours=True)
        return _levels(found), vocab_size


def read_words(path: Path, ids: Mapping[str, int], vocab_size: int) -> list[Level]:
    """Read a model from elsewhere over the words ``ids``; what it says of other words is left out.

    The probability of ``<unk>``, or of the rarest word where there is no ``<unk>``, is shared out equally among it
    and the words that the file lacks; nothing is less probable than 10 to the power of ``FLOOR``. Where a pruned
    file lacks the prefix or the suffix of an n-gram, what backing off gives is put in.

    Raises :class:`raysr.errors.PoolError` naming the file and line that is not understood, also where the file has
    none of the words.
    """
    with opened(path) as file:
        found = _collect(file, _with_special(ids, vocab_size), ours=False)
        if not any(EOS < token < vocab_size for (token,) in found[0]):
            raise ValueError("none of its words is known here")
        _share_unknown(found[0], vocab_size)
        _close(found)
        return _levels(found)


def words(path: Path) -> list[str]:
    """Return the words of a model, without ``<s>``, ``</s>`` and ``<unk>``; raises as :func:`read_words` does."""
    with opened(path) as file:
        return [gram[0] for gram, _, _ in file.grams(highest=1) if gram[0] not in SPECIAL]


def _with_special(ids: Mapping[str, int], vocab_size: int) -> dict[str, int]:
    return {**ids, "</s>": EOS, "<unk>": UNKNOWN, "<UNK>": UNKNOWN, "<s>": vocab_size}


def _collect(file: ArpaFile, ids: Mapping[str, int], ours: bool) -> list[Grams]:
    """Return the n-grams of known words by order; in a file of ours nothing is unknown, missing or floored."""
    found: list[Grams] = [{} for _ in file.counts]
    for gram, prob, backoff in file.grams():
        tokens = tuple(ids[word] for word in gram if word in ids)
        grams, shorter = found[len(gram) - 1], found[len(gram) - 2]
        if tokens in grams:
            raise ValueError(f"{' '.join(gram)} is there twice")
        if ours and len(tokens) < len(gram):
            raise ValueError(f"{' '.join(gram)} is of another vocabulary")
        if ours and len(gram) > 1 and not {tokens[:-1], tokens[1:]} <= shorter.keys():
            raise ValueError(f"{' '.join(gram)} lacks a shorter n-gram")
        if ours:
            grams[tokens] = (prob if prob > NEVER else -math.inf, backoff)
        elif len(tokens) == len(gram):
            grams[tokens] = (max(prob, FLOOR), max(backoff, FLOOR))
    while len(found) > 1 and not found[-1]:
        found.pop()
    return found


def _share_unknown(unigrams: Grams, vocab_size: int) -> None:
    """Complete the unigrams of the tokens from 1 and of ``<s>``."""
    spoken = [prob for (token,), (prob, _) in unigrams.items() if token != vocab_size]
    unknown, backoff = unigrams.get((UNKNOWN,), (min(spoken), 0.0))
    missing = [token for token in range(1, vocab_size) if (token,) not in unigrams and token != UNKNOWN]
    share = unknown - math.log10(1 + len(missing))
    unigrams |= {(token,): (share, 0.0) for token in missing}
    unigrams[UNKNOWN,] = (share, backoff)
    unigrams[vocab_size,] = (-math.inf, unigrams.get((vocab_size,), (0.0, 0.0))[1])


def _close(found: list[Grams]) -> None:
    """Put in the prefixes and suffixes that n-grams lack, with the probabilities that backing off gives."""
    lacking: list[Gram] = []
    for longer, shorter in zip(found[:0:-1], found[-2::-1], strict=True):
        for part in {part for gram in longer for part in (gram[:-1], gram[1:])} - shorter.keys():
            shorter[part] = (-math.inf, 0.0)
            lacking.append(part)
    for gram in reversed(lacking):  # the shortest first, whose parts are all there
        grams, below = found[len(gram) - 1], found[len(gram) - 2]
        grams[gram] = (below[gram[:-1]][1] + below[gram[1:]][0], 0.0)


def _levels(found: list[Grams]) -> list[Level]:
    found[0][BLANK,] = (-math.inf, 0.0)
    numbers: dict[Gram, int] = {(): 0}
    levels = []
    for n, grams in enumerate(found):
        below, numbers = numbers, {gram: i for i, gram in enumerate(sorted(grams))}
        prefix = _integers([below[gram[:-1]] for gram in numbers])
        suffix = _integers([below[gram[1:]] for gram in numbers]) if n else np.arange(len(grams))
        prob = np.asarray([grams[gram][0] for gram in numbers], np.float32)
        backoff = np.asarray([grams[gram][1] for gram in numbers], np.float32)
        levels.append(Level(prefix, _integers([gram[-1] for gram in numbers]), suffix, prob, backoff))
    return levels


def _integers(values: list[int]) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)
