"""Checks before a run, of this machine or of a cluster's network: each tries the thing itself and says what to do."""

import importlib
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from raysr.train.network.report import Report

NEEDED_GB = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `missing` stops raysr, a `note` limits it."""

    name: str
    status: Literal["ok", "note", "missing"]
    found: str
    advice: str = ""


def check(folder: Path, port: int) -> list[Check]:
    """Look at everything a run and an endpoint on this machine need; takes a few seconds."""
    looks: list[Callable[[], Check]] = [
        _python,
        _cores,
        _memory,
        lambda: _disk(folder),
        _torch,
        _gloo,
        _nccl,
        _audio,
        _ray,
        lambda: _port(port),
    ]
    return [look() for look in looks]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", "ok", version)


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores >= 2:
        return Check("CPU cores", "ok", str(cores))
    return Check("CPU cores", "note", str(cores), "labelling and training take turns on one core")


def _memory() -> Check:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if free >= 4:
        return Check("free memory", "ok", f"{free:.1f} GB")
    return Check("free memory", "note", f"{free:.1f} GB", "a local Ray with two workers wants about 4 GB")


def _disk(folder: Path) -> Check:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Check("run folder", "missing", f"{existing} is not writable", "choose another with --dir")
    free = shutil.disk_usage(existing).free / 1e9
    if free >= NEEDED_GB:
        return Check("run folder", "ok", f"{free:.0f} GB free at {existing}")
    return Check(
        "run folder", "note", f"{free:.1f} GB free at {existing}", f"{NEEDED_GB:g} GB are comfortable"
    )


def _torch() -> Check:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found = f"{torch.__version__}, {', '.join(devices) or 'CPU only'}"
    return Check("PyTorch", "ok", found, "" if devices else "fine for the demo and for small data")


def _gloo() -> Check:
    """Run a real collective in a group of one, which opens the network interface that gloo would use."""
    import torch
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        dist.all_reduce(torch.ones(1))
        dist.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        return Check("gloo", "missing", reason, "name a working interface in GLOO_SOCKET_IFNAME")
    return Check("gloo", "ok", "an all-reduce ran")


def _nccl() -> Check:
    import torch
    import torch.distributed as dist

    if not torch.cuda.is_available():
        return Check("NCCL", "ok", "not needed: no CUDA device")
    if not dist.is_nccl_available():
        return Check("NCCL", "missing", "this PyTorch was built without it", "install PyTorch's CUDA build")
    return Check("NCCL", "ok", ".".join(map(str, torch.cuda.nccl.version())))


def _audio() -> Check:
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        return Check("PyAV", "missing", str(error), "pip install av")
    return Check("PyAV", "ok", f"{av.__version__}, FFmpeg inside")


def _ray() -> Check:
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        return Check("Ray", "missing", str(error), "pip install 'ray[data,serve,train]'")
    return Check("Ray", "ok", str(ray.__version__))


def _port(port: int) -> Check:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            advice = "`raysr serve --port` takes another"
            return Check(f"port {port}", "note", error.strerror or str(error), advice)
    return Check(f"port {port}", "ok", "free")


def check_network(address: str | None, folder: Path, model_mb: float | None, require_rdma: bool) -> "Report":
    """Measure the network between the nodes of a Ray cluster, and look whether they share a run's folder.

    Args:
        address: of the cluster; None takes RAY_ADDRESS, or starts a local one.
        folder: where runs will be written.
        model_mb: size of the model in float32, for a recommendation.
        require_rdma: whether it is a failure to go without.

    Raises:
        RunError: the cluster, a node or a rank does not answer; names it.
    """
    from raysr.cluster import ClusterConfig
    from raysr.train.network.payload import like_a_transformer
    from raysr.train.network.preflight import Order
    from raysr.train.network.settings import NetworkConfig
    from raysr.train.ray_preflight import preflight_at

    shapes = like_a_transformer(model_mb * 1e6) if model_mb else None
    order = Order(NetworkConfig(require_rdma=require_rdma), folder.absolute(), shapes)
    return preflight_at(ClusterConfig(address=address), order)
