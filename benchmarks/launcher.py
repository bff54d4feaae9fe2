"""`cluster.yaml` as it is used: `ray up` over SSH, a job, a worker whose cable is pulled, `ray down`.

python -m benchmarks.launcher --json results/launcher.json

The hosts are network namespaces of this machine (root, iproute2, openssh-server, rsync): a head, a worker, each with an
SSH server and a home of its own, and one that the launcher is called on. cluster.yaml is taken as it stands, but for
addresses and keys, and for pip: `~/raysr/.venv` of every host is a link to the environment that this runs in.

joined_s      from `ray up` to both nodes being there
job           what a short run of the demo, submitted through `ray dashboard`, came to
back_s        from the cable's being plugged in again, once the head had declared the worker dead, to its being back
left          nodes of Ray's that run on head and worker half a minute after `ray down`
"""

import argparse
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.code import ROOT
from benchmarks.hosts import HostProcess, Hosts, address
from benchmarks.two_hosts import CLIENT, HEAD, SHORT, WORKER, Machines
from raysr.errors import RunError

HOME = Path("/tmp/home")  # each host has a /tmp of its own
USER = "root"
DASHBOARD = "http://127.0.0.1:8265"
RAY = "ray.scripts.scripts"
PATIENCE_S = 300.0
SSHD = """
Port 22
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/launcher"))
    options = parser.parse_args()
    if absent := [program for program in ("ssh", "rsync", "/usr/sbin/sshd") if not shutil.which(program)]:
        raise SystemExit(f"error: {', '.join(absent)}: install openssh-server, openssh-client and rsync")
    work = options.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    results = measure(work)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def measure(work: Path) -> dict[str, Any]:
    """Launch, submit, cut and shut down; return what was seen."""
    with Hosts(3, shared=[work]) as hosts:
        token = secrets.token_hex(32)
        machines = Machines(hosts, work, token)
        prepare(hosts, work, token)
        (work / "cluster.yaml").write_text(yaml.safe_dump(launched(work)))
        began = time.monotonic()
        machines.client(RAY, "up", "--yes", "--no-config-cache", work / "cluster.yaml")
        tunnel = hosts.run(
            CLIENT, [sys.executable, "-m", RAY, "dashboard", work / "cluster.yaml"], stdout=subprocess.DEVNULL
        )
        until(lambda: nodes(machines) == ["ALIVE", "ALIVE"], "both nodes are there")
        joined = time.monotonic() - began
        submit = ["submit", "--config", "jobs/conf/demo.yaml", "--storage", work, "--follow", *SHORT]
        machines.client("raysr.cli", "jobs", *submit, "--address", DASHBOARD)
        hosts.cut(WORKER)
        until(lambda: "DEAD" in nodes(machines), "the head has declared the worker dead")
        hosts.heal(WORKER)
        healed = time.monotonic()
        until(lambda: nodes(machines).count("ALIVE") == 2, "the worker is back")
        back = time.monotonic() - healed
        tunnel.terminate()
        machines.client(RAY, "down", "--yes", work / "cluster.yaml")
        time.sleep(30)
        left = {f"h{host}": raylets(hosts, host) for host in (HEAD, WORKER)}
    report = json.loads((work / "runs" / "demo" / "report.json").read_text())
    return {
        "joined_s": round(joined, 1),
        "job": {"finished": report["finished"], "cycles": len(report["cycles"])},
        "back_s": round(back, 1),
        "left": left,
    }


def prepare(hosts: Hosts, work: Path, token: str) -> None:
    """Give head and worker a home of their own and an SSH server, and the client the token."""
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / name)]
        subprocess.run(command, check=True)
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith(USER)]
    (work / "passwd").write_text("\n".join([f"{USER}:x:0:0::{HOME}:/bin/bash", *others, ""]))
    (work / "sshd_config").write_text(SSHD.format(folder=work))
    for host in (HEAD, WORKER):
        script = f"""
        set -e
        mount --bind {work}/passwd /etc/passwd
        mkdir -p {HOME}/raysr /run/sshd
        ln -s {sys.prefix} {HOME}/raysr/.venv
        exec /usr/sbin/sshd -D -e -f {work}/sshd_config
        """
        with (work / f"sshd-{host}.log").open("wb") as log:
            hosts.run(host, ["bash", "-c", script], stderr=log)
    (work / "token").write_text(token)
    script = f"umask 077 && mkdir -p ~/.ray && cp {work}/token ~/.ray/auth_token"
    if hosts.run(CLIENT, ["bash", "-c", script]).wait():
        raise RunError("the client has no token")


def launched(work: Path) -> dict[str, Any]:
    """Return cluster.yaml for these hosts."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    config["provider"] |= {"head_ip": address(HEAD), "worker_ips": [address(WORKER)]}
    config["auth"] = {"ssh_user": USER, "ssh_private_key": str(work / "user")}
    config["file_mounts"]["~/.ray/auth_token"] = str(work / "token")
    config["setup_commands"] = [c for c in config["setup_commands"] if "pip install" not in c]
    return config


def nodes(machines: Machines) -> list[str]:
    """Return the states of all nodes that the head knows; none while it does not answer."""
    try:
        told = machines.client(RAY, "list", "nodes", "--address", DASHBOARD, "--format", "json")
    except RunError:
        return []
    return sorted(node["state"] for node in json.loads(told[told.index("[") :]))


def raylets(hosts: Hosts, host: int) -> int:
    """Return how many nodes of Ray's run on a host."""
    asked: HostProcess = hosts.run(host, ["pgrep", "-c", "raylet"], stdout=subprocess.PIPE, text=True)
    return int(asked.communicate()[0] or 0)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something; raise RunError where it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise RunError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(1)


if __name__ == "__main__":
    main()
