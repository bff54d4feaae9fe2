"""A run's students learn from distributions and texts of its teachers; a teacher that cannot is refused at once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raysr.config import Config, Spec
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest
from raysr.errors import ConfigError
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.model.distillation import Distributions
from raysr.pool import Pool
from raysr.teachers.base import TeacherContext, TeacherOutput
from raysr.teachers.pool_model import PoolModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.distributions import StoredDistributions

TinyConfig = Callable[[Path], dict[str, Any]]
asked: list[int] = []


class Says(PoolModel):
    """The newest student, which says of every audio the same, and cannot go over two words that begin with "t"."""

    def transcribe_features(self, features: Sequence[Tensor]) -> list[TeacherOutput]:
        nbest = (("one two", -2.0), ("two one three", -3.0), ("", -4.0))
        return [
            TeacherOutput(text="Two  one", score=-1.0, normalised_score=-0.1, nbest=nbest) for _ in features
        ]

    def distributions(
        self, features: Sequence[Tensor], texts: Sequence[Sequence[int]], k: int
    ) -> list[Distributions]:
        asked.append(len(texts))
        if any(self.tokeniser.decode(list(text)).startswith("two three") for text in texts):
            raise ValueError("not this one")
        return super().distributions(features, texts, k)


class Newest:
    """Builds the teacher above."""

    def __init__(self, config: Config, context: Any) -> None:
        pass

    def __call__(self, pool: Pool) -> list[Spec]:
        entry = pool.latest()
        return [Spec(kind=f"{__name__}:Says", entries=[str(entry.path)])] if entry else []


def configured(folder: Path, tiny_config: TinyConfig, **distillation: Any) -> dict[str, Any]:
    config = tiny_config(folder) | {"builder": {"kind": f"{__name__}:Newest"}, "distillation": distillation}
    config["filter"] = []
    return config


def turn(config: dict[str, Any]) -> Path:
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
        return run.folder


def test_distributions_are_those_of_each_utterance_alone(tmp_path: Path, tiny_config: TinyConfig) -> None:
    config = configured(tmp_path, tiny_config, word={"weight": 0.5, "top": 4})
    asked.clear()
    folder = turn(config)
    tokeniser = Tokeniser.load(folder / "materials" / "tokenizer.model")
    assert not (folder / "cycles/000/predictions-distributions").exists()
    stored = StoredDistributions([folder / "cycles/001/predictions-distributions"], tokeniser)
    pseudo = list(open_manifest(folder / "cycles/001/pseudo.jsonl"))
    labelled = list(open_manifest(folder / "cycles/001/labelled.jsonl"))
    assert len(pseudo) == 5  # one file is broken
    entry = Pool(folder / "pool").get("cycle-000")
    teacher = PoolModel(PoolModel.Config(entries=[str(entry.path)]), TeacherContext())
    cache = FeatureCache(folder / "features")
    model = teacher.recogniser.model
    for utterance in [*pseudo, *labelled]:
        tokens = tokeniser.encode(utterance.text or "")
        found = stored.get(utterance.id, np.array(tokens))
        if (utterance.text or "").startswith("two three"):
            assert found is None
            continue
        assert found is not None
        features = cache.get(utterance)
        with torch.no_grad():
            encoded = model.encode(features[None], torch.tensor([len(features)]))
            alone = model.attention_distributions(*encoded, torch.tensor([tokens]), 4)
        assert alone.ids is not None
        np.testing.assert_allclose(found.log_probs, alone.log_probs[0], atol=2e-3)
        np.testing.assert_allclose(np.exp(found.log_probs).sum(1), alone.log_probs[0].exp().sum(1), atol=2e-3)
    count = len(asked)
    turn(config)
    assert len(asked) == count, "a finished run asks no teacher again"


@pytest.mark.parametrize(("text", "expected"), [("best", {"two one"}), ("nearest", None)])
def test_labelled_audio_carries_its_teachers_texts(
    tmp_path: Path, tiny_config: TinyConfig, text: str, expected: set[str] | None
) -> None:
    folder = turn(configured(tmp_path, tiny_config, sequence={"weight": 0.5, "text": text}))
    labelled = list(open_manifest(folder / "cycles/001/train/labelled.jsonl"))
    texts = {u.text: u.custom["teacher_text"] for u in labelled}
    assert len(labelled) == 6
    if expected is None:
        heard = ["two one", "one two", "two one three"]
        for reference, chosen in texts.items():
            errors = [_word_errors(str(reference).split(), one.split()) for one in heard]
            assert chosen == heard[errors.index(min(errors))]
        assert len(set(texts.values())) > 1
    else:
        assert set(texts.values()) == expected
    assert not any(
        "teacher_text" in u.custom for u in open_manifest(folder / "cycles/001/train/pseudo.jsonl")
    )
    first = open_manifest(folder / "cycles/000/train/labelled.jsonl")
    assert not any("teacher_text" in u.custom for u in first), "the first student has no teacher"
    rows = [json.loads(line) for line in (folder / "cycles/001/selection.jsonl").open()]
    assert {row["id"] for row in rows} == {f"unlabelled-{n}" for n in range(6)}


def _word_errors(a: list[str], b: list[str]) -> int:
    """Levenshtein's recurrence over words, written out."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, x in enumerate(a, start=1):
        for j, y in enumerate(b, start=1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x != y))
    return table[-1][-1]


def test_a_teacher_that_has_texts_alone_is_refused_before_it_labels(
    tmp_path: Path, tiny_config: TinyConfig
) -> None:
    config = tiny_config(tmp_path) | {"distillation": {"word": {}}}
    config["builder"] = {"kind": "external", "teachers": [{"kind": "pocketsphinx"}]}
    with pytest.raises(ConfigError, match="pocketsphinx: it has texts alone"):
        turn(config)
    assert not (tmp_path / "run/cycles/001/predictions").exists()


def test_a_teacher_of_other_tokens_is_refused_before_it_labels(
    tmp_path: Path, tiny_config: TinyConfig
) -> None:
    (tmp_path / "other").mkdir()
    other = tiny_config(tmp_path / "other")
    other["run"]["cycles"] = 1
    other["tokenizer"] = {"kind": "bpe", "vocab_size": 22}
    entry = turn(other) / "pool" / "cycle-000"
    config = tiny_config(tmp_path) | {"distillation": {"word": {}}}
    config["builder"] = {"kind": "external", "teachers": [{"kind": "pool_model", "entries": [str(entry)]}]}
    with pytest.raises(ConfigError, match="the tokens of cycle-000 are not the run's"):
        turn(config)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"ctc_weight": 1}, "distillation": {"word": {}}}, "no attention decoder"),
        (
            {"data": {"unlabelled": "x"}, "distillation": {"sequence": {}}, "selector": {"first_cycle": 0}},
            "labelled",
        ),
        ({"distillation": {"word": {"wieght": 1}}}, "did you mean 'weight'"),
    ],
)
def test_what_cannot_work_is_told_when_it_is_read(changes: dict[str, Any], told: str) -> None:
    config = {"run": {"dir": "x"}, "data": {"demo": True}, "builder": {"kind": "external"}}
    with pytest.raises(ConfigError, match=told):
        RunConfig.parse(config | changes)
