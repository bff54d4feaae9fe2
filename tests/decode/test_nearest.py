"""The hypothesis nearest to the reference, against word errors counted by recursion."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.nearest import nearest

words = st.lists(st.sampled_from("abc"), max_size=5)


@settings(deadline=None)
@given(reference=words, nbest=st.lists(st.tuples(words, st.integers(-3, 0)), min_size=1, max_size=6))
def test_the_nearest_hypothesis_has_the_fewest_word_errors(
    reference: list[str], nbest: list[tuple[list[str], int]]
) -> None:
    chosen = nearest(" ".join(reference), [" ".join(h) for h, _ in nbest], [score for _, score in nbest])
    errors = [word_errors(reference, hypothesis) for hypothesis, _ in nbest]
    assert errors[chosen] == min(errors)
    assert nbest[chosen][1] == max(nbest[n][1] for n in range(len(nbest)) if errors[n] == errors[chosen])


def word_errors(reference: list[str], hypothesis: list[str]) -> int:
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    return min(
        word_errors(reference[1:], hypothesis[1:]) + (reference[0] != hypothesis[0]),
        word_errors(reference[1:], hypothesis) + 1,
        word_errors(reference, hypothesis[1:]) + 1,
    )


def test_of_no_hypotheses_none_is_nearest() -> None:
    with pytest.raises(ValueError, match="empty"):
        nearest("a b", [], [])
