"""The driver of one training on a running Ray cluster, with a worker on each of two nodes: the product's own `fit`.

python -m benchmarks.comm_fit 10.78.0.1:6379 job.json
"""

import sys
from pathlib import Path

from raysr.cluster import ClusterConfig, connect
from raysr.train.job import Scaling, TrainJob


def main() -> None:
    address, file = sys.argv[1], Path(sys.argv[2])
    job = TrainJob.model_validate_json(file.read_text())
    with connect(ClusterConfig(address=address)):
        from raysr.train.ray_trainer import fit

        print(fit(job, Scaling(min=2, max=2, max_failures=0), "training"))


if __name__ == "__main__":
    main()
