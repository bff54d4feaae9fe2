"""Pool entries appear whole, never change, and are refused by name when they are damaged."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from raysr.decode.kenlm import KenLm
from raysr.decode.language_model import log_prob
from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram
from raysr.errors import CorpusError, PoolError
from raysr.ipl.lm import LmConfig, WordsConfig, train_lm
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import Entry, EntryConfig, Pool, average, load_entry
from raysr.text.tokeniser import Tokeniser
from tests.decode import plain_arpa

CONFIG = ModelConfig(
    encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
    decoder=DecoderConfig(heads=2, feed_forward=16),
)


@pytest.fixture(scope="module")
def tokeniser() -> Tokeniser:
    return Tokeniser.train(["one two three"])


def publish(pool: Pool, name: str, tokeniser: Tokeniser, seed: int = 0, **metrics: float) -> Entry:
    torch.manual_seed(seed)
    model = AsrModel(CONFIG, tokeniser.vocab_size)
    lm = Ngram.train([tokeniser.encode("one two")], 2, tokeniser.vocab_size)
    return pool.publish(name, model, tokeniser, lm, metrics, EntryConfig(model=CONFIG))


def test_an_entry_loads_as_it_was_published(tmp_path: Path, tokeniser: Tokeniser) -> None:
    entry = publish(Pool(tmp_path), "a", tokeniser, dev_wer=0.5)
    found = load_entry(Pool(tmp_path).get("a"))
    assert found.config.model == CONFIG
    assert found.tokeniser.contract() == tokeniser.contract()
    assert found.lm is not None
    assert not found.model.training
    expected = load_file(entry.weights)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.model.state_dict().items())


def test_a_word_model_comes_back_with_its_entry(tmp_path: Path, tokeniser: Tokeniser) -> None:
    lm = train_lm(LmConfig(order=2, words=WordsConfig()), tokeniser, ["one two", "two"], [])
    model = AsrModel(CONFIG, tokeniser.vocab_size)
    Pool(tmp_path).publish("a", model, tokeniser, lm, {}, EntryConfig(model=CONFIG))
    found = load_entry(Pool(tmp_path).get("a")).lm
    assert isinstance(found, WordNgram)
    said = tokeniser.encode("two two one")
    assert log_prob(found, said) == log_prob(lm, said)


def test_a_model_of_kenlm_comes_back_with_its_entry(
    tmp_path: Path, tokeniser: Tokeniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", plain_arpa)
    Ngram.train([[3, 4], [4]], 2, 5).save(tmp_path / "lm.arpa")
    text = (tmp_path / "lm.arpa").read_text()
    (tmp_path / "lm.arpa").write_text(
        re.sub(r"(?<=[\t ])[34](?=[\t \n])", lambda m: tokeniser.piece(int(m[0])), text)
    )
    lm = train_lm(LmConfig(kenlm=str(tmp_path / "lm.arpa")), tokeniser, [], [])
    model = AsrModel(CONFIG, tokeniser.vocab_size)
    pool = Pool(tmp_path / "pool")
    pool.publish("a", model, tokeniser, lm, {}, EntryConfig(model=CONFIG))
    found = load_entry(pool.get("a")).lm
    assert isinstance(found, KenLm)
    assert found.path == tmp_path / "pool" / "a" / "lm.kenlm.bin"
    assert log_prob(found, [3, 4, 5]) == log_prob(lm, [3, 4, 5])


def test_latest_and_best(tmp_path: Path, tokeniser: Tokeniser) -> None:
    pool = Pool(tmp_path)
    assert pool.latest() is None
    assert pool.best() is None
    for name, cycle, wer in [("b", 0, 0.3), ("a", 2, 0.5), ("c", 1, 0.2)]:
        publish(pool, name, tokeniser, cycle=cycle, dev_wer=wer)
    assert [entry.name for entry in pool.entries()] == ["b", "c", "a"]
    assert [entry.name for entry in pool.newest(2)] == ["a", "c"]
    latest, best = pool.latest(), pool.best()
    assert latest
    assert latest.name == "a"
    assert best
    assert best.name == "c"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.model", "config.yaml", "lm.arpa.gz"])
def test_a_damaged_entry_is_refused_by_name_and_passed_over(
    file: str, tmp_path: Path, tokeniser: Tokeniser, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool(tmp_path)
    publish(pool, "old", tokeniser, cycle=0)
    path = publish(pool, "new", tokeniser, cycle=1).path / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PoolError, match=f"new: {file} is damaged"):
        load_entry(pool.get("new"))
    latest = pool.latest()
    assert latest
    assert latest.name == "old"
    assert f"new: {file} is damaged" in caplog.text


def test_an_incomplete_entry_is_refused_by_name_and_passed_over(tmp_path: Path, tokeniser: Tokeniser) -> None:
    pool = Pool(tmp_path)
    publish(pool, "old", tokeniser, cycle=0)
    (publish(pool, "new", tokeniser, cycle=1).path / "manifest.json").unlink()
    with pytest.raises(PoolError, match="new is incomplete"):
        pool.get("new")
    assert [entry.name for entry in pool.entries()] == ["old"]


def test_an_entry_of_another_format_is_refused_and_passed_over(tmp_path: Path, tokeniser: Tokeniser) -> None:
    pool = Pool(tmp_path)
    publish(pool, "old", tokeniser, cycle=0)
    manifest = publish(pool, "new", tokeniser, cycle=1).path / "manifest.json"
    written = json.loads(manifest.read_text())
    del written["format"]
    manifest.write_text(json.dumps(written))
    with pytest.raises(PoolError, match=r"new is of format 1.* train it again"):
        pool.get("new")
    assert [entry.name for entry in pool.entries()] == ["old"]


def test_a_publication_that_fails_leaves_nothing(
    tmp_path: Path, tokeniser: Tokeniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CorpusError, match=f"^disk full while writing to {tmp_path}: "):
        publish(Pool(tmp_path), "a", tokeniser)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_entries_never_change(tmp_path: Path, tokeniser: Tokeniser) -> None:
    publish(Pool(tmp_path), "a", tokeniser)
    with pytest.raises(PoolError, match="exists already"):
        publish(Pool(tmp_path), "a", tokeniser)


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a b"])
def test_names_are_plain(name: str, tmp_path: Path, tokeniser: Tokeniser) -> None:
    with pytest.raises(PoolError, match="a name is"):
        publish(Pool(tmp_path), name, tokeniser)


def test_an_unknown_name_lists_the_known(tmp_path: Path, tokeniser: Tokeniser) -> None:
    publish(Pool(tmp_path), "a", tokeniser)
    with pytest.raises(PoolError, match="no entry 'b'; entries: a"):
        Pool(tmp_path).get("b")


def test_average_is_the_mean_of_the_weights(tmp_path: Path, tokeniser: Tokeniser) -> None:
    entries = [publish(Pool(tmp_path), f"e{seed}", tokeniser, seed) for seed in range(3)]
    mean = average(entries)
    files = [load_file(entry.weights) for entry in entries]
    for name, tensor in mean.items():
        assert tensor.dtype == files[0][name].dtype
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([f[name] for f in files]).mean(0))


def test_shares_weigh_the_weights(tmp_path: Path, tokeniser: Tokeniser) -> None:
    entries = [publish(Pool(tmp_path), f"e{seed}", tokeniser, seed) for seed in range(3)]
    shares = [0.5, 0.375, 0.125]
    files = [load_file(entry.weights) for entry in entries]
    for name, tensor in average(entries, shares).items():
        if tensor.is_floating_point():
            weighed = [share * file[name].double() for share, file in zip(shares, files, strict=True)]
            torch.testing.assert_close(tensor, torch.stack(weighed).sum(0).to(tensor.dtype))
        else:
            assert torch.equal(tensor, files[0][name])


def test_what_cannot_be_averaged_is_named(tmp_path: Path, tokeniser: Tokeniser) -> None:
    pool = Pool(tmp_path)
    first = publish(pool, "first", tokeniser)
    larger = publish(pool, "larger", Tokeniser.train(["one two three four"]))
    other = Tokeniser.train(["eeee hhh rr w n o t"])
    assert other.vocab_size == tokeniser.vocab_size
    with pytest.raises(PoolError, match=r"larger has another shape than .*first: they cannot be averaged"):
        average([first, larger])
    with pytest.raises(PoolError, match=r"spelt has other tokens than .*first: they cannot be averaged"):
        average([first, publish(pool, "spelt", other)])
    with pytest.raises(PoolError, match="no pool entries"):
        average([])


def test_the_best_few_come_in_order_and_damaged_ones_are_passed_over(
    tmp_path: Path, tokeniser: Tokeniser
) -> None:
    pool = Pool(tmp_path)
    for cycle, wer in enumerate([0.3, 0.1, 0.2, 0.2]):
        publish(pool, f"e{cycle}", tokeniser, cycle=cycle, dev_wer=wer)
    publish(pool, "unscored", tokeniser, cycle=9)
    assert [e.name for e in pool.best_of(3)] == ["e1", "e3", "e2"]
    assert [e.name for e in pool.newest()] == ["unscored", "e3", "e2", "e1", "e0"]
    with (pool.root / "e1" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert [e.name for e in pool.best_of(2)] == ["e3", "e2"]
    assert [e.name for e in pool.newest(4)] == ["unscored", "e3", "e2", "e0"]
