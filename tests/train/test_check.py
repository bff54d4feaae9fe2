"""The checks of a device, run on the CPU: they pass where all is well, and see what is not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from raysr.cli import app as cli
from raysr.model.chunking import CHUNKING
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.train.check import run
from raysr.train.check.bench import SHORT, Bench
from raysr.train.check.exchanges import EXPECTED, Expected, exchanged, group_of_one, trail_alone
from raysr.train.check.finding import Finding
from raysr.train.check.memory import check_memory
from raysr.train.check.parity import same_losses, same_texts, streamed
from raysr.train.check.run import Report, check_device
from raysr.train.check.steps import check_types
from raysr.train.exchange.base import EXCHANGES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def report() -> Report:
    told: list[Finding] = []
    report = check_device(CPU, told.append)
    assert told == report.findings
    return report


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), CPU, replace(SHORT, steps=4))


def test_every_check_passes_on_the_cpu(report: Report) -> None:
    assert [str(finding) for finding in report.findings if not finding.passed] == []
    assert report.passed
    assert [finding.name for finding in report.findings] == [
        *(f"steps in {name}" for name in ("fp32", "bf16", "fp16")),
        "losses, CPU = device",
        "transcripts, CPU = device",
        *(f"streaming ({model})" for model in ("student", "transformer", "lstm")),
        *(f"exchange {kind}" for kind in EXPECTED),
        "1-bit Adam",
        "training (auto)",
        "memory finder",
    ]
    assert all(str(finding).startswith("ok ") and "\n" not in str(finding) for finding in report.findings)


def test_what_is_measured_is_in_the_numbers(report: Report) -> None:
    dumped = json.loads(json.dumps(report.dump()))
    assert dumped["ok"] is True
    numbers = {check["name"]: check for check in dumped["checks"]}
    assert numbers["steps in fp16"]["skipped"] > 0
    assert numbers["steps in fp16"]["steps"] == SHORT.steps + numbers["steps in fp16"]["skipped"]
    assert numbers["steps in fp32"]["skipped"] == 0
    assert numbers["transcripts, CPU = device"]["right"] == SHORT.by_heart
    assert numbers["streaming (student)"]["same"] == SHORT.by_heart
    training = numbers["training (auto)"]
    assert training["audio_s_per_s"] > 1
    assert 0.2 < training["utterances_per_s"] / training["audio_s_per_s"] < 0.5  # of 2 to 5 s each
    assert 0 <= training["data_wait"] < 1
    found = numbers["memory finder"]
    assert found["resting_bytes"] < found["peak_bytes"] <= found["limit_bytes"]


def test_every_exchange_of_gradients_or_weights_is_checked() -> None:
    assert set(EXPECTED) == set(EXCHANGES.known) - {"auto"}


def test_an_exchange_that_leads_elsewhere_is_seen(bench: Bench) -> None:
    with group_of_one(CPU):
        alone = trail_alone(bench)
        close = exchanged(bench, "bf16", EXPECTED["bf16"], alone)
        too_close = exchanged(bench, "bf16", Expected(apart=1e-6), alone)
        faster = exchanged(bench, "none", Expected(apart=1e-3, faster=1.01), alone)
    assert close.passed
    assert too_close.faults == faster.faults == ["weights go elsewhere"]
    assert faster.numbers["apart"] == pytest.approx(0.01, rel=0.05)
    assert not dist.is_initialized()


def test_weights_that_differ_are_seen(bench: Bench) -> None:
    other = bench.fresh()
    assert same_losses(bench, bench.fresh(), other).passed
    with torch.no_grad():
        other.encoder.blocks[0].norm.weight[0] *= 1.1
    assert same_losses(bench, bench.fresh(), other).faults == ["losses differ", "gradients differ"]
    assert same_losses(bench, bench.fresh(), broken(other)).faults == ["losses differ", "gradients differ"]


def test_transcripts_that_differ_are_seen(bench: Bench) -> None:
    ignorant = bench.fresh().eval()
    assert same_texts(bench, bench.student, bench.student).passed
    assert same_texts(bench, bench.student, ignorant).faults == ["transcripts differ"]
    assert same_texts(bench, silent(bench.fresh()), silent(ignorant)).faults == ["nothing was learned"]


def broken(model: AsrModel) -> AsrModel:
    """Return the model when it computes nothing but NaN."""
    model.cmvn_mean.fill_(float("nan"))
    return model


def silent(model: AsrModel) -> AsrModel:
    """Return the model when it hears nothing but blanks."""
    assert model.ctc is not None
    with torch.no_grad():
        model.ctc.linear.bias[0] = 1e4
    return model


def test_streams_that_differ_are_seen(bench: Bench) -> None:
    assert streamed(bench, "student", bench.student, CHUNKING, texts=True).passed
    with_dropout = bench.config.dump()
    with_dropout["encoder"]["dropout"] = 0.5
    random = bench.fresh(ModelConfig.parse(with_dropout))
    assert "encoder frames differ" in streamed(bench, "random", random, CHUNKING, texts=False).faults
    nothing = streamed(bench, "broken", broken(bench.fresh().eval()), CHUNKING, texts=False)
    assert nothing.faults == ["encoder frames differ"]
    deaf = streamed(bench, "deaf", silent(bench.fresh().eval()), CHUNKING, texts=True)
    assert deaf.faults == ["nothing was recognised"]


class Sick(Bench):
    """A bench whose students cannot take a step."""

    def fresh(self, config: ModelConfig | None = None) -> AsrModel:
        return broken(super().fresh(config))


def sick(bench: Bench) -> Iterator[Finding]:
    yield from check_types(Sick(bench.folder, bench.device, bench.size))


def no_room(bench: Bench) -> Iterator[Finding]:
    yield from check_memory(Bench(bench.folder, bench.device, replace(bench.size, memory=-(10 << 20))))


def fine(bench: Bench) -> Iterator[Finding]:
    yield Finding("fine", f"{len(bench.by_heart)} utterances", {"count": 3})


def test_what_fails_is_a_line_and_an_exit_code_and_the_rest_is_checked_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "CHECKS", {"types": sick, "memory finder": no_room, "fine": fine})
    assert cli.run(["check-gpu", "--device", "cpu", "--json", str(tmp_path / "found.json")]) == 1
    types, memory, good, whole = capsys.readouterr().out.splitlines()
    assert types.startswith("FAILED  types: RunError: the gradients of 50 steps in a row are not finite")
    assert memory.startswith("FAILED  memory finder: RunError: a training step of utterance")
    assert good == "ok      fine: 4 utterances"
    assert whole.startswith("CPU: 3 checks in ")
    assert whole.endswith(", 2 failed")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["ok"] is False
    assert [check["ok"] for check in found["checks"]] == [False, False, True]
    assert found["checks"][2]["count"] == 3


def test_it_says_so_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.run(["check-gpu", "--json", str(tmp_path / "found.json")]) == 0
    assert capsys.readouterr().out.startswith("no GPU: ")
    assert json.loads((tmp_path / "found.json").read_text())["device"] is None
