"""One training of two ranks on this machine, by the product's own code: through Ray Train, or one of torchrun's ranks.

python -m benchmarks.train_fit ray job.json
torchrun --standalone --nproc-per-node 2 -m benchmarks.train_fit torchrun job.json
"""

import sys
from pathlib import Path

from raysr.train.job import Scaling, TrainJob
from raysr.train.local import fit_local


def main() -> None:
    way, file = sys.argv[1], Path(sys.argv[2])
    job = TrainJob.model_validate_json(file.read_text())
    if way == "torchrun":
        fit_local(job)
        return
    from raysr.cluster import ClusterConfig, connect

    with connect(ClusterConfig()):
        from raysr.train.ray_trainer import fit

        fit(job, Scaling(min=2, max=2, max_failures=0), "training")


if __name__ == "__main__":
    main()
