"""What a report says of test utterances: intervals, what became better and worse, other runs, costs, audio."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from raysr.audio.files import decode
from raysr.evaluate.bootstrap import quick_interval, recovery_interval, wer_interval
from raysr.evaluate.listening import LONGEST_S, listening, spectrogram_png
from raysr.evaluate.report import AUDIO_BYTES, write_report
from raysr.evaluate.run_costs import read_costs
from raysr.evaluate.run_scores import against, read_scores, recovery
from raysr.evaluate.significance import compare

WORDS = 10


def write_scores(run: Path, errors: dict[int, list[int]], name: str = "clean") -> Path:
    """Write the scores of a run's cycles, errors of each utterance; ten words each, two methods."""
    (run / "config.yaml").parent.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text("run: {}\n")
    for cycle, row in errors.items():
        folder = run / "cycles" / f"{cycle:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(
            json.dumps({"cycle": cycle, "wer": {"lm": {name: sum(row) / WORDS / len(row)}}})
        )
        said = " ".join(f"w{n}" for n in range(WORDS))
        rows = [
            {
                "id": f"u{place:02d}",
                "set": name,
                "method": method,
                "errors": min(WORDS, wrong + (method == "greedy")),
                "words": WORDS,
                "reference": said,
                "hypothesis": " ".join(f"w{n}" if n >= wrong else "x" for n in range(WORDS)),
            }
            for method in ("greedy", "lm")
            for place, wrong in enumerate(row)
        ]
        (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def cycles_of(run: Path) -> list[Path]:
    return sorted((run / "cycles").iterdir())


def test_what_became_better_and_worse_is_told_by_the_first_and_the_last_student(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [5, 0, 3, 7], 1: [9, 9, 9, 9], 2: [1, 2, 3, 6]})
    scores = read_scores(cycles_of(run))
    assert [(one.id, one.gained) for one in scores.improved] == [("u00", 4), ("u03", 1)]
    assert [(one.id, one.gained) for one in scores.worsened] == [("u01", -2)]
    assert [one.id for one in scores.worst] == ["u03", "u02", "u01", "u00"]
    assert {one.method for one in scores.worst} == {"lm"}
    assert scores.worst[0].before is not None


def test_one_student_alone_has_nothing_to_be_better_than(tmp_path: Path) -> None:
    scores = read_scores(cycles_of(write_scores(tmp_path / "run", {1: [5, 0]})))
    assert (list(scores.improved), list(scores.worsened)) == ([], [])
    assert scores.worst[0].errors_before is None
    assert read_scores([]).last == {}


@pytest.mark.parametrize("count", [200, 1000])
def test_the_quick_interval_is_about_that_of_the_bootstrap(count: int) -> None:
    generator = np.random.default_rng(count)
    words = generator.integers(3, 20, size=count)
    errors = generator.binomial(words, generator.beta(2, 6, size=count))
    quick, exact = quick_interval(errors, words), wer_interval(errors, words)
    assert quick.estimate == exact.estimate
    width = exact.high - exact.low
    assert quick.low == pytest.approx(exact.low, abs=0.08 * width)
    assert quick.high == pytest.approx(exact.high, abs=0.08 * width)


def test_runs_are_compared_on_the_utterances_that_both_have(tmp_path: Path) -> None:
    mine = read_scores(cycles_of(write_scores(tmp_path / "mine", {0: [4] * 40, 1: [2] * 40})))
    same = read_scores(cycles_of(write_scores(tmp_path / "same", {0: [3] * 40})))
    others = read_scores(cycles_of(write_scores(tmp_path / "others", {0: [3] * 39})))
    found = against(mine, same)
    assert found["lm", "clean"] == compare([2] * 40, [3] * 40, [WORDS] * 40)
    assert set(found) == {("lm", "clean"), ("greedy", "clean")}
    assert against(mine, others) == {}


def test_recovery_is_measured_from_the_first_student_to_the_oracle(tmp_path: Path) -> None:
    mine = read_scores(cycles_of(write_scores(tmp_path / "mine", {0: [6] * 30, 1: [3] * 30})))
    oracle = read_scores(cycles_of(write_scores(tmp_path / "oracle", {0: [6] * 30, 1: [2] * 30})))
    found = recovery(mine, oracle)["lm", "clean"]
    assert found == recovery_interval([6] * 30, [3] * 30, [2] * 30, draws=2000)
    assert found.estimate == pytest.approx(0.75)
    assert recovery(mine, mine)["lm", "clean"].estimate == 1.0
    worse = read_scores(cycles_of(write_scores(tmp_path / "worse", {0: [8] * 30})))
    assert recovery(mine, worse) == {}


