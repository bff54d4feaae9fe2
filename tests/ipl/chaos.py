"""A teacher that can be watched, and recognisers that have accidents: once each, if its flag is there."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raysr.config import Config as Options
from raysr.ipl.labelling.ray_recogniser import RayRecogniser
from raysr.ipl.predictions import Predictions
from raysr.teachers.base import TeacherOutput

FILLER_MB = 80
PACE_S = 3.0


def happens(flag: Path) -> bool:
    """Take the flag away, if it is there."""
    try:
        flag.unlink()
    except FileNotFoundError:
        return False
    return True


class Watched:
    """Says how loud an utterance is, slowly until there is a file ``go``, and logs its process and node."""

    class Config(Options):
        folder: str

    name, version = "watched", "1"

    def __init__(self, config: Config, context: Any) -> None:
        import ray

        self.folder = Path(config.folder)
        self.node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        replace = os.replace

        def replace_or_die(source: Any, target: Any) -> None:
            if Path(target).parent.name == "predictions" and happens(self.folder / "die before the commit"):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = replace_or_die  # type: ignore[assignment]

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        loudness = [float(np.abs(w.astype(np.float64)).sum()) for w in waveforms]
        with (self.folder / "heard.log").open("a") as file:
            file.write("".join(f"{os.getpid()} {self.node} {value:.6f}\n" for value in loudness))
        for _ in loudness:
            deadline = time.monotonic() + PACE_S
            while time.monotonic() < deadline and not (self.folder / "go").exists():
                time.sleep(0.02)
        return [TeacherOutput(f"{value:.6f}", normalised_score=-(value % 1)) for value in loudness]


class Uncommitted(RayRecogniser):
    """Kills the driver when all is labelled and the step has not been said to be done."""

    def __call__(self, *arguments: Any) -> Predictions:
        predictions = super().__call__(*arguments)
        if happens(self.context.folder.parents[2] / "kill the driver"):
            os.kill(os.getpid(), signal.SIGKILL)
        return predictions


class Crowded(RayRecogniser):
    """Labels while somebody else holds most of every node's object store."""

    def __call__(self, *arguments: Any) -> Predictions:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        @ray.remote(num_cpus=0)
        class Hog:
            def fill(self) -> int:
                self.held = [ray.put(np.ones(1 << 20, np.uint8)) for _ in range(FILLER_MB)]
                return len(self.held)

        hogs = [
            Hog.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)).remote()  # type: ignore[attr-defined]
            for n in ray.nodes()
            if n["Alive"]
        ]
        assert ray.get([hog.fill.remote() for hog in hogs]) == [FILLER_MB] * len(hogs)
        return super().__call__(*arguments)
