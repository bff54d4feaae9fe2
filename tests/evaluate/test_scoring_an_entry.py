"""Scoring a pool entry: parts add up to the whole, and each method decodes as it says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raysr.audio.files import write_wav
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.greedy import greedy
from raysr.decode.ngram import Ngram
from raysr.decode.recognise import DecodeConfig
from raysr.errors import CorpusError
from raysr.evaluate.evaluate import (
    METHODS,
    Scores,
    decoding,
    label_counts,
    label_wer,
    score_entry,
    score_part,
)
from raysr.evaluate.wer import ErrorCounts
from raysr.ipl.decisions import Decision
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import Entry, EntryConfig, Pool, load_entry
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

TEXTS = ["a b", "ab ba", "b", "ba ab a", "a"]


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    torch.manual_seed(3)
    tokeniser = Tokeniser.train(TEXTS, TokeniserConfig.parse({"kind": "char"}))
    small = {"dim": 16, "layers": 1, "heads": 2, "feed_forward": 16}
    model = {"encoder": small, "decoder": {"layers": 1, "heads": 2, "feed_forward": 16}}
    config = EntryConfig(
        model=ModelConfig.parse(model), decode=DecodeConfig.parse({"beam": 4, "lm_weight": 2.0})
    )
    lm = Ngram.train([tokeniser.encode(text) for text in TEXTS], 3, tokeniser.vocab_size)
    student = AsrModel(config.model, tokeniser.vocab_size)
    return Pool(tmp_path_factory.mktemp("pool")).publish("one", student, tokeniser, lm, {}, config)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("audio")
    generator = np.random.default_rng(0)
    made = []
    for number, text in enumerate(TEXTS):
        length = 8000 + 3200 * number
        write_wav(folder / f"{number}.wav", (0.2 * generator.standard_normal(length)).astype(np.float32))
        made.append(Utterance(f"u{number}", str(folder / f"{number}.wav"), length / 16000, text=text))
    return made


@pytest.fixture(scope="module")
def cache(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    assert cache.ensure(utterances) == {}
    return cache


def test_parts_add_up_to_the_whole(entry: Entry, utterances: list[Utterance], cache: FeatureCache) -> None:
    recogniser = load_entry(entry)
    for method in ("greedy", "lm"):
        whole = score_part(recogniser, utterances, cache, method)
        parts = sum((score_part(recogniser, [u], cache, method) for u in utterances), Scores())
        assert [row.id for row in whole.rows] == [u.id for u in utterances]
        assert parts == whole
        assert whole.words.reference == sum(len(text.split()) for text in TEXTS)


def test_an_entry_is_scored_on_every_set_by_every_method(
    entry: Entry, utterances: list[Utterance], cache: FeatureCache
) -> None:
    found = score_entry(entry, {"all": utterances, "one": utterances[:1]}, cache)
    recogniser = load_entry(entry)
    assert set(found) == {"greedy", "lm"}
    for method, sets in found.items():
        assert set(sets) == {"all", "one"}
        assert sets["all"] == score_part(recogniser, utterances, cache, method).wer


def test_greedy_is_the_best_path_of_the_model_alone(
    entry: Entry, utterances: list[Utterance], cache: FeatureCache
) -> None:
    recogniser = load_entry(entry)
    scores = score_part(recogniser, utterances, cache, "greedy")
    for row, utterance in zip(scores.rows, utterances, strict=True):
        features = cache.get(utterance)
        with torch.inference_mode():
            encoded = recogniser.model.encode(features[None], torch.tensor([len(features)]))
            (best,) = greedy(recogniser.model.ctc_log_probs(encoded.out), encoded.lengths)
        assert row.hypothesis.split() == recogniser.tokeniser.decode(list(best.tokens)).split()


@pytest.mark.parametrize("method", ["greedy", "beam", "rescore"])
def test_the_lm_column_always_searches(method: str) -> None:
    weights = {"bias": 0.1, "agreement": 1.0, "acoustic": 0.5, "utterance": 0.0, "length": 0.2}
    config = DecodeConfig.parse({"method": method, "lm_weight": 0.7, "calibration": weights})
    assert decoding(config, "greedy").method == "greedy"
    assert decoding(config, "lm").method == ("beam" if method == "greedy" else method)
    assert decoding(config, "lm").lm_weight == 0.7
    for column in METHODS:
        chosen = decoding(config, column)
        assert (chosen.calibration is None) == (chosen.method != method), (
            "it belongs to the decoding it was fitted with"
        )


def test_a_test_utterance_without_a_transcript_is_named(
    entry: Entry, utterances: list[Utterance], cache: FeatureCache
) -> None:
    with pytest.raises(CorpusError, match="'u1' has no transcript"):
        score_part(load_entry(entry), [utterances[1].with_text(None)], cache, "greedy")


def test_labels_are_scored_by_what_became_of_them(tmp_path: Path) -> None:
    decisions = [
        Decision("a", "kept", "one two", None, None, 1.0, ""),
        Decision("b", "kept", "three", None, None, 1.0, ""),
        Decision("c", "filtered", "five five", "score", None, 1.0, ""),
        Decision("d", "failed", None, "no audio", None, 1.0, ""),
        Decision("e", "kept", "not in the truth", None, None, 1.0, ""),
    ]
    truth = {"a": "one too", "b": "3", "c": "six", "d": "seven"}
    assert label_wer(decisions, truth) == pytest.approx(1 / 3)
    assert label_counts(decisions, truth)["filtered"] == ErrorCounts(substitutions=1, insertions=1)
    assert "failed" not in label_counts(decisions, truth)
    assert label_wer(decisions, {}) is None
    rows = [{"id": "a", "status": "kept", "text": "one two"}]
    assert label_wer(rows, truth) == 0.5
