"""A pool entry teaches alike from waveforms and from features; several teach as their average."""

from typing import Any

import numpy as np
import pytest
import torch

from raysr.audio.fbank import Fbank
from raysr.config import Spec
from raysr.decode.ngram import Ngram
from raysr.decode.recognise import DecodeConfig
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


def teacher(*entries: Entry) -> Any:
    return TEACHERS.build(Spec(kind="pool_model", entries=[str(e.path) for e in entries]), TeacherContext())  # type: ignore[call-arg]


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


def test_several_entries_teach_as_their_average(entries: list[Entry], waveforms: list[np.ndarray]) -> None:
    both, alone = teacher(*entries), teacher(entries[0])
    alone.recogniser.model.load_state_dict(average(entries))
    assert both.transcribe(waveforms) == alone.transcribe(waveforms)
    assert both.name == "e0+e1"
