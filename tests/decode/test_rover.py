"""ROVER against brute force on small cases, and the properties that a vote by words has to have."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.rover import GAP, SUBSTITUTION, network, rover

WORDS = st.lists(st.sampled_from("abc"), max_size=4)


def elected(texts: Sequence[str], *args: object, **options: float) -> str:
    return " ".join(e.word for e in rover(texts, *args, **options) if e.word is not None)  # type: ignore[arg-type]


def alignments(slots: int, words: int) -> Iterator[list[tuple[int | None, int | None]]]:
    """Yield every way to pair slots and words in order, each side with gaps."""
    if not slots and not words:
        yield []
        return
    if slots and words:
        yield from ([*rest, (slots - 1, words - 1)] for rest in alignments(slots - 1, words - 1))
    if slots:
        yield from ([*rest, (slots - 1, None)] for rest in alignments(slots - 1, words))
    if words:
        yield from ([*rest, (None, words - 1)] for rest in alignments(slots, words - 1))


def cost(slots: Sequence[Sequence[str | None]], words: Sequence[str], pairs: Sequence) -> tuple[int, int]:
    """What an alignment costs, and how few votes it joins: the definition, a pair at a time."""
    total = joined = 0
    for slot, word in pairs:
        said = None if word is None else words[word]
        if slot is None:
            total += GAP
        elif said in slots[slot]:
            joined += list(slots[slot]).count(said)
        else:
            total += GAP if said is None else SUBSTITUTION
    return total, -joined


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=3))
def test_each_transcript_joins_the_network_at_the_least_cost(transcripts: list[list[str]]) -> None:
    for count in range(1, len(transcripts) + 1):
        slots = network(transcripts[:count])
        for voter, words in enumerate(transcripts[:count]):
            assert [slot[voter] for slot in slots if slot[voter] is not None] == words
        assert all(any(word is not None for word in slot) for slot in slots)
        if count > 1:
            before = [slot[:-1] for slot in slots]
            kept = [slot for slot in before if any(w is not None for w in slot)]
            assert kept == network(transcripts[: count - 1])
            place = iter(range(len(kept)))
            spoken = iter(range(len(transcripts[count - 1])))
            pairs = [
                (
                    next(place) if any(w is not None for w in slot[:-1]) else None,
                    None if slot[-1] is None else next(spoken),
                )
                for slot in slots
            ]
            words = transcripts[count - 1]
            assert cost(kept, words, pairs) == min(
                cost(kept, words, candidate) for candidate in alignments(len(kept), len(words))
            )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), max_size=4), min_size=1, max_size=4
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_the_best_scored_word_of_every_slot_wins(said: list, alpha: float, null: float) -> None:
    texts = [" ".join(word for word, _ in one) for one in said]
    confidences = [[c for _, c in one] for one in said]
    winners = rover(texts, confidences, alpha=alpha, null_confidence=null)
    slots = network([text.split() for text in texts])
    left = [list(c) for c in confidences]
    for winner, slot in zip(winners, slots, strict=True):
        sure = [null if word is None else left[voter].pop(0) for voter, word in enumerate(slot)]
        scores = {
            word: alpha * slot.count(word) / len(slot)
            + (1 - alpha) * sum(c for c, w in zip(sure, slot, strict=True) if w == word) / slot.count(word)
            for word in slot
        }
        assert winner.score == pytest.approx(max(scores.values()))
        assert winner.score == pytest.approx(scores[winner.word])
    for voters in (len(texts), len(texts) + 2):
        votes = rover(texts, voters=voters)
        assert [v.word for v in votes] == [v.word for v in rover(texts)]
        assert all(0 < vote.score <= len(texts) / voters + 1e-9 for vote in votes)


@given(WORDS, st.integers(1, 5), st.floats(0, 1))
def test_those_who_agree_are_taken_at_their_word(words: list[str], voters: int, alpha: float) -> None:
    text = " ".join(words)
    assert elected([text] * voters, alpha=alpha) == text
    assert all(e.score == 1 for e in rover([text] * voters))


@settings(max_examples=300, deadline=None)
@given(WORDS, WORDS, st.integers(0, 2))
def test_two_of_three_outvote_the_third(pair: list[str], other: list[str], place: int) -> None:
    texts = [" ".join(pair)] * 2
    texts.insert(place, " ".join(other))
    assert elected(texts) == " ".join(pair)


@given(st.lists(WORDS, min_size=3, max_size=3))
def test_what_most_of_three_say_at_a_slot_is_elected(transcripts: list[list[str]]) -> None:
    slots = network(transcripts)
    for slot, winner in zip(slots, rover([" ".join(t) for t in transcripts]), strict=True):
        most = max(slot, key=slot.count)
        if slot.count(most) >= 2:
            assert winner.word == most
        else:
            assert winner.word == slot[0]  # all differ: the first voter's, deterministically


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_order_is_of_no_matter_where_the_places_are_certain(mistaken: list[int]) -> None:
    """Every word is of one place only, and at each place at most one of three voters says another word."""
    texts = [
        " ".join(f"odd{place}" if who == voter else f"word{place}" for place, who in enumerate(mistaken))
        for voter in range(3)
    ]
    expected = " ".join(f"word{place}" for place in range(len(mistaken)))
    assert {elected(order) for order in permutations(texts)} == {expected}


def test_words_are_put_in_and_left_out_by_majority() -> None:
    said = ["we met today", "we met up today", "we meet up today now"]
    assert elected(said) == "we met up today"
    assert elected(["and we met", "we met", "we met"]) == "we met"


def test_a_sure_voter_outvotes_two_doubtful_ones_where_confidence_counts() -> None:
    texts, confidences = ["a", "b", "b"], [[0.9], [0.2], [0.3]]
    assert elected(texts, confidences, alpha=1.0) == "b"
    assert elected(texts, confidences, alpha=0.2) == "a"
    assert elected(["", "b"], alpha=0.0, null_confidence=0.6) == ""  # an unknown confidence is a half
    assert elected(["", "b"], alpha=0.0, null_confidence=0.4) == "b"


def test_confidences_have_to_fit() -> None:
    with pytest.raises(ValueError, match="a confidence for each of its words"):
        rover(["a b"], [[0.5]])
