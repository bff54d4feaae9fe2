"""What the default selectors, builders, batcher and initializers hand over."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from raysr.audio.fbank import FbankConfig
from raysr.config import Spec
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.decode.ngram import Ngram
from raysr.errors import ConfigError, PoolError
from raysr.ipl import plugins
from raysr.ipl.folder import STORAGE
from raysr.ipl.handover import read_batches, write_batches
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import EntryConfig, Pool
from raysr.text.tokeniser import Tokeniser

UNLABELLED = open_manifest([Utterance(f"u{n:03d}", f"/{n}.wav", duration=1 + n % 7) for n in range(200)])


def context(folder: Path = Path("/nowhere"), cycle: int = 1, first_cycle: int = 1, seed: int = 1) -> Any:
    return SimpleNamespace(
        cycle=cycle,
        seed=seed,
        folder=folder,
        labelling_round=max(0, cycle - first_cycle),
        pool=Pool(folder / "pool"),
        features=FbankConfig(),
    )


def select(cycle: int, seed: int = 1, **spec: Any) -> list[str]:
    selector = plugins.SELECTORS.build(Spec(**spec), context(cycle=cycle, seed=seed))
    return [u.id for u in selector(cycle, UNLABELLED)]


@pytest.mark.parametrize("kind", ["all", "random", "curriculum"])
def test_nothing_is_selected_before_the_first_cycle(kind: str) -> None:
    assert select(0, kind=kind) == []
    assert select(0, kind=kind, first_cycle=0)
    assert select(2, kind=kind, first_cycle=3) == []


def test_all_selects_everything() -> None:
    assert select(1, kind="all") == UNLABELLED.ids()


@given(st.integers(0, 5), st.integers(0, 100), st.floats(0.05, 1))
def test_random_selects_about_its_share_and_the_same_when_resumed(
    cycle: int, seed: int, share: float
) -> None:
    chosen = select(cycle, seed, kind="random", share=share, first_cycle=0)
    assert chosen == select(cycle, seed, kind="random", share=share, first_cycle=0)
    assert abs(len(chosen) - 200 * share) < 5 * (200 * share * (1 - share)) ** 0.5 + 1


def test_random_selects_others_in_another_cycle() -> None:
    assert select(1, kind="random") != select(2, kind="random")


def test_a_curriculum_grows_from_the_short_to_the_long() -> None:
    sizes, seconds = [], {u.id: u.duration for u in UNLABELLED}
    before: set[str] = set()
    for cycle in (1, 2, 3):
        chosen = set(select(cycle, kind="curriculum", share=0.4, grow=0.3))
        assert before <= chosen
        left = set(seconds) - chosen
        assert not left or max(seconds[c] for c in chosen) <= min(seconds[r] for r in left)
        before = chosen
        sizes.append(len(chosen))
    assert sizes == [80, 140, 200]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Three students; the second is the best."""
    pool = Pool(tmp_path_factory.mktemp("pool"))
    tokeniser = Tokeniser.train(["one two"])
    config = ModelConfig(
        encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
        decoder=DecoderConfig(heads=2, feed_forward=16),
    )
    lm = Ngram.train([tokeniser.encode("one two")], 2, tokeniser.vocab_size)
    for cycle, wer in enumerate([0.5, 0.2, 0.4]):
        torch.manual_seed(cycle)
        model = AsrModel(config, tokeniser.vocab_size)
        metrics = {"cycle": cycle, "dev_wer": wer}
        pool.publish(f"cycle-{cycle:03d}", model, tokeniser, lm, metrics, EntryConfig(model=config))
    return pool


def test_initializers_start_from_the_pool(pool: Pool, tmp_path: Path) -> None:
    def start(kind: str, pool: Pool) -> Any:
        return plugins.INITIALIZERS.build(Spec(kind=kind), context(tmp_path))(pool)

    assert start("scratch", pool).weights is None
    assert start("previous", pool).weights == pool.get("cycle-002").weights
    assert start("previous", pool).parents == ("cycle-002",)
    mean = load_file(start("average", pool).weights)
    files = [load_file(entry.weights) for entry in pool.entries()]
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([f[name] for f in files]).mean(0))
    for kind in ("previous", "average"):
        assert start(kind, Pool(tmp_path / "empty")).weights is None


def test_the_first_student_may_start_from_another_pool(pool: Pool, tmp_path: Path) -> None:
    first = pool.get("cycle-001")
    spec = Spec(kind="previous", first=str(first.path))

    def start(**changes: Any) -> Any:
        own = context(tmp_path)
        own.__dict__.update(changes)
        return plugins.INITIALIZERS.build(spec, own)(own.pool)

    assert start().weights == first.weights
    assert start().tokeniser == first.tokeniser
    assert start().parents == (str(first.path),)
    own = start(pool=pool)  # a pool with students of its own does not look at `first` any more
    assert (own.parents, own.tokeniser) == (("cycle-002",), None)
    with pytest.raises(ConfigError, match=r"cycle-001 hears other features: give `features` its fbank"):
        start(features=FbankConfig(high_freq=7000))


def test_a_relative_first_student_lies_where_relative_runs_do(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pool.get("cycle-001")
    monkeypatch.setenv(STORAGE, str(pool.root.parent))
    spec = Spec(kind="previous", first=f"{pool.root.name}/cycle-001")
    own = context(tmp_path)
    assert plugins.INITIALIZERS.build(spec, own)(own.pool).weights == first.weights


def test_a_first_student_that_is_not_there_is_refused_before_anything_is_labelled(tmp_path: Path) -> None:
    spec = Spec(kind="previous", first=str(tmp_path / "other" / "gone"))
    with pytest.raises(PoolError, match="has no entry 'gone'"):
        plugins.INITIALIZERS.build(spec, context(tmp_path))


def test_the_batcher_normalises_and_leaves_out_what_has_no_text(tmp_path: Path) -> None:
    batcher = plugins.BATCHERS.build(Spec(kind="mixed", labelled_share=0.4), context(tmp_path))
    labelled = [
        Utterance("a", "/a.wav", 1.0, text="Hello, 2 of you!"),
        Utterance("b", "/b.wav", 1.0, text="..."),
    ]
    batches = batcher([Utterance("c", "/c.wav", 1.0, text="yes")], open_manifest(labelled))
    assert [(u.id, u.text) for u in batches.utterances()] == [("a", "hello two of you"), ("c", "yes")]
    assert batches.labelled_share == 0.4
    assert batcher([], None).labelled is None


def test_what_is_rehearsed_is_handed_over_and_read_back(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.jsonl"
    write_jsonl(elsewhere, [Utterance("e", "/e.wav", 1.0, text="Xylophone 2")])
    batcher = plugins.BATCHERS.build(Spec(kind="mixed", rehearse=str(elsewhere)), context(tmp_path))
    batches = batcher([Utterance("c", "/c.wav", 1.0, text="yes")], None)
    assert [(u.id, u.text) for u in batches.utterances()] == [("c", "yes"), ("e", "xylophone two")]
    write_batches(tmp_path / "batches.json", batches)
    assert read_batches(tmp_path / "batches.json") == batches
