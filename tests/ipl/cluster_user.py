"""What a person does on a cluster: submit jobs, stop one, serve.

Prints what the dashboard's REST API then shows, as JSON on the last line.
"""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from raysr.cluster import ClusterConfig, connect
from raysr.ports import free_port
from raysr.serving import run as serving
from raysr.serving.settings import ServingConfig

QUIET: dict[str, Any] = {"check": True, "capture_output": True, "text": True}


def main(
    address: str, url: str, working_dir: str, pool: str, metrics: str, endless: str, *entry_points: str
) -> None:
    """Run the entry points to their end, serve ``pool``, and stop ``endless`` once it writes ``metrics``."""
    submit = ["ray", "job", "submit", "--address", url, "--working-dir", working_dir]
    jobs = [
        subprocess.Popen([*submit, "--", *entry.split()], stdout=subprocess.PIPE, text=True)
        for entry in entry_points
    ]
    output = [job.communicate()[0] for job in jobs]
    subprocess.run([*submit, "--no-wait", "--submission-id", "endless", "--", *endless.split()], **QUIET)
    with connect(ClusterConfig(address=address)):
        serving.start(ServingConfig(pool=pool, cpus_per_replica=0.5), port=free_port(0))
        while not Path(metrics).exists():
            time.sleep(0.1)
        subprocess.run(["ray", "job", "stop", "--address", url, "endless"], **QUIET)
        token = subprocess.run(["ray", "get-auth-token"], **QUIET).stdout.strip()

        def get(path: str) -> Any:
            request = urllib.request.Request(
                f"{url}/api/{path}", headers={"Authorization": f"Bearer {token}"}
            )
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)

        told = {
            "codes": [job.returncode for job in jobs],
            "output": output,
            "jobs": get("jobs/"),
            "stopped": get("jobs/endless/logs")["logs"],
            "trainings": get("train/v2/runs/v1")["train_runs"],
            "applications": get("serve/applications/")["applications"],
        }
        print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
