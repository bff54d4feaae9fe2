"""Train one student on labelled audio, as a Ray job.

ray job submit --working-dir . -- python jobs/train.py --config jobs/conf/demo.yaml run.dir=/storage/runs/student
"""

import sys

from raysr.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
