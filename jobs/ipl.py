"""Iterative pseudo-labelling as a Ray job.

ray job submit --working-dir . -- python jobs/ipl.py --config jobs/conf/demo.yaml run.dir=/storage/runs/demo
"""

import sys

from raysr.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["ipl", *sys.argv[1:]]))
