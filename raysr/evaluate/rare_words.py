"""How many of the words that matter are recognised, names above all, and what the others have paid for it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True, slots=True)
class RareWords:
    """Wanted words that were said and that were recognised, and errors among all others; counts add up."""

    said: int = 0
    recalled: int = 0
    claimed: int = 0
    others: int = 0
    errors: int = 0

    def __add__(self, more: "RareWords") -> "RareWords":
        return RareWords(
            self.said + more.said,
            self.recalled + more.recalled,
            self.claimed + more.claimed,
            self.others + more.others,
            self.errors + more.errors,
        )

    @property
    def recall(self) -> float | None:
        """Share of the wanted words said that were recognised in their place."""
        return self.recalled / self.said if self.said else None

    @property
    def precision(self) -> float | None:
        """Share of the wanted words recognised that were said in that place."""
        return self.recalled / self.claimed if self.claimed else None

    @property
    def other_wer(self) -> float | None:
        """Errors per word that is not wanted; whatever was put in where nothing was said is among them."""
        return self.errors / self.others if self.others else None


def rare_words(references: Sequence[str], hypotheses: Sequence[str], wanted: Collection[str]) -> RareWords:
    """Count over normalised references and hypotheses, aligned word by word."""
    if not references:
        return RareWords()
    aligned = jiwer.process_words(list(references), list(hypotheses))
    total = RareWords()
    for said, heard, chunks in zip(aligned.references, aligned.hypotheses, aligned.alignments, strict=True):
        right = {i for c in chunks if c.type == "equal" for i in range(c.ref_start_idx, c.ref_end_idx)}
        names = {i for i, word in enumerate(said) if word in wanted}
        put_in = sum(c.hyp_end_idx - c.hyp_start_idx for c in chunks if c.type == "insert")
        total += RareWords(
            said=len(names),
            recalled=len(names & right),
            claimed=sum(word in wanted for word in heard),
            others=len(said) - len(names),
            errors=len(said) - len(names | right) + put_in,
        )
    return total
