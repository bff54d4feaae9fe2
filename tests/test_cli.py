"""The command line: what it does, and how it says no."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from raysr.audio.encode import write_wav
from raysr.audio.files import decode
from raysr.cli import app as cli
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.decode.ngram import Ngram
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import EntryConfig, Pool
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

TEXTS = ["please call anna", "anna is here", "call me please"]


def commands(group: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found += commands(command, (*prefix, name)) if inner else [(*prefix, name)]
    return found


COMMANDS = commands(typer.main.get_command(cli.app))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three utterances with transcripts, in one manifest."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(1)
    utterances = []
    for number, text in enumerate(TEXTS):
        write_wav(folder / f"{number}.wav", (0.1 * generator.standard_normal(24000)).astype(np.float32))
        tags = {"room": "near" if number else "far"}
        utterances.append(Utterance(f"u{number}", f"{number}.wav", 1.5, text=text, tags=tags))
    write_jsonl(folder / "test.jsonl", utterances)
    return folder


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with one student that has learnt nothing."""
    torch.manual_seed(0)
    tokeniser = Tokeniser.train(TEXTS, TokeniserConfig.parse({"kind": "char"}))
    small = {"dim": 16, "layers": 1, "heads": 2, "feed_forward": 16}
    decoder = {"layers": 1, "heads": 2, "feed_forward": 16}
    config = EntryConfig(model=ModelConfig.parse({"encoder": small, "decoder": decoder}))
    lm = Ngram.train([tokeniser.encode(text) for text in TEXTS], 2, tokeniser.vocab_size)
    root = tmp_path_factory.mktemp("pool")
    model = AsrModel(config.model, tokeniser.vocab_size)
    Pool(root).publish("cycle-000", model, tokeniser, lm, {"cycle": 0, "dev_wer": 0.5}, config)
    return root


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that is to be refused, and return its one line."""
    assert cli.run([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_is_there_at_once() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "raysr demo" in done.stdout
    assert time.monotonic() - began < 10, "a command of weight was imported"


HELP = """
import sys
from raysr.cli.app import run
code = run(["--help"])
heavy = {"torch", "ray", "matplotlib", "numpy"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: raysr {' '.join(command)}" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["transribe"], "No such command 'transribe'"),
        (["transcribe"], "Missing argument"),
        (["transcribe", "a.wav"], "Missing option '--pool'"),
        (["ipl"], "Missing option '--config'"),
        (["data", "import", "a", "b", "--held-out", "2"], "--held-out"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, *arguments)


def test_a_corpus_goes_out_and_comes_in_again(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["data", "export", f"{corpus}/test.jsonl", f"{tmp_path}/out", "--format", "kaldi"]) == 0
    assert "3 utterances" in (said := capsys.readouterr().out)
    assert "not in this format as it was, tags: 3" in said
    assert cli.run(["data", "import", f"{tmp_path}/out", f"{tmp_path}/in", "--reference"]) == 0
    assert "3 utterances added" in capsys.readouterr().out
    assert [u.text for u in open_manifest(tmp_path / "in/manifest.jsonl")] == TEXTS
    assert "choose folder, kaldi" in refused(
        capsys, "data", "export", f"{corpus}/test.jsonl", f"{tmp_path}/out2", "--format", "x"
    )


def test_a_misspelt_key_names_the_nearest_known_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"run: {{dir: {tmp_path / 'run'}}}\ndata: {{demo: true}}\n")
    assert "did you mean 'cycles'?" in refused(capsys, "ipl", "--config", config, "run.cycels=2")
    assert str(tmp_path / "none.yaml") in refused(capsys, "ipl", "--config", tmp_path / "none.yaml")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "stopped; run the same command to resume"),
        (OSError(28, "No space left on device", "runs/a"), 2, "error: runs/a: No space left on device"),
        (ZeroDivisionError("of ours"), 1, "error: ZeroDivisionError: of ours; this is a bug"),
    ],
)
def test_every_end_but_success_has_a_code_and_a_line(
    error: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("raysr.evaluate.report.write_report", raising(error))
    assert cli.run(["report", "runs/a"]) == code
    stderr = capsys.readouterr().err
    assert stderr.startswith(told)
    assert len(stderr.splitlines()) == 1


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--debug", "report", "/no/run"], ["report", "/no/run", "--debug"]):
        assert cli.run(arguments) == 2
        assert "Traceback" in capsys.readouterr().err
    assert "Traceback" not in refused(capsys, "report", "/no/run")


def test_evaluate_prints_and_writes_what_the_library_finds(
    pool: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, aligned = tmp_path / "wer.json", tmp_path / "aligned.txt"
    names, training = tmp_path / "names.txt", tmp_path / "training.jsonl"
    names.write_text("Anna\n\ncall me\n")
    write_jsonl(training, [Utterance("t", "t.wav", 1.0, text="please call me")])
    command = ["evaluate", f"mine={corpus / 'test.jsonl'}", "--pool", str(pool), "--json", str(out)]
    command += ["--by", "tag:room", "--by", "duration", "--worst", "1", "--alignments", str(aligned)]
    command += ["--names", str(names), "--train", str(training), "--unit", "tag:room", "--costs", "nist"]
    assert cli.run([*command, "--method", "greedy", "--method", "lm", "--method", "stream"]) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["entry"] == "cycle-000"
    for method in ("greedy", "lm", "stream"):
        assert f"{100 * result['wer'][method]['mine']:.1f}%" in printed
        assert aligned.read_text().count(f"(mine, {method})") == len(TEXTS)
    groups = {"mine", "mine, room=far", "mine, room=near", "mine, duration=under 2 s"}
    assert set(result["wer"]["stream"]) == groups
    assert "REF:" in printed
    said = {row["list"]: row["said"] for row in result["words"]}
    assert said == {"names.txt": 3, "never trained on": 4}
    sets = {(row["set"], row["method"]): row for row in result["sets"]}
    assert sets["mine", "greedy"]["seconds"] == 4.5
    assert sets["mine", "stream"]["real_time_factor"] > 0


def test_texts_that_were_saved_are_scored_and_compared(
    pool: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, right, out = tmp_path / "saved.jsonl", tmp_path / "right.jsonl", tmp_path / "wer.json"
    manifest = f"mine={corpus / 'test.jsonl'}"
    command = ["evaluate", manifest, "--pool", str(pool), "--save", str(saved), "--json", str(out)]
    assert cli.run([*command, "--against", "cycle-000"]) == 0
    first = json.loads(out.read_text())
    assert {row["p"] for row in first["against"]} == {1.0}
    right.write_text(
        "".join(json.dumps({"id": f"u{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS))
    )
    again = ["evaluate", manifest, "--hypotheses", str(saved), "--json", str(out)]
    assert cli.run([*again, "--against", str(right)]) == 0
    second = json.loads(out.read_text())
    assert second["wer"] == first["wer"]
    assert [row["method"] for row in second["against"]] == ["greedy, given", "lm, given"]
    for row in second["against"]:
        assert row["difference"]["estimate"] == pytest.approx(row["wer"] - 0)
    assert "saved.jsonl against" in capsys.readouterr().out


def test_evaluate_says_what_it_needs(
    pool: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, texts = corpus / "test.jsonl", tmp_path / "texts.jsonl"
    texts.write_text('{"id": "u0", "text": "please"}\n')
    assert "--pool" in refused(capsys, "evaluate", manifest)
    assert "--hypotheses" in refused(capsys, "evaluate", manifest, "--pool", pool, "--hypotheses", texts)
    assert "--demo" in refused(capsys, "evaluate", "--pool", pool)
    assert "lacks 2 of 3" in refused(capsys, "evaluate", manifest, "--hypotheses", texts)
    assert "tag:NAME" in refused(capsys, "evaluate", manifest, "--pool", pool, "--by", "room")
    assert "two test sets" in refused(capsys, "evaluate", manifest, manifest, "--pool", pool)
    names = ["--names", tmp_path / "names.txt"]
    assert "names.txt" in refused(capsys, "evaluate", manifest, "--pool", pool, *names)
    assert "no entry 'x'" in refused(capsys, "evaluate", manifest, "--pool", pool, "--against", "x")
    assert "--train" in refused(capsys, "evaluate", manifest, "--pool", pool, "--rare", "2")
    texts.write_text('{"id": "u0", "text": "please", "set": "theirs"}\n')
    assert "no texts of set 'test'; it has those of theirs" in refused(
        capsys, "evaluate", manifest, "--hypotheses", texts
    )


def test_what_cannot_be_compared_is_said_before_it_is_recognised(
    pool: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.jsonl"
    rows = ({"id": f"u{n}", "text": "a", "method": m} for n in range(3) for m in ("first", "second"))
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = refused(capsys, "evaluate", corpus / "test.jsonl", "--pool", pool, "--against", texts)
    assert "methods greedy, lm here, first, second there" in told


def test_transcribe_prints_text_or_json(pool: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for extra in ([], ["--json"], ["--chunk", "-1"]):
        assert cli.run(["transcribe", str(corpus / "0.wav"), "--pool", str(pool), *extra]) == 0
        texts.append(capsys.readouterr().out)
    told = json.loads(texts[1])
    assert told["text"] == texts[0].strip()
    assert " ".join(segment["text"] for segment in told["segments"]) == told["text"]


def test_transcribe_refuses_what_is_no_audio_and_no_chunk(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.wav"
    text.write_text("these are words and no samples")
    assert "text.wav" in refused(capsys, "transcribe", text, "--pool", pool)
    assert "none.wav" in refused(capsys, "transcribe", tmp_path / "none.wav", "--pool", pool)
    assert "--chunk" in refused(capsys, "transcribe", text, "--pool", pool, "--chunk", "0")


def test_augment_writes_what_was_asked_for(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new folder" / "far.wav"
    effects = ["room.rt60=0.3", "music.snr_db=5", "codec.kind=mulaw", "speed=0.9", "seed=3"]
    assert cli.run(["augment", str(corpus / "0.wav"), "-o", str(out), *effects]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    said, heard = decode(corpus / "0.wav"), decode(out)
    assert abs(len(heard) - len(said) / 0.9) <= 1
    assert cli.run(["augment", str(out), "-o", str(out)]) == 0, "nothing to do, and onto itself"
    assert np.array_equal(decode(out), heard)


def test_augment_says_what_is_wrong(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, out = corpus / "0.wav", tmp_path / "out.wav"
    assert "did you mean 'music'" in refused(capsys, "augment", said, "-o", out, "musik.snr_db=5")
    assert "none.wav" in refused(capsys, "augment", tmp_path / "none.wav", "-o", out)
    assert "no such folder" in refused(capsys, "augment", said, "-o", out, "noise.snr_db=5", "noise.files=x")
    (tmp_path / "file").write_text("")
    assert "file" in refused(capsys, "augment", said, "-o", tmp_path / "file" / "out.wav")
    assert not out.exists()


def test_align_finds_the_words_of_files_and_manifests(
    pool: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = tmp_path / "speech.wav"
    shutil.copy(corpus / "0.wav", audio)
    audio.with_suffix(".txt").write_text("Please call Anna!\n")
    assert cli.run(["align", str(audio), "--pool", str(pool)]) == 0
    (beside,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert cli.run(["align", str(audio), "--pool", str(pool), "--text", "please call anna"]) == 0
    assert json.loads(capsys.readouterr().out) == beside
    assert cli.run(["align", str(corpus / "test.jsonl"), "--pool", str(pool)]) == 0
    aligned = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert aligned[0]["words"] == beside["words"]
    assert [" ".join(word["text"] for word in line["words"]) for line in aligned] == TEXTS
    for line in aligned:
        times = [time for word in line["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= 1.5
        assert all(0 <= word["confidence"] <= 1 for word in line["words"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("please call åsa", "does not know å"),
        ("please call anna " * 9, "the audio has 3"),
        ("?!", "no words"),
        (None, "speech.txt, or give --text"),
    ],
)
def test_align_refuses_what_does_not_fit(
    text: str | None,
    expected: str,
    pool: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    audio = tmp_path / "speech.wav"
    shutil.copy(corpus / "0.wav", audio)
    line = refused(capsys, "align", audio, "--pool", pool, *([] if text is None else ["--text", text]))
    assert "speech.wav" in line
    assert expected in line


def test_align_leaves_out_what_it_names(
    pool: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = tmp_path / "click.wav"
    write_wav(audio, np.zeros(200, np.float32))
    audio.with_suffix(".txt").write_text("anna")
    assert cli.run(["align", str(audio), str(corpus / "test.jsonl"), "--pool", str(pool)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(TEXTS)
    assert "left out" in printed.err
    assert "click.wav: the text takes at least 6 frames of 40 ms and the audio has 0" in printed.err
    assert "--text" in refused(
        capsys, "align", corpus / "test.jsonl", "--pool", pool, "--text", "please call anna"
    )


def test_pool_lists_shows_and_refuses_what_is_damaged(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["pool", "list", "--pool", str(pool)]) == 0
    assert "50.0%" in capsys.readouterr().out
    assert cli.run(["pool", "show", "cycle-000", "--pool", str(pool)]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert "cycle-000" in refused(capsys, "pool", "show", "cycle-001", "--pool", pool)
    assert "no entry" in refused(capsys, "pool", "list", "--pool", tmp_path)


def test_export_writes_a_step_of_a_pool_or_of_an_entry(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (pool, pool / "cycle-000"):
        out = tmp_path / source.name
        assert cli.run(["export", str(source), str(out), "--chunk", "4", "--left", "1"]) == 0
        assert capsys.readouterr().out.split() == [str(out / "step.onnx"), str(out / "tokenizer.model")]
        assert sorted(file.name for file in out.iterdir()) == ["step.onnx", "tokenizer.model"]
    out = tmp_path / "refused"
    assert "left_chunks" in refused(capsys, "export", pool, out, "--left", "-1")
    assert "chunk_size" in refused(capsys, "export", pool, out, "--chunk", "0")
    assert "has no entry" in refused(capsys, "export", tmp_path / "none", out)
    assert "no entry 'x'" in refused(capsys, "export", pool, out, "--model", "x")
    assert not out.exists()


def test_data_goes_from_a_folder_to_a_corpus_one_can_look_at(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good.wav").write_bytes((corpus / "0.wav").read_bytes())
    (source / "good.txt").write_text("Please call Anna, at 3.")
    (source / "bad.wav").write_text("not audio")
    assert cli.run(["data", "import", str(source), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "1 utterances added" in printed
    assert "bad.wav" in printed
    assert cli.run(["data", "inspect", str(tmp_path / "out")]) == 0
    assert "please call anna at three" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(capsys, "data", "import", tmp_path / "empty", tmp_path / "o")


def test_data_inspect_shows_what_should_be_mended_and_succeeds(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [Utterance("same", str(corpus / "0.wav"), 1.5, text="one two", tags={"room": "near"})] * 2
    gone = [Utterance(f"gone-{n}", str(tmp_path / f"{n}.wav"), 1.5) for n in range(12)]
    write_jsonl(tmp_path / "all.jsonl", [*whole, *gone])
    assert cli.run(["data", "inspect", str(tmp_path / "all.jsonl"), "--tag", "room", "--show", "1"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("utterances 14", "with a transcript 14.3%", "problems 13", "near 2", "– 12"):
        assert line in lines
    assert "same 1.50 s one two" in lines
    assert "to mend, no audio: 12" in lines
    assert "to mend, duplicate id: 1" in lines
    assert "same: comes twice: ids must differ" in lines
    assert sum("no such file" in line for line in lines) == 9


def test_the_corpus_in_the_help_of_inspect_is_one_that_import_writes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recordings").mkdir()
    for number in range(8):
        sound = (corpus / "0.wav").read_bytes()
        (tmp_path / f"recordings/{number}.wav").write_bytes(sound)
    (tmp_path / "words.tsv").write_text("0\tone\n")
    monkeypatch.chdir(tmp_path)
    for command in ("import", "inspect"):
        assert cli.run(["data", command, "--help"]) == 0
        example = " ".join(capsys.readouterr().out.split()).partition("Example: raysr ")[2]
        words = example.partition(" ╭")[0].split()
        assert cli.run(words) == 0


def test_preflight_tells_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["preflight", "--dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in ("Python", "PyTorch", "gloo", "Ray", "PyAV"):
        assert name in printed
