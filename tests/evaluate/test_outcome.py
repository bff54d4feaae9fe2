"""What is told of an outcome: its parts add up, and its numbers are those of the modules that make them."""

import json
import random
from dataclasses import replace

import pytest

from raysr.corpus.utterance import Utterance
from raysr.decode.words import Word
from raysr.errors import CorpusError
from raysr.evaluate import tables
from raysr.evaluate.alignment import align, count
from raysr.evaluate.evaluate import Recognised
from raysr.evaluate.outcome import Lateness, Outcome
from raysr.evaluate.wer import ErrorCounts, total

WORDS = ("olga", "met", "priya", "at", "noon")


def outcome(method: str = "greedy", seed: int = 0, wrong: float = 0.3) -> Outcome:
    """Return forty utterances of four speakers, recognised badly, a wrong word with less confidence."""
    draws = random.Random(seed)
    utterances, recognised, lateness = [], [], []
    for number in range(40):
        said = random.Random(number).choices(WORDS, k=1 + number % 5)
        heard = [draws.choice(WORDS) if draws.random() < wrong else word for word in said]
        sure = (0.9 if one == other else 0.3 for one, other in zip(said, heard, strict=True))
        words = tuple(
            Word(w, n / 2, (n + 1) / 2, c) for n, (w, c) in enumerate(zip(heard, sure, strict=True))
        )
        tags = {"room": "hall" if number % 3 else "car"}
        utterance = Utterance(
            f"u{number}", "a.wav", 1 + number % 7, text=" ".join(said), speaker=f"s{number % 4}", tags=tags
        )
        utterances.append(utterance)
        recognised.append(Recognised(utterance.id, " ".join(heard), words))
        lateness.append(Lateness({"emission": [0.1 * (number % 10)]}, number % 2))
    return Outcome.of("clean", method, utterances, recognised, computing=16.0, lateness=lateness)


@pytest.mark.parametrize(
    "name_of", [lambda u: u.speaker, lambda u: u.tags["room"], lambda u: f"{u.duration:g} s"]
)
def test_groups_add_up_to_the_whole(name_of: tables.NameOf) -> None:
    whole = outcome()
    groups = whole.groups(name_of)
    assert total(group.words for group in groups.values()) == whole.words
    assert total(group.characters for group in groups.values()) == whole.characters
    assert sum(len(group.rows) for group in groups.values()) == 40
    for value, group in groups.items():
        assert {name_of(utterance) for utterance in group.utterances} == {value}
        assert [row.id for row in group.rows] == [one.id for one in group.recognised]


def test_durations_are_in_their_order() -> None:
    names = {0: "under 2 s", 1: "2 to 4 s", 2: "16 s and more", 3: "4 to 8 s", 4: "8 to 16 s"}
    groups = outcome().groups(lambda u: names[int(u.id[1:]) % 5])
    assert list(groups) == ["under 2 s", "2 to 4 s", "4 to 8 s", "8 to 16 s", "16 s and more"]


def test_the_summary_is_what_the_parts_say() -> None:
    found = outcome().summary().as_json()
    assert found["wer"] == outcome().words.rate
    assert found["interval"][0] <= found["wer"] <= found["interval"][1]
    assert found["mer"] == found["wer"]
    assert found["seconds"] == sum(1 + n % 7 for n in range(40))
    assert found["real_time_factor"] == pytest.approx(16.0 / found["seconds"])
    assert found["confidence"]["area"] > 0.9, "nearly every wrong word has less confidence than a right one"
    assert found["late"]["emission"] == {"p50": 0.45, "p95": 0.9}
    assert found["unstable"] == pytest.approx(20 / sum(1 + n % 5 for n in range(40)))


def test_of_given_texts_only_errors_are_known() -> None:
    spoken = [Utterance("u1", "a.wav", 1.0, text="on and on"), Utterance("u2", "b.wav", 1.0, text="...")]
    found = Outcome.of("clean", "given", spoken, [Recognised("u1", "on"), Recognised("u2", "hm")])
    assert found.words == ErrorCounts(1, 0, 2, 1)
    summary = found.summary()
    assert (summary.confidence, summary.real_time_factor, summary.unstable) == (None, None, None)
    assert summary.interval is not None
    assert 0 <= summary.interval.low <= summary.interval.high <= 4 / 3, "draws without a word say nothing"
    (table,) = tables.tables("texts", [summary], [], [], "")
    assert list(table.columns) == [
        "set",
        "method",
        "WER",
        "95% interval",
        "sub",
        "del",
        "ins",
        "words",
        "CER",
    ]
    json.dumps(summary.as_json(), allow_nan=False)


