"""The prefix tree against sets of prefixes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.decode.lexicon import FIRST_WORD, NO_WORD, ROOT, Lexicon

spellings = st.lists(
    st.lists(st.integers(3, 6), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12, unique=True
)


def node_of(lexicon: Lexicon, prefix: tuple[int, ...]) -> int:
    node = np.asarray([ROOT])
    for token in prefix:
        node = lexicon.child(node, np.asarray([token]))
    return int(node[0])


@given(words=spellings, prefix=st.lists(st.integers(1, 9), max_size=6).map(tuple))
def test_every_prefix_of_a_word_has_a_node_and_nothing_else_has(
    words: list[tuple[int, ...]], prefix: tuple[int, ...]
) -> None:
    lexicon = Lexicon(words)
    begun = [word for word in words if word[: len(prefix)] == prefix]
    node = node_of(lexicon, prefix)
    assert (node != lexicon.out) == bool(begun)
    assert lexicon.word[node] == (FIRST_WORD + words.index(prefix) if prefix in words else NO_WORD)
    if begun:
        below = lexicon.order[lexicon.first[node] : lexicon.end[node]]
        assert {words[number - FIRST_WORD] for number in below} == set(begun)
        if prefix in words:  # a word comes before those that it begins
            assert words[int(below[0]) - FIRST_WORD] == prefix


@given(words=spellings)
def test_the_children_of_many_nodes_are_what_each_one_leads_to(words: list[tuple[int, ...]]) -> None:
    lexicon = Lexicon(words)
    nodes = np.asarray([node_of(lexicon, word[:n]) for word in words for n in range(len(word) + 1)])
    parents, tokens, children = lexicon.children(nodes)
    found = list(zip(parents.tolist(), tokens.tolist(), children.tolist(), strict=True))
    expected = [
        (place, token, int(child))
        for place, node in enumerate(nodes)
        for token in range(10)
        if (child := lexicon.child(np.asarray([node]), np.asarray([token]))[0]) != lexicon.out
    ]
    assert found == expected


@pytest.mark.parametrize("words", [[()], [(3, 4), (3, 4)]])
def test_words_without_a_spelling_of_their_own_are_refused(words: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="spelling of its own"):
        Lexicon(words)
