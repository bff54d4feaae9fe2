"""Alignments keep every word, count as jiwer counts, and with NIST's costs as sclite does."""

import random
import shutil
import subprocess
from pathlib import Path

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.evaluate.alignment import Costs, align, count, readable
from raysr.evaluate.wer import ErrorCounts

COSTS: tuple[Costs, ...] = ("levenshtein", "nist")
words = st.lists(st.sampled_from(["a", "bb", "ccc", "dd"]), max_size=9)
SCLITE = Path("/usr/lib/sctk/bin/sclite")


@given(words, words, st.sampled_from(COSTS))
def test_every_word_is_in_one_pair_in_its_order(
    reference: list[str], hypothesis: list[str], costs: Costs
) -> None:
    pairs = align(reference, hypothesis, costs)
    assert [said for said, _ in pairs if said is not None] == reference
    assert [heard for _, heard in pairs if heard is not None] == hypothesis
    assert (None, None) not in pairs


@given(words, words)
def test_the_fewest_errors_are_jiwers(reference: list[str], hypothesis: list[str]) -> None:
    found = jiwer.process_words([" ".join(reference)], [" ".join(hypothesis)])
    counts = ErrorCounts(found.hits, found.substitutions, found.deletions, found.insertions)
    assert count(align(reference, hypothesis)) == counts


def cheapest(reference: list[str], hypothesis: list[str]) -> int:
    """Return the least cost, trying everything."""
    if not reference or not hypothesis:
        return 3 * (len(reference) + len(hypothesis))
    wrong = 0 if reference[0] == hypothesis[0] else 4
    return min(
        wrong + cheapest(reference[1:], hypothesis[1:]),
        3 + cheapest(reference[1:], hypothesis),
        3 + cheapest(reference, hypothesis[1:]),
    )


@given(words.map(lambda w: w[:6]), words.map(lambda w: w[:6]))
def test_nists_alignment_costs_the_least(reference: list[str], hypothesis: list[str]) -> None:
    found = count(align(reference, hypothesis, "nist"))
    cost = 4 * found.substitutions + 3 * (found.deletions + found.insertions)
    assert cost == cheapest(reference, hypothesis)


def test_a_right_word_may_be_worth_an_error_more() -> None:
    five, six = ["v", "w", "x", "y", "z"], ["y", "z", "p", "q", "r"]
    assert count(align(five, six)) == ErrorCounts(0, 5, 0, 0)
    assert count(align(five, six, "nist")) == ErrorCounts(2, 0, 3, 3)


def test_an_alignment_is_printed_as_sclite_prints_it() -> None:
    pairs = align(["the", "cat", "sat", "down"], ["the", "big", "cat", "sit"])
    assert readable("u1", pairs) == (
        "id: u1\n"
        "Scores: (#C #S #D #I) 2 1 1 1\n"
        "REF:  the *** cat SAT DOWN\n"
        "HYP:  the BIG cat SIT ****\n"
        "Eval:     I       S   D\n"
    )
    assert readable("silence", []) == "id: silence\nScores: (#C #S #D #I) 0 0 0 0\nREF:\nHYP:\nEval:\n"


def test_sclite_counts_alike_on_a_thousand_random_pairs(tmp_path: Path) -> None:
    if not SCLITE.exists() and shutil.which("sclite") is None:
        pytest.skip("needs sclite (Debian: sctk)")
    draws = random.Random(7)
    vocabulary = [f"w{number}" for number in range(12)]
    texts = []
    for _ in range(1000):
        reference = draws.choices(vocabulary, k=draws.randint(1, 14))
        kept = [draws.choice(vocabulary) if draws.random() < 0.25 else word for word in reference]
        kept = [word for word in kept if draws.random() > 0.2]
        for _ in range(draws.randint(0, 3)):
            kept.insert(draws.randint(0, len(kept)), draws.choice(vocabulary))
        texts.append((reference, kept))
    for name, side in (("ref", 0), ("hyp", 1)):
        lines = (f"{' '.join(pair[side])} (s-{number:04d})\n" for number, pair in enumerate(texts))
        (tmp_path / f"{name}.trn").write_text("".join(lines))
    told = subprocess.run(
        [
            str(SCLITE) if SCLITE.exists() else "sclite",
            *("-r", str(tmp_path / "ref.trn"), "trn", "-h", str(tmp_path / "hyp.trn"), "trn"),
            *("-i", "spu_id", "-o", "pra", "stdout"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    theirs: dict[int, ErrorCounts] = {}
    number = -1
    for line in told.splitlines():
        if line.startswith("id: (s-"):
            number = int(line[len("id: (s-") :].rstrip(")"))
        elif line.startswith("Scores: "):
            theirs[number] = ErrorCounts(*map(int, line.split()[-4:]))
    assert len(theirs) == 1000
    ours = {n: count(align(reference, heard, "nist")) for n, (reference, heard) in enumerate(texts)}
    assert ours == theirs
    assert any(ours[n] != count(align(*pair)) for n, pair in enumerate(texts)), "the costs matter"
