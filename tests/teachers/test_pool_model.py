"""A pool entry teaches alike from waveforms and from features; several teach as their average."""

from typing import Any

import jiwer
import numpy as np
import pytest
import torch

from raysr.audio.fbank import Fbank
from raysr.config import Spec
from raysr.decode.ngram import Ngram
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import Entry, EntryConfig, Pool, average
from raysr.teachers.base import TEACHERS, FeatureTeacher, TeacherContext
from raysr.text.tokeniser import Tokeniser

CONFIG = ModelConfig(
    encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
    decoder=DecoderConfig(heads=2, feed_forward=16),
)


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, n).astype(np.float32) for n in (16000, 9000, 24000)]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    pool = Pool(tmp_path_factory.mktemp("pool"))
    tokeniser = Tokeniser.train(["one two three"])
    lm = Ngram.train([tokeniser.encode("one two")], 2, tokeniser.vocab_size)
    config = EntryConfig(model=CONFIG, decode=DecodeConfig(method="rescore", beam=4))
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = AsrModel(CONFIG, tokeniser.vocab_size)
        found.append(pool.publish(f"e{seed}", model, tokeniser, lm, {}, config))
    return found


def teacher(*entries: Entry, **options: Any) -> Any:
    spec = Spec(kind="pool_model", entries=[str(e.path) for e in entries], **options)  # type: ignore[call-arg]
    return TEACHERS.build(spec, TeacherContext())


def test_waveforms_and_their_features_give_the_same(
    entries: list[Entry], waveforms: list[np.ndarray]
) -> None:
    one = teacher(entries[0])
    assert isinstance(one, FeatureTeacher)
    outputs = one.transcribe(waveforms)
    assert outputs == one.transcribe_features([Fbank(one.fbank)(torch.from_numpy(w)) for w in waveforms])
    for output in outputs:
        assert output.error is None
        assert output.ctc_attention_agreement is not None
        assert 0 <= output.ctc_attention_agreement <= 1
        assert output.normalised_score == pytest.approx(output.score / max(1, len(output.tokens)))
        assert len(output.confidences) == len(output.tokens)
        assert len(output.word_confidences) == len(output.text.split())


def test_a_label_made_with_a_language_model_comes_with_the_reading_of_ctc_alone(
    entries: list[Entry], waveforms: list[np.ndarray]
) -> None:
    r = teacher(entries[0]).recogniser
    features = [Fbank(r.config.fbank)(torch.from_numpy(w)) for w in waveforms]
    alone = recognise(r.model, r.tokeniser, features, DecodeConfig(method="greedy"))
    readings = [" ".join(r.tokeniser.decode(list(h.tokens)).split()) for (h,) in alone]
    for method, nbest in (("beam", 4), ("rescore", 4), ("rescore", 1)):
        decode = {"method": method, "beam": 4, "nbest": nbest}
        outputs = teacher(entries[0], decode=decode).transcribe_features(features)
        assert [o.text_without_lm for o in outputs] == readings
        assert [o.ctc_attention_agreement is None for o in outputs] == [(method, nbest) != ("rescore", 4)] * 3
        assert [o.ended for o in outputs] == [None] * 3
    for output, hypotheses in zip(
        teacher(entries[0]).transcribe_features(features),
        recognise(r.model, r.tokeniser, features, r.config.decode, r.lm),
        strict=True,
    ):
        by_ctc, by_attention = (
            " ".join(r.tokeniser.decode(list(max(hypotheses, key=key).tokens)).split())
            for key in (lambda h: h.ctc, lambda h: h.attention)
        )
        expected = max(0.0, 1 - jiwer.wer(by_ctc, by_attention)) if by_ctc else float(not by_attention)
        assert output.ctc_attention_agreement == pytest.approx(expected)
    for decode in ({"method": "greedy"}, {"method": "beam", "lm_weight": 0.0}):
        outputs = teacher(entries[0], decode=decode).transcribe_features(features)
        assert [o.text_without_lm for o in outputs] == [None] * 3
    (joint, *_) = teacher(entries[0], decode={"method": "joint", "beam": 3}).transcribe_features(features)
    assert isinstance(joint.ended, bool)


def test_several_entries_teach_as_their_average(entries: list[Entry], waveforms: list[np.ndarray]) -> None:
    both, alone = teacher(*entries), teacher(entries[0])
    alone.recogniser.model.load_state_dict(average(entries))
    assert both.transcribe(waveforms) == alone.transcribe(waveforms)
    assert both.name == "e0+e1"