def test_the_page_compares_runs_and_shows_words_side_by_side(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [5, 0, 3, 7], 1: [1, 2, 3, 6]})
    other = write_scores(tmp_path / "other", {0: [5, 5, 5, 5]})
    empty = write_scores(tmp_path / "empty", {0: [5] * 4}, name="elsewhere")
    text = write_report(run, [other, empty], oracle=write_scores(tmp_path / "top", {0: [0] * 4})).read_text()
    assert "Against other" in text
    assert "No test set of the same utterances" in text
    assert "WER recovery rate" in text
    assert "<del>w0</del> <ins>x</ins>" in text
    assert "raysr report --audio" in text
    assert "<audio" not in text


def write_events(run: Path, *rows: dict[str, Any]) -> None:
    (run / "events.jsonl").write_text(
        "".join(json.dumps({"time": 1.0, **row}) + "\n" for row in rows) + '{"to'
    )


def ended(cycle: int, step: str, seconds: float) -> dict[str, Any]:
    return {"event": "step ended", "cycle": cycle, "step": step, "seconds": seconds}


def began(cycle: int, step: str) -> dict[str, Any]:
    return {"event": "step began", "cycle": cycle, "step": step}


def test_costs_are_those_of_steps_and_of_what_the_cluster_had(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [1], 1: [1], 2: [1]})
    write_events(
        run,
        {"event": "run started"},
        {"event": "cycle began", "cycle": 0, "cpus": 2, "gpus": 0},
        ended(0, "student", 1800),
        {"event": "cycle began", "cycle": 1, "cpus": 8, "gpus": 1},
        began(1, "predictions"),
        ended(1, "predictions", 900),
        began(1, "student"),
        {"event": "cycle began", "cycle": 0, "cpus": 16, "gpus": 2},
        {"event": "cycle began", "cycle": 1, "cpus": 16, "gpus": 2},
        began(1, "student"),
        ended(1, "student", 2700),
    )
    train = run / "cycles/001/train"
    train.mkdir()
    steps = [{"step": n, "loss": 1.0, "seconds_per_step": 0.1 * n, "data_wait": 0.01} for n in (1, 2, 3)]
    (train / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    first, second = read_costs(run, cycles_of(run), [{"offered_h": 0.0}, {"offered_h": 10.0}, {}])
    assert (first.hours, first.core_hours, first.gpu_hours) == (0.5, 1.0, 0.0)
    assert first.labelling_speed is None
    assert (second.hours, second.core_hours, second.gpu_hours) == (1.0, 0.25 * 8 + 0.75 * 16, 0.25 + 1.5)
    assert second.steps["student"].attempts == 2
    assert second.labelling_speed == pytest.approx(40.0)
    assert second.step_seconds == pytest.approx(0.2)
    text = write_report(run).read_text()
    assert "What it took" in text
    assert "0.200" in text


def test_labels_that_an_earlier_attempt_has_made_are_no_speed(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [1]})
    write_events(run, began(0, "predictions"), began(0, "predictions"), ended(0, "predictions", 60))
    (cost,) = read_costs(run, cycles_of(run), [{"offered_h": 100.0}])
    assert cost.labelling_speed is None


def test_costs_of_older_runs_are_told_as_far_as_they_are_known(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [1]})
    write_events(run, ended(0, "student", 3600))
    (run / "cycles/000/train").mkdir()
    (run / "cycles/000/train/metrics.jsonl").write_text('{"step": 1, "loss": 1.0, "seconds_per_step": 0.5}\n')
    (cost,) = read_costs(run, cycles_of(run), [{}])
    assert (cost.step_seconds, cost.data_wait) == (0.5, None)
    assert (cost.hours, cost.core_hours, cost.gpu_hours) == (1.0, None, None)
    write_report(run)


