"""Measure the word error rate of a pool entry, as a Ray job.

ray job submit --working-dir . -- python jobs/evaluate.py clean=/storage/test.jsonl --pool /storage/runs/demo/pool
"""

import sys

from raysr.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["evaluate", *sys.argv[1:]]))
