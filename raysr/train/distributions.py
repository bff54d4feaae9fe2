"""A teacher's distributions at every token of texts, on disk: Arrow IPC files, written once, read by memory mapping.

A row holds an utterance's id, the tokens of the text, and for each token and eos the log-probabilities of the
teacher's K likeliest tokens, in float16, which changes a divergence by a thousandth. A file appears whole or not
at all, and says which tokeniser the tokens are of.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysr.corpus.disk import replacing
from raysr.errors import RunError
from raysr.text.tokeniser import Tokeniser

SUFFIX = ".arrow"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("log_probs", pa.large_list(pa.float16())),
        ("ids", pa.large_list(pa.int32())),
    ]
)


class TokenDistributions(NamedTuple):
    """Of one text: log-probabilities (U + 1, K) at temperature 1, and the tokens (U + 1, K) that they are of."""

    log_probs: NDArray[np.float16]
    ids: NDArray[np.int32]


class Row(NamedTuple):
    """An utterance's id, the tokens (U,) of its text, and the distributions at them and at eos."""

    id: str
    tokens: Sequence[int]
    distributions: TokenDistributions


def write_distributions(path: Path, rows: Sequence[Row], k: int, tokeniser: Tokeniser) -> None:
    """Write a file of rows whose distributions have ``k`` tokens each."""
    table = pa.table(
        {
            "id": [row.id for row in rows],
            "tokens": [list(row.tokens) for row in rows],
            "log_probs": [row.distributions.log_probs.reshape(-1) for row in rows],
            "ids": [row.distributions.ids.reshape(-1) for row in rows],
        },
        schema=_SCHEMA.with_metadata({"k": str(k), "tokeniser": tokeniser.contract()}),
    ).combine_chunks()
    with replacing(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


class StoredDistributions:
    """All files of some folders, by the utterances' ids; later folders have the last word.

    Raises:
        RunError: they are of another tokeniser, or differ in how many tokens they keep; names the file.
    """

    def __init__(self, folders: Sequence[Path], tokeniser: Tokeniser) -> None:
        self.k = 0
        self._places: dict[str, tuple[pa.Table, int]] = {}
        for path in (path for folder in folders for path in sorted(folder.glob(f"[!.]*{SUFFIX}"))):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            facts = table.schema.metadata
            if facts[b"tokeniser"].decode() != tokeniser.contract():
                raise RunError(f"{path}: its tokens are of another tokeniser than the run's; remove the file")
            if self.k and int(facts[b"k"]) != self.k:
                raise RunError(
                    f"{path}: has {int(facts[b'k'])} tokens at a place, others have {self.k}; remove it"
                )
            self.k = int(facts[b"k"])
            self._places.update((name, (table, row)) for row, name in enumerate(table["id"].to_pylist()))

    def __len__(self) -> int:
        return len(self._places)

    def get(self, name: str, tokens: NDArray[np.int64]) -> TokenDistributions | None:
        """Return the distributions at these tokens (U,) of an utterance; None where there are none of this text."""
        table, row = self._places.get(name, (None, 0))
        if table is None or not np.array_equal(table["tokens"][row].values.to_numpy(), tokens):
            return None
        log_probs, ids = (
            table[column][row].values.to_numpy().reshape(-1, self.k) for column in ("log_probs", "ids")
        )
        return TokenDistributions(log_probs, ids)
