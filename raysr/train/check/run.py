"""All checks of a device, one after the other, each by itself."""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysr.errors import one_line
from raysr.train.check.bench import FULL, SHORT, Bench, Size
from raysr.train.check.exchanges import check_exchanges
from raysr.train.check.finding import Finding
from raysr.train.check.memory import check_memory
from raysr.train.check.parity import check_cpu, check_streaming
from raysr.train.check.steps import check_types
from raysr.train.check.training import check_training

Check = Callable[[Bench], Iterator[Finding]]
CHECKS: Mapping[str, Check] = {
    "steps": check_types,
    "CPU = device": check_cpu,
    "streaming": check_streaming,
    "exchanges": check_exchanges,
    "training": check_training,
    "memory finder": check_memory,
}


@dataclass(frozen=True)
class Report:
    """What was found on a device, and how long that took."""

    device: str
    findings: Sequence[Finding]
    seconds: float

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def dump(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "device": self.device,
            "torch": str(torch.__version__),
            "ok": self.passed,
            "seconds": self.seconds,
            "checks": [finding.dump() for finding in self.findings],
        }


def check_device(
    device: torch.device,
    tell: Callable[[Finding], object],
    size: Size | None = None,
    checks: Mapping[str, Check] | None = None,
) -> Report:
    """Run all checks on a device.

    Args:
        device: a CPU, or a CUDA device with its index, which becomes the current one.
        tell: called with each finding as soon as it is there.
        size: of everything; None: short on a CPU, full on a GPU.
        checks: by name; None: all of them.
    """
    begun, findings = time.perf_counter(), []
    with _ready(device) as name, tempfile.TemporaryDirectory(prefix="raysr-check-") as folder:
        bench = Bench(Path(folder), device, size or (SHORT if device.type == "cpu" else FULL))
        for part, check in (checks or CHECKS).items():
            for finding in _contained(part, check, bench):
                findings.append(finding)
                tell(finding)
    return Report(name, findings, time.perf_counter() - begun)


@contextmanager
def _ready(device: torch.device) -> Iterator[str]:
    """Use the device as a training does, a CPU by one thread; yield its name."""
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a finding is one line
        if device.type == "cuda":
            torch.cuda.set_device(device)
            yield torch.cuda.get_device_name(device)
            return
        torch.set_num_threads(1)
        try:
            yield "CPU"
        finally:
            torch.set_num_threads(threads)


def _contained(name: str, check: Check, bench: Bench) -> Iterator[Finding]:
    """Yield what a check finds; an error of its own is a fault that does not keep others from being looked for."""
    try:
        yield from check(bench)
    except Exception as error:
        yield Finding(name, "", {}, [one_line(f"{type(error).__name__}: {error}")])
