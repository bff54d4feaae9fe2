"""The files of Ray's cluster launcher, checked as `ray up` would, and where it takes anything too."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
from botocore.validate import ParamValidator
from manifests import RAY_START, ROOT
from ray.autoscaler._private.util import prepare_config, validate_config

PROVIDERS = {
    "local": {"type", "head_ip", "worker_ips", "external_head_ip"},
    "aws": {
        "type",
        "region",
        "availability_zone",
        "cache_stopped_nodes",
        "use_internal_ips",
        "security_group",
    },
}
RESOURCES = {"CPU", "GPU", "serving"}
LABELS = {"raysr.io/group"}
SYNCED_FILES = {"~/.ray/auth_token"}


def check_launcher(document: dict[str, Any]) -> None:
    """Raise an exception where `ray up`, a cloud's API or a shell would refuse a document."""
    validate_config(prepare_config(document))
    provider = document["provider"]
    if strange := set(provider) - PROVIDERS[provider["type"]]:
        raise ValueError(f"no settings of the provider: {strange}")
    for kind in document.get("available_node_types", {}).values():
        _check_kind(kind)
    for remote, local in document["file_mounts"].items():
        if not remote.startswith("~/") or (remote not in SYNCED_FILES and not (ROOT / local).exists()):
            raise ValueError(f"{remote}: {local} is not of the repository")
    for name in document:
        if name.endswith("_commands"):
            for command in document[name]:
                _check_command(command)


def _check_kind(kind: dict[str, Any]) -> None:
    if strange := set(kind["resources"]) - RESOURCES:
        raise ValueError(f"no resources of ours: {strange}")
    if strange := set(kind.get("labels", {})) - LABELS:
        raise ValueError(f"no labels of ours: {strange}")
    given = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
    report = ParamValidator().validate(given, _machine())
    if report.has_errors():
        raise ValueError(report.generate_report())


@cache
def _machine() -> Any:
    """Return what EC2's API takes to rent one."""
    ec2 = botocore.session.get_session().get_service_model("ec2")
    return ec2.operation_model("RunInstances").input_shape


@cache
def _check_command(command: str) -> None:
    done = subprocess.run(
        ["bash", "-n", "-c", f"(export RAY_HEAD_IP=192.0.2.1; {command})"], capture_output=True, text=True
    )
    if done.returncode or done.stderr:
        raise ValueError(done.stderr)
    for start in re.findall(r"\bray start ([^;&`]*)", command.replace("\\\n", " ")):
        options = set(re.findall(r"--([a-z-]+)", start))
        if strange := options - RAY_START:
            raise ValueError(f"no options of `ray start`: {strange}")


def launcher_files() -> dict[str, Path]:
    """Return the files by their names."""
    return {"cluster.yaml": ROOT / "cluster.yaml", "cluster-aws.yaml": ROOT / "deploy" / "cluster-aws.yaml"}
