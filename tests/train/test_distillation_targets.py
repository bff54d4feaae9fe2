"""Distributions on disk, and what of a teacher reaches a batch's loss: all of it, or with weight 0 nothing at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError, RunError
from raysr.model.distillation import SequenceLevel, WordLevel, top
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train import loop
from raysr.train.batch import BatchMaker, random_batch
from raysr.train.data import open_data
from raysr.train.distillation import (
    DistillationConfig,
    SequenceConfig,
    SequenceTargets,
    WordConfig,
    WordTargets,
    random_targets,
    to_device,
)
from raysr.train.distributions import Row, StoredDistributions, TokenDistributions, write_distributions
from raysr.train.job import AugmentConfig, TrainJob
from raysr.train.start import write_scratch
from tests.train.jobs import MODEL, opened
from tests.train.recorder import Recorder

K = 3
STILL = {"spec": {"freq_masks": 0, "time_masks": 0}, "warp": {"tempo": 0, "frequency": 0, "level_db": 0}}


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    chosen = list(demo_corpus().labelled)[:6]
    return [replace(u, custom={"teacher_text": "the fox"} if n % 2 else {}) for n, u in enumerate(chosen)]


@pytest.fixture(scope="module")
def tokeniser(utterances: list[Utterance]) -> Tokeniser:
    return Tokeniser.train([u.text or "" for u in utterances])


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance], tokeniser: Tokeniser
) -> TrainJob:
    folder = tmp_path_factory.mktemp("distil")
    cache = FeatureCache(folder / "cache")
    assert cache.ensure(utterances) == {}
    tokeniser.save(folder / "tokenizer.model")
    write_jsonl(folder / "labelled.jsonl", utterances)
    rows = [row(u, tokeniser, seed=n) for n, u in enumerate(utterances[:4])]
    write_distributions(folder / "distributions" / "a.arrow", rows, K, tokeniser)
    job = TrainJob.parse(
        {
            "out": str(folder / "out"),
            "init": str(folder / "init.safetensors"),
            "tokeniser": str(folder / "tokenizer.model"),
            "cache": str(folder / "cache"),
            "sources": [{"name": "labelled", "manifest": str(folder / "labelled.jsonl")}],
            "model": MODEL,
            "train": {"steps": 3, "checkpoint_every": 3, "log_every": 1, "augment": STILL},
        }
    )
    write_scratch(Path(job.init), job.model, tokeniser.vocab_size, utterances, cache, seed=0)
    return job


def row(utterance: Utterance, tokeniser: Tokeniser, seed: int, k: int = K) -> Row:
    tokens = tokeniser.encode(utterance.text or "")
    logits = torch.randn(len(tokens) + 1, tokeniser.vocab_size, generator=torch.Generator().manual_seed(seed))
    log_probs, ids = top(logits, k)
    assert ids is not None
    return Row(utterance.id, tokens, TokenDistributions(log_probs.half().numpy(), ids.int().numpy()))


def trained(job: TrainJob, folder: Path, **changes: object) -> dict[str, Tensor]:
    return loop.train(TrainJob.parse(job.dump() | changes), Recorder(folder)).model.state_dict()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(1, 4))
def test_what_is_stored_is_read_back(lengths: list[int], k: int) -> None:
    import tempfile

    tokeniser, rng = Tokeniser.train(["abc def"]), np.random.default_rng(0)
    rows = []
    for n, length in enumerate(lengths):
        shape = (length + 1, k)
        each = TokenDistributions(
            rng.normal(size=shape).astype(np.float16), rng.integers(0, 9, shape, np.int32)
        )
        rows.append(Row(f"u{n}", rng.integers(0, 9, length).tolist(), each))
    with tempfile.TemporaryDirectory() as folder:
        write_distributions(Path(folder) / "a.arrow", rows, k, tokeniser)
        stored = StoredDistributions([Path(folder)], tokeniser)
        assert (len(stored), stored.k) == (len(rows), k)
        for name, tokens, expected in rows:
            found = stored.get(name, np.array(tokens, dtype=np.int64))
            assert found is not None
            np.testing.assert_array_equal(found.log_probs, expected.log_probs)
            np.testing.assert_array_equal(found.ids, expected.ids)
            assert stored.get(name, np.array([*tokens, 3])) is None
        assert stored.get("nobody", np.array([1])) is None


def test_files_of_other_tokens_or_sizes_are_refused_by_name(
    tmp_path: Path, utterances: list[Utterance], tokeniser: Tokeniser
) -> None:
    write_distributions(tmp_path / "a.arrow", [row(utterances[0], tokeniser, 0)], K, tokeniser)
    with pytest.raises(RunError, match=r"a\.arrow: its tokens are of another tokeniser"):
        StoredDistributions([tmp_path], Tokeniser.train(["xyz"]))
    write_distributions(tmp_path / "b.arrow", [row(utterances[1], tokeniser, 0, k=2)], 2, tokeniser)
    with pytest.raises(RunError, match=r"b\.arrow: has 2 tokens at a place, others have 3"):
        StoredDistributions([tmp_path], tokeniser)


@pytest.mark.parametrize("how", ["word", "sequence"])
def test_of_weight_0_a_teacher_changes_no_bit(job: TrainJob, tmp_path: Path, how: str) -> None:
    folder = str(Path(job.init).parent / "distributions")
    plain = trained(job, tmp_path / "plain")
    nothing = trained(job, tmp_path / "0", distillation={how: {"weight": 0}}, distributions=[folder])
    half = trained(job, tmp_path / "half", distillation={how: {"weight": 0.5}}, distributions=[folder])
    assert all(torch.equal(plain[name], nothing[name]) for name in plain)
    assert not all(torch.equal(plain[name], half[name]) for name in plain)


def test_the_loss_by_word_is_that_of_each_utterance_alone(
    job: TrainJob, utterances: list[Utterance], tokeniser: Tokeniser
) -> None:
    folder = str(Path(job.init).parent / "distributions")
    distilled = job.dump() | {
        "distributions": [folder],
        "distillation": {"word": {"weight": 0.6, "temperature": 2}},
    }
    model, batches = opened(TrainJob.parse(distilled))
    model.eval()
    batch = batches.make(np.array([4, 1, 3]), torch.Generator())
    assert isinstance(batch.distillation, WordLevel)
    found = model(*batch.tensors, None, batch.distillation, batch.weights)
    expected = 0.0
    for n in (4, 1, 3):
        one = batches.make(np.array([n]), torch.Generator())
        target = None
        if n < 4:
            stored = row(utterances[n], tokeniser, seed=n).distributions
            teacher = (torch.from_numpy(stored.log_probs)[None], torch.from_numpy(stored.ids)[None])
            target = WordLevel(type(batch.distillation.teacher)(*teacher), 0.6, 2.0)
        assert (one.distillation is None) == (target is None)
        expected += float(model(*one.tensors, None, target).total.detach()) / 3
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-5)
    found.total.backward()
    assert all(not isinstance(part, Tensor) or part.grad is None for part in batch.distillation.teacher)
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_the_loss_by_sequence_mixes_a_teachers_text_where_there_is_one(
    job: TrainJob, utterances: list[Utterance], tokeniser: Tokeniser
) -> None:
    distilled = job.dump() | {"distillation": {"sequence": {"weight": 0.25}}}
    model, batches = opened(TrainJob.parse(distilled))
    model.eval()
    batch = batches.make(np.arange(6), torch.Generator())
    found = float(model(*batch.tensors, None, batch.distillation, batch.weights).total.detach())
    text, expected = torch.tensor([tokeniser.encode("the fox")]), 0.0
    for n in range(6):
        features, lengths, tokens, token_lengths = batches.make(np.array([n]), torch.Generator()).tensors
        own = float(model(features, lengths, tokens, token_lengths).total.detach())
        theirs = float(model(features, lengths, text, torch.tensor([text.shape[1]])).total.detach())
        expected += ((0.75 * own + 0.25 * theirs) if n % 2 else own) / 6
    assert found == pytest.approx(expected, rel=1e-5)
    assert batches.make(np.array([0, 2]), torch.Generator()).distillation is None


def test_targets_move_to_a_device_whole(
    utterances: list[Utterance], tokeniser: Tokeniser, job: TrainJob
) -> None:
    maker = BatchMaker(utterances, FeatureCache(job.cache), tokeniser, AugmentConfig.parse(STILL))
    stored = StoredDistributions([Path(job.init).parent / "distributions"], tokeniser)
    by_word = WordTargets(utterances, maker.tokens, stored, WordConfig(temperature=3))([0, 5])
    by_sequence = SequenceTargets(utterances, maker.tokens, tokeniser, SequenceConfig())([0, 1])
    meta = torch.device("meta")
    word, sequence = to_device(by_word, meta), to_device(by_sequence, meta)
    assert isinstance(word, WordLevel)
    assert isinstance(sequence, SequenceLevel)
    assert word.temperature == 3
    assert word.teacher.ids is not None
    for tensor in (*word.teacher, word.weight, *sequence):
        assert isinstance(tensor, Tensor)
        assert tensor.device == meta
    assert to_device(None, meta) is None


def test_one_way_to_distil_at_a_time() -> None:
    with pytest.raises(ConfigError, match="choose one"):
        DistillationConfig.parse({"word": {}, "sequence": {}})


@pytest.mark.parametrize("kind", ["word", "sequence"])
def test_targets_of_noise_are_shaped_as_a_teachers_and_learned_from(
    job: TrainJob, tokeniser: Tokeniser, kind: str
) -> None:
    config = DistillationConfig(**{kind: WordConfig(top=K) if kind == "word" else SequenceConfig()})
    batch = random_batch(2, 80, 5, job.model.mel_bins, tokeniser.vocab_size, config)
    if isinstance(batch.distillation, WordLevel):
        assert batch.distillation.teacher.log_probs.shape == (2, 6, K)
        assert batch.distillation.teacher.log_probs.dtype == torch.float16
    else:
        assert batch.distillation is not None
        assert batch.distillation.tokens.shape == (2, 5)
    model = AsrModel(job.model, tokeniser.vocab_size)
    losses = model(*batch.tensors, None, batch.distillation, batch.weights)
    losses.total.sum().backward()
    assert all(
        p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad
    )
    assert (
        random_targets(batch.tokens, batch.token_lengths, tokeniser.vocab_size, DistillationConfig()) is None
    )


def test_a_batch_is_as_long_as_its_teachers_texts(
    job: TrainJob, tokeniser: Tokeniser, utterances: list[Utterance]
) -> None:
    wordy = [
        replace(u, custom={"teacher_text": (u.text or "") * 2} if n == 3 else {})
        for n, u in enumerate(utterances)
    ]
    write_jsonl(Path(job.sources[0].manifest).with_name("wordy.jsonl"), wordy)
    data = job.dump()
    data["sources"][0]["manifest"] = str(Path(job.sources[0].manifest).with_name("wordy.jsonl"))
    data["distillation"] = {"sequence": {}}
    data["distributions"] = []
    model = AsrModel(job.model, tokeniser.vocab_size)
    with open_data(TrainJob.parse(data), model, tokeniser, print, print, print) as made:
        (tokens,) = made.lengths.tokens
        own = [len(t) for t in made.batches.tokens]
    assert tokens[3] > 1.5 * own[3]
    assert tokens[:3] + tokens[4:] == own[:3] + own[4:]
