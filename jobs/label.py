"""Label and filter a run's unlabelled audio, as a Ray job.

ray job submit --working-dir . -- python jobs/label.py --config jobs/conf/real_speech.yaml --out /storage/kept.jsonl
"""

import sys

from raysr.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["label", *sys.argv[1:]]))
