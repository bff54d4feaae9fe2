"""A training as a process of its own, which can be killed.

python -m benchmarks.resume_fit ray job.json                            on a Ray of its own
python -m benchmarks.resume_fit ray job.json --address 10.78.0.1:6379   on a running one
torchrun --nproc-per-node=2 -m benchmarks.resume_fit local job.json     without Ray
"""

import argparse
from pathlib import Path

from benchmarks.code import ROOT
from raysr.train.job import Scaling, TrainJob

NAME = "training"
"""Of a training on Ray: its checkpoints are in the folder of this name."""


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("by", choices=["ray", "local"])
    parser.add_argument("job", type=Path)
    parser.add_argument("--address")
    parser.add_argument("--workers", type=int, nargs=2, default=[2, 2], metavar=("MIN", "MAX"))
    parser.add_argument("--failures", type=int, default=0)
    options = parser.parse_args()
    job = TrainJob.model_validate_json(options.job.read_text())
    if options.by == "local":
        from raysr.train.local import fit_local

        fit_local(job)
        return
    from raysr.cluster import ClusterConfig, connect

    fewest, most = options.workers
    scaling = Scaling(min=fewest, max=most, max_failures=options.failures)
    with connect(ClusterConfig(address=options.address, object_store_mb=100), [ROOT]):
        from raysr.train.ray_trainer import fit

        print(fit(job, scaling, NAME))


if __name__ == "__main__":
    main()