def tone(seconds: float, hz: float = 1000.0) -> np.ndarray:
    time = np.arange(round(seconds * 16000)) / 16000
    return (0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


class Media(HTMLParser):
    """The data URIs of a page's audio and images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {"audio": [], "img": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in self.found:
            self.found[tag].append(dict(attributes)["src"] or "")


def test_audio_that_is_asked_for_is_in_the_page_and_is_that_of_its_utterance(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [5, 0, 3], 1: [1, 2, 4]})
    lengths = {"u00": 1.0, "u01": 2.0, "u02": 3.0}
    asked = []

    def listen(name: str, identifier: str) -> Any:
        asked.append((name, identifier))
        return None if identifier == "u01" else listening(tone(lengths[identifier]))

    text = write_report(run, listen=listen, played=1).read_text()
    assert set(asked) == {("clean", "u02"), ("clean", "u00"), ("clean", "u01")}
    media = Media(text).found
    assert len(media["img"]) == len(media["audio"]) == 2 + 2, "each wherever it is listed"
    played = {len(decode(base64.b64decode(uri.partition(",")[2]))) / 16000 for uri in media["audio"]}
    assert played == {1.0, 3.0}
    assert "raysr report --audio" not in text


def test_a_page_has_a_limit_for_audio(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [5] * 30})
    noise = listening(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32))
    big = type(noise)(noise.audio + "A" * (AUDIO_BYTES // 10), noise.spectrogram, 1.0)
    text = write_report(run, listen=lambda name, identifier: big, played=30).read_text()
    assert text.count("<audio") == 9
    both = write_scores(tmp_path / "both", {0: [9] * 30, 1: [5] * 30})  # improved, and full of errors still
    text = write_report(both, listen=lambda name, identifier: big, played=30).read_text()
    assert text.count("<audio") == 8
    assert len(text) < 20e6


def test_who_cannot_be_heard_is_not_said_to_be_left_out(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [5] * 3})
    text = write_report(run, listen=lambda name, identifier: None, played=3).read_text()
    assert "<audio" not in text
    assert "raysr report --audio" not in text


def test_intervals_are_those_of_as_many_utterances_as_there_are(tmp_path: Path) -> None:
    one, few, many = (
        read_scores(cycles_of(write_scores(tmp_path / name, {0: errors}))).last["lm", "clean"]
        for name, errors in (("one", [1]), ("few", [1] + [0] * 29), ("many", [1, 0] * 200))
    )
    assert one.interval is None
    assert few.interval is not None
    assert few.interval.low == 0, "no rate is below 0"
    assert many.interval == quick_interval(many.errors, many.words)


def test_one_utterance_is_no_comparison(tmp_path: Path) -> None:
    mine = read_scores(cycles_of(write_scores(tmp_path / "mine", {0: [4], 1: [2]})))
    other = read_scores(cycles_of(write_scores(tmp_path / "other", {0: [1]})))
    assert against(mine, other) == {}
    assert recovery(mine, other) == {}


def test_students_are_compared_by_one_method(tmp_path: Path) -> None:
    run = write_scores(tmp_path / "run", {0: [5, 5], 1: [1, 2]})
    first = run / "cycles/000/scores.jsonl"
    first.write_text("".join(line for line in first.open() if '"greedy"' in line))
    scores = read_scores(cycles_of(run))
    assert list(scores.improved) == []
    assert {one.errors_before for one in scores.worst} == {None}


def test_a_long_recording_is_heard_as_far_as_a_page_goes() -> None:
    found = listening(tone(LONGEST_S + 5))
    heard = decode(base64.b64decode(found.audio.partition(",")[2]))
    assert len(heard) == round(LONGEST_S * 16000)
    assert found.seconds == LONGEST_S + 5


@pytest.mark.parametrize(("hz", "upper"), [(500.0, False), (5000.0, True)])
def test_a_spectrogram_has_low_frequencies_below(hz: float, upper: bool) -> None:
    picture = imread(io.BytesIO(spectrogram_png(tone(1.0, hz))), format="png")[..., :3].sum(-1)  # (M, T)
    loudest = int(picture.mean(1).argmax())
    assert (loudest < len(picture) / 2) == upper
    assert picture.shape[1] == 98


def test_silence_and_nothing_can_be_seen_too() -> None:
    for samples in (np.zeros(16000, np.float32), np.zeros(100, np.float32)):
        assert imread(io.BytesIO(spectrogram_png(samples)), format="png").size > 0
