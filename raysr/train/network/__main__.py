"""The pre-flight by itself, on every rank: what torchrun starts."""

import argparse
import json
import os
import sys
from pathlib import Path

from raysr.errors import RaysrError
from raysr.train.network.payload import like_a_transformer
from raysr.train.network.preflight import Order, preflight
from raysr.train.network.settings import NetworkConfig


def main() -> int:
    """Examine, let rank 0 tell, and return the exit code: 1 for a failure, 2 where there is no report."""
    parser = argparse.ArgumentParser(prog="raysr.train.network", description=__doc__)
    parser.add_argument("--dir", type=Path, help="a run's folder, which all hosts are to share")
    parser.add_argument("--model-mb", type=float, help="of float32 parameters, for a recommendation")
    parser.add_argument("--require-rdma", action="store_true", help="fail where NCCL would use sockets")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that ranks may take to come")
    parser.add_argument("--json", type=Path, help="where rank 0 writes the report")
    options = parser.parse_args()
    network = NetworkConfig(require_rdma=options.require_rdma, timeout_s=options.timeout)
    shapes = like_a_transformer(options.model_mb * 1e6) if options.model_mb else None
    try:
        report = preflight(Order(network, options.dir, shapes))
    except RaysrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if os.environ["RANK"] == "0":
        print(report)
        if options.json:
            options.json.write_text(json.dumps(report.dump(), indent=1))
    return 0 if report.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
