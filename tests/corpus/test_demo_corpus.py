"""The corpus that ships: parts that share no voice and no sentence, truth kept apart, audio that decodes."""

import shutil
from itertools import combinations

import numpy as np
import pytest

from raysr.corpus.demo import DATA, demo_corpus
from raysr.corpus.load import load_waveform
from raysr.errors import CorpusError


@pytest.fixture(scope="module")
def corpus():
    return demo_corpus()


@pytest.fixture(scope="module")
def parts(corpus):
    return {
        "labelled": list(corpus.labelled),
        "unlabelled": list(corpus.unlabelled),
        "dev": list(corpus.dev["clean"]),
        "test": list(corpus.tests["clean"]),
        "engine": list(corpus.tests["engine"]),
    }


def texts(corpus, utterances):
    return [utterance.text or corpus.truth[utterance.id] for utterance in utterances]


def test_it_is_large_enough_to_measure_and_small_enough_to_ship(parts):
    assert len(parts["test"]) >= 500
    assert len(parts["engine"]) >= 200
    hours = {name: sum(u.duration for u in part) / 3600 for name, part in parts.items()}
    assert 0.2 < hours["labelled"] < 0.35
    assert hours["unlabelled"] > 3 * hours["labelled"]
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 20_000_000


def test_no_voice_and_no_sentence_is_in_two_parts(corpus, parts):
    for one, other in combinations(parts, 2):
        assert not {u.speaker for u in parts[one]} & {u.speaker for u in parts[other]}
        assert not set(texts(corpus, parts[one])) & set(texts(corpus, parts[other]))


def test_training_mixes_engines_and_never_hears_the_engine_test(parts):
    engines = {name: {u.tags["engine"] for u in part} for name, part in parts.items()}
    assert len(engines["labelled"]) > 1
    assert len(engines["unlabelled"]) > 1
    assert not engines["engine"] & (engines["labelled"] | engines["unlabelled"])


def test_the_truth_of_the_unlabelled_is_kept_apart_and_whole(corpus, parts):
    assert all(u.text is None for u in parts["unlabelled"])
    assert set(corpus.truth) == {u.id for u in parts["unlabelled"]}


def test_open_names_are_unheard_in_the_labels_and_frequent_elsewhere(corpus, parts):
    def said(name):
        return [w in corpus.open_names for text in texts(corpus, parts[name]) for w in text.split()]

    assert not any(said("labelled"))
    for name in ("unlabelled", "dev", "test", "engine"):
        assert np.mean(said(name)) > 0.03


def test_labels_are_clean_and_most_of_the_unlabelled_is_not(parts):
    assert all(u.mix is None for name in parts if name != "unlabelled" for u in parts[name])
    assert 0.5 < np.mean([u.mix is not None for u in parts["unlabelled"]]) < 0.8
    assert {u.tags["mix"] for u in parts["unlabelled"]} >= {"clean", "music", "noise", "room+music"}
    assert all((u.mix is None) == (u.tags["mix"] == "clean") for part in parts.values() for u in part)


def test_music_is_the_same_speech_with_music_of_its_own(corpus):
    clean, music = list(corpus.tests["clean"]), list(corpus.tests["music"])
    assert [(u.audio, u.row, u.text) for u in clean] == [(u.audio, u.row, u.text) for u in music]
    assert not {u.id for u in clean} & {u.id for u in music}
    assert len({u.mix["seed"] for u in music}) == len(music)
    assert {u.mix["music"]["snr_db"] for u in music} == {10.0}


def test_audio_decodes_to_speech_of_the_length_that_is_written(parts):
    for part in parts.values():
        for utterance in part[::40]:
            samples = load_waveform(utterance)
            assert len(samples) / 16000 == pytest.approx(utterance.duration, abs=0.03)
            assert 0.01 < np.abs(samples).max() <= 1
            assert 1.2 < utterance.duration < 9


def test_speaking_rates_are_human(corpus, parts):
    for part in parts.values():
        words = sum(len(text.split()) for text in texts(corpus, part))
        assert 130 < words / sum(u.duration for u in part) * 60 < 190


def test_the_hash_follows_the_content(corpus, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(DATA, copy)
    assert demo_corpus(copy).hash == corpus.hash
    with open(copy / "unlabelled" / "truth.jsonl", "a") as file:
        file.write('{"id": "x", "text": "more"}\n')
    assert demo_corpus(copy).hash != corpus.hash


def test_a_missing_corpus_says_how_to_build_one(tmp_path):
    with pytest.raises(CorpusError, match=r"raysr\.corpus\.demo\.build"):
        len(demo_corpus(tmp_path).labelled)
