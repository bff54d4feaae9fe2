"""A training by itself, from a file: in this process, or on every rank of a `torchrun`.

python -m raysr.train JOB.yaml [train.steps=100 …]
torchrun --nproc-per-node 2 -m raysr.train JOB.yaml

The file holds a :class:`raysr.train.job.TrainJob`.
"""

import argparse
import os
import sys
from pathlib import Path

from raysr.config import load
from raysr.errors import RaysrError
from raysr.train.job import TrainJob
from raysr.train.local import fit_local


def main() -> int:
    """Train; rank 0 prints where the student's weights are. Return the exit code: 1 for an error that a line tells."""
    parser = argparse.ArgumentParser(
        prog="raysr.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path, help="a YAML or JSON file")
    parser.add_argument("overrides", nargs="*", help="of the file: dotted.key=value")
    options = parser.parse_args()
    try:
        weights = fit_local(load(TrainJob, options.job, options.overrides))
    except RaysrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if os.environ.get("RANK", "0") == "0":
        print(weights)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
