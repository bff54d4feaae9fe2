"""The canary is labelled in the cycle's own labelling, once, unseen by its references, and judged against them."""

import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.config import Spec
from raysr.corpus.manifest import Manifest, open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.ipl.canary import MARK, WithCanary, draw_canary, read_canary
from raysr.ipl.config import DataPart, RunConfig
from raysr.ipl.corpora import open_corpora
from raysr.ipl.cycle import run_cycles
from raysr.ipl.predictions import Prediction, Predictions, TeacherHypothesis
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.teachers.base import TeacherOutput

DEV = [Utterance(f"u{n}", "/a.wav", 1.0, text=f"Number {n}!") for n in range(20)]


class Echo:
    """Labels what has no row yet, in blocks of ``size``, and dies after ``blocks`` of them."""

    def __init__(self, folder: Path, size: int, blocks: int = 99) -> None:
        self.folder, self.size, self.blocks = folder, size, blocks
        self.heard: list[Utterance] = []

    def __call__(self, selected: Manifest, teachers: Sequence[Spec]) -> Predictions:
        predictions = Predictions(self.folder)
        done = predictions.ids()
        missing = [u for u in selected if u.id not in done]
        for first in range(0, len(missing), self.size):
            if first >= self.blocks * self.size:
                raise KeyboardInterrupt
            block = missing[first : first + self.size]
            self.heard += block
            predictions.write([said(u.id, u.id) for u in block])
        return predictions


def said(name: str, text: str) -> Prediction:
    return Prediction(name, 1, 1.0, (TeacherHypothesis("t", "1", TeacherOutput(text=text)),))


def test_the_canary_is_labelled_along_and_kept_apart(tmp_path: Path) -> None:
    selected = open_manifest([Utterance(f"u{n}", "/b.wav", 1.0) for n in range(5)])  # ids that dev has too
    drawn = draw_canary(DEV, 7, seed=1)
    echo = Echo(tmp_path / "predictions", size=4)
    predictions = WithCanary(echo, drawn, tmp_path / "canary")(selected, [])
    assert predictions.ids() == {f"u{n}" for n in range(5)}
    assert [u.text for u in echo.heard] == [None] * 12
    judged = read_canary(tmp_path / "canary")
    assert [j.prediction.id for j in judged] == [u.id for u in drawn]
    assert [j.reference for j in judged] == [u.text for u in drawn]
    assert all(j.reference.startswith("number ") for j in judged)


@given(size=st.integers(1, 6), blocks=st.integers(0, 12), canary=st.integers(0, 9))
def test_cut_off_anywhere_it_goes_on_and_labels_nothing_twice(
    size: int, blocks: int, canary: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cycle")
    selected = open_manifest([Utterance(f"u{n}", "/b.wav", 1.0) for n in range(7)])
    drawn = draw_canary(DEV, canary, seed=2)
    heard = []
    for allowed in (blocks, 99, 99):
        echo = Echo(folder / "predictions", size, allowed)
        with contextlib.suppress(KeyboardInterrupt):
            predictions = WithCanary(echo, drawn, folder / "canary")(selected, [])
        heard += [u.id for u in echo.heard]
    assert sorted(heard) == sorted([*selected.ids(), *(u.id for u in drawn)])
    assert predictions.ids() == set(selected.ids())
    assert {j.prediction.id for j in read_canary(folder / "canary")} == {u.id for u in drawn}


def test_killed_between_copying_and_removing_a_block_none_of_the_canary_stays(tmp_path: Path) -> None:
    selected = open_manifest([Utterance(f"u{n}", "/b.wav", 1.0) for n in range(3)])
    drawn = draw_canary(DEV, 4, seed=3)
    echo = Echo(tmp_path / "predictions", size=5)
    echo(selected + open_manifest(drawn), [])
    Predictions(tmp_path / "canary").write(
        [said(u.id, u.id) for u in drawn[:2]]
    )  # of the block that has both
    predictions = WithCanary(echo, drawn, tmp_path / "canary")(selected, [])
    assert predictions.ids() == set(selected.ids())
    assert [j.prediction.id for j in read_canary(tmp_path / "canary")] == [u.id for u in drawn]


def test_without_a_selection_nothing_is_labelled(tmp_path: Path) -> None:
    echo = Echo(tmp_path / "predictions", size=4)
    WithCanary(echo, draw_canary(DEV, 5, 1), tmp_path / "canary")(open_manifest([]), [])
    assert echo.heard == []
    assert read_canary(tmp_path / "canary") == []


@given(st.integers(0, 30), st.integers(0, 99), st.randoms())
def test_the_draw_does_not_depend_on_the_order_of_dev(count: int, seed: int, order: random.Random) -> None:
    shuffled = [*DEV, Utterance("silent", "/a.wav", 1.0, text="..."), Utterance("mute", "/a.wav", 1.0)]
    order.shuffle(shuffled)
    drawn = draw_canary(shuffled, count, seed)
    assert drawn == draw_canary(DEV, count, seed)
    assert len(drawn) == min(count, len(DEV))
    assert all(u.id.startswith(MARK) for u in drawn)


def test_ids_of_the_canary_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "u.jsonl").write_text('{"id": "canary:u1", "audio_filepath": "a.wav", "duration": 1}\n')
    with pytest.raises(CorpusError, match="ids may not begin 'canary:'"):
        open_corpora(DataPart(unlabelled=str(tmp_path / "u.jsonl")))


def test_a_run_labels_its_canary_in_every_cycle_that_labels(
    tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]
) -> None:
    config = tiny_config(tmp_path)
    config["run"]["canary"] = 4
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
    judged = read_canary(run.folder / "cycles/001/canary")
    assert len(judged) == 4
    references = {MARK + u.id: u.text for u in open_manifest(tmp_path / "dev.jsonl")}
    for prediction, reference in judged:
        assert prediction.label is not None
        assert reference == references[prediction.id]
    assert not (run.folder / "cycles/000/canary").exists()
    assert Predictions(run.folder / "cycles/001/predictions").ids() == {f"unlabelled-{n}" for n in range(6)}
