"""What drivers and workers of Ray Train carry out in tests: some tell how they are, and some die."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from raysr.train.exchange.base import ExchangeContext
from raysr.train.exchange.gradients import Plain

FIT = """
import sys
from pathlib import Path
from raysr.cluster import ClusterConfig, connect
from raysr.train.job import Scaling, TrainJob
with connect(ClusterConfig(address=sys.argv[1])):
    from raysr.train.ray_trainer import fit
    print(fit(TrainJob.model_validate_json(Path(sys.argv[2]).read_text()), Scaling(min=2, max=2), "student"))
"""
"""A driver that joins a cluster at an address for the training that a file describes."""


def leave_environment(config: dict[str, str]) -> None:
    """Leave this rank's environment in a folder, once all have met."""
    met = torch.ones(1)
    dist.all_reduce(met)
    assert met.item() == dist.get_world_size()
    (Path(config["folder"]) / f"rank-{dist.get_rank()}").write_text(json.dumps(dict(os.environ)))


class Mortal(Plain):
    """The plain one; rank 1 dies once, when the checkpoint after ``step`` is written and rank 0's part of it is."""

    class Config(Plain.Config):
        """``folder``: where Ray Train keeps checkpoints, of which the one after ``before`` is to be registered."""

        folder: str
        before: int
        step: int

    def __init__(self, config: Config, context: ExchangeContext) -> None:
        super().__init__(config, context)
        self._options, self._steps = config, 0
        self._is_first_life = not any(Path(config.folder).glob(f"checkpoint-{config.step:09d}-*"))

    def stepped(self, last: bool = False) -> None:
        super().stepped(last)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        dies = self._is_first_life and dist.get_rank() == 1 and self._steps == self._options.step
        return {"poison": Poison(self._options)} if dies else {}


class Poison:
    """Kills who pickles it."""

    def __init__(self, options: Mortal.Config) -> None:
        self.folder, self.before, self.step = Path(options.folder), options.before, options.step

    def __deepcopy__(self, memo: Any) -> "Poison":
        return self

    def __reduce__(self) -> str:
        deadline = time.monotonic() + 60
        while not (self._is_registered() and self._is_half_there()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    def _is_registered(self) -> bool:
        return any(name.startswith(f"checkpoint-{self.before:09d}-") for name in registered(self.folder))

    def _is_half_there(self) -> bool:
        return any(self.folder.glob(f"checkpoint-{self.step:09d}-*/rank-00000.json"))


def registered(folder: Path) -> list[str]:
    """Return the names of the checkpoints that Ray Train knows of, the newest one last."""
    try:
        state = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []  # not there yet, or being written
    indices = state["checkpoint_report_indices"]
    named = zip(
        indices, (result["checkpoint_dir_name"] for result in state["checkpoint_results"]), strict=True
    )
    return [name for _, name in sorted(named)]