def test_a_set_without_a_word_has_no_rate() -> None:
    silent = Outcome.of("silent", "given", [Utterance("u", "a.wav", 1.0, text="")], [Recognised("u", "")])
    assert silent.interval() is None
    assert silent.summary().as_json()["wer"] is None
    assert silent.against(silent) is None
    (table,) = tables.tables("texts", [silent.summary()], [], [], "")
    assert table.rows == [["silent", "given", "0", "0", "0", "0"]]


def test_one_unit_alone_has_no_interval() -> None:
    found = outcome()
    assert found.interval(["one speaker"] * 40) is None
    assert found.against(outcome(seed=1), ["one speaker"] * 40) is None
    assert found.interval(["one", *["another"] * 39]) is not None


def test_other_utterances_are_no_comparison() -> None:
    found = outcome()
    fewer = replace(found, rows=found.rows[1:])
    with pytest.raises(CorpusError, match=r"set 'clean'.*not of the same utterances"):
        found.against(fewer)


def test_an_utterance_without_a_text_is_named() -> None:
    with pytest.raises(CorpusError, match="'u1' has no transcript"):
        Outcome.of("clean", "given", [Utterance("u1", "a.wav", 1.0)], [Recognised("u1", "a")])


def test_words_are_counted_by_the_costs_asked_for() -> None:
    spoken, heard = [Utterance("u", "a.wav", 1.0, text="v w x y z")], [Recognised("u", "y z p q r")]
    fewest, nist = (Outcome.of("clean", "given", spoken, heard, costs) for costs in ("levenshtein", "nist"))
    assert fewest.words == count(align(["v", "w", "x", "y", "z"], ["y", "z", "p", "q", "r"]))
    assert nist.words == ErrorCounts(2, 0, 3, 3)
    assert fewest.characters == nist.characters


def test_systems_are_compared_by_set_method_and_group() -> None:
    one, other = outcome(), outcome(seed=1, wrong=0.8)
    found = tables.comparisons([one], [other], {"tag:room": lambda u: u.tags["room"]})
    assert [label for label, *_ in found] == ["clean", "clean, room=car", "clean, room=hall"]
    assert found[0].comparison == one.against(other)
    assert found[0].comparison.difference.high < 0
    assert tables.comparisons([outcome("greedy")], [outcome("lm")], {})[0].method == "greedy, lm"
    assert tables.comparisons([outcome("greedy")], [outcome("lm"), outcome("stream")], {}) == []


def test_punctuation_is_no_word_to_be_sure_of() -> None:
    spoken = [Utterance("u", "a.wav", 1.0, text="well, yes.")]
    words = tuple(Word(text, 0.0, 0.1, 0.9) for text in ("well", ",", "yes", "."))
    found = Outcome.of("clean", "given", spoken, [Recognised("u", "well, yes.", words)]).summary().confidence
    assert found is not None
    assert found.words == 2


def test_tables_leave_out_what_nobody_knows() -> None:
    one, other = outcome(), outcome("stream", seed=1)
    compared = tables.comparisons([one], [one], {})
    words = tables.wanted([one], {"names": {"olga", "priya"}, "none": {"nobody"}})
    made = {
        table.title: table
        for table in tables.tables("m", [one.summary(), other.summary()], words, compared, "m2")
    }
    assert list(made) == ["m", "confidence of words", "time", "words that matter", "m against m2"]
    assert "MER" not in made["m"].columns
    assert "final p50/p95" not in made["time"].columns
    assert [row[0] for row in made["words that matter"].rows] == ["clean, names", "clean, none"]
    assert all(len(row) == len(table.columns) for table in made.values() for row in table.rows)


def test_names_are_counted_as_wholes() -> None:
    spoken = [
        Utterance("u1", "a", 1.0, text="olga met priya at noon"),
        Utterance("u2", "b", 1.0, text="olga met"),
    ]
    heard = [Recognised("u1", "olga met priya and noon"), Recognised("u2", "olga")]
    found = Outcome.of("clean", "given", spoken, heard).wanted({"olga met", "priya"})
    assert (found.said, found.recalled, found.claimed) == (3, 2, 2)
