"""All of raysr's Ray settings: environment, time-outs, and how a cluster is joined or started.

Ray reads many of its settings when it is imported, so modules import Ray through :func:`connect` or after
this module. A local cluster lives and dies with the process that started it: its daemons carry the kernel's
parent-death signal, so that nothing is left behind by ``kill -9`` either.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from raysr.config import Config
from raysr.errors import RaysrError, RunError
from raysr.ports import check_port

SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # Short enough to notice a lost worker quickly, long enough for a cold node's imports.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    # How long ranks wait for each other before a checkpoint: Ray alone would wait for ever for a disk that hangs.
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Many small actors on few cores are meant; Ray warns of them from four times this number on.
    "RAY_worker_maximum_startup_concurrency": "8",
    # Ray would run its workers at 15: labelling, training and serving are what such a cluster is for.
    "RAY_worker_niceness": "0",
    # Ray's C++ core writes harmless errors to the terminal (ray#53727); "info" brings its logs back.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# Of a local cluster's daemons: each idle process of Ray's takes 0.7% of a core from those that work.
LOCAL = {
    "RAY_num_workers_soft_limit": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "10000",
    # Logs stay in their files (log_to_driver=False): nobody need look for new ones ten times a second.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
}
# What only a dashboard shows is not gathered where there is none.
UNWATCHED = {"REPORTER_UPDATE_INTERVAL_MS": "60000"}
# The same of trainings on it; and nobody announces the end of its one node.
LOCAL_TRAINING = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
UNWATCHED_TRAINING = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "0"}
# One thread a process: threads of neighbouring actors on the same cores slow each other down tenfold.
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SOCKET_PATH_LIMIT = (
    40  # what Ray appends to its folder, and the 107 bytes of a Unix socket's name, leave this much
)
NO_PROGRESS_S = 300
CONNECT_S = 10

# The clusters that this process has started, by address: whether with a dashboard.
_OWN: dict[str, bool] = {}
_CHOSEN = {
    name
    for name in LOCAL | UNWATCHED | LOCAL_TRAINING | UNWATCHED_TRAINING
    if os.environ.get(name) not in (None, SETTINGS.get(name))
}
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)


class ClusterConfig(Config):
    """Which Ray cluster to use.

    Attributes:
        address: an existing cluster's; None takes the one this process was submitted to, or a local one.
        cpus: logical CPUs of a local cluster. They are scheduling slots, not cores: with fewer than about
            eight a pipeline of several stages cannot be placed, so small machines declare more.
        object_store_mb: size of a local cluster's shared memory.
        dashboard: start the dashboard with a local cluster.
        dashboard_port: its port.
    """

    address: str | None = None
    cpus: int = Field(default_factory=lambda: max(8, os.cpu_count() or 1), ge=4)
    object_store_mb: int = Field(default=512, ge=100)
    dashboard: bool = False
    dashboard_port: int = Field(default=8265, gt=0, lt=65536)


@dataclass(frozen=True)
class Connection:
    """A joined cluster; ``started`` says whether this process started it and will end it."""

    address: str
    dashboard_url: str | None
    started: bool

    @property
    def dashboard_hint(self) -> str | None:
        """Tell a person how to open the dashboard: Ray asks for a token since 2.60."""
        if not self.dashboard_url:
            return None
        return f"http://{self.dashboard_url} (its token: `ray get-auth-token`)"


@contextlib.contextmanager
def connect(
    config: ClusterConfig | None = None, python_path: Sequence[str | Path] = ()
) -> Iterator[Connection]:
    """Join or start a cluster for the block; a cluster started here ends with it, a joined one stays.

    Args:
        config: which cluster.
        python_path: folders that the workers import a user's own classes from.

    Raises:
        RunError: no cluster answers at the address, or it refuses this host's token.
    """
    config = config or ClusterConfig()
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield Connection(ray.get_runtime_context().gcs_address, None, started=False)
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if address:
        _check_answers(address)
    elif config.dashboard:
        mend = "choose another cluster.dashboard_port, or cluster.dashboard=false"
        check_port("127.0.0.1", config.dashboard_port, mend)
    daemons = {} if address else LOCAL if config.dashboard else LOCAL | UNWATCHED
    try:
        with _environment(daemons), _sigterm_kept(), _quiet_stderr():
            if address:
                _check_token(address)
            context: Any = ray.init(
                runtime_env={"env_vars": worker_environment(python_path)},
                log_to_driver=False,
                logging_level=logging.WARNING,
                **({"address": address} if address else _local(config)),
            )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise RunError(f"no Ray cluster at {address or 'this machine'}: {_first_line(error)}") from error
    _quieten()
    connection = Connection(
        context.address_info["gcs_address"], context.dashboard_url or None, started=not address
    )
    if connection.started:
        _OWN[connection.address] = config.dashboard
    try:
        yield connection
    finally:
        _OWN.pop(connection.address, None)
        with _sigterm_kept():
            ray.shutdown()


@contextlib.contextmanager
def training_environment() -> Iterator[None]:
    """Set, for the block, what Ray Train reads of the environment where it starts a training on a cluster of ours."""
    import ray

    dashboard = _OWN.get(ray.get_runtime_context().gcs_address)
    own = {} if dashboard is None else LOCAL_TRAINING if dashboard else LOCAL_TRAINING | UNWATCHED_TRAINING
    with _environment(own):
        yield


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the block, but those that the user has set."""
    before = {name: os.environ.get(name) for name in variables if name not in _CHOSEN}
    os.environ.update({name: variables[name] for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def worker_environment(python_path: Sequence[str | Path] = ()) -> dict[str, str]:
    """Return the environment of tasks and actors: one thread each, our settings, the user's folders."""
    folders = [str(Path(folder).resolve()) for folder in python_path]
    inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    path = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders + inherited))} if folders else {}
    return {**SETTINGS, **THREADS, **path}


def data_context(patience_s: float = 0.0, watchers: Sequence[type] = ()) -> None:
    """Set Ray Data of this process: quiet, retrying what is worth retrying, and never silently stuck.

    Args:
        patience_s: how long nothing may be finished beyond the usual.
        watchers: classes of Ray Data's execution callbacks.
    """
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.verbose_progress = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S + patience_s
    context.custom_execution_callback_classes = list(watchers)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised as well


def is_own() -> bool:
    """Say whether the cluster that this process has joined was started by it, and so ends with it."""
    import ray

    return ray.get_runtime_context().gcs_address in _OWN


def is_ray_job() -> bool:
    """Say whether ``ray job submit`` started this process: its working folder is then a temporary copy."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _check_answers(address: str) -> None:
    """Raise :class:`RunError` when nobody listens there: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise RunError(
            f"no Ray cluster at {address}: {error.strerror or error}; start one, or leave it out"
        ) from None


def _check_token(address: str) -> None:
    """Raise :class:`RunError` where a cluster refuses this host's token: Ray itself would try it again for minutes."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, its stub leaves it out
    from ray.exceptions import AuthenticationError

    _, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        return
    try:
        ensure_token_if_auth_enabled(create_token_if_missing=False)
        GcsClient(address=address)
    except AuthenticationError as error:
        raise RunError(
            f"the cluster at {address} refuses this host's token: copy ~/.ray/auth_token from one of its hosts, or "
            "set RAY_AUTH_TOKEN, and RAY_AUTH_MODE=token"
        ) from error


def _local(config: ClusterConfig) -> dict[str, object]:
    return {
        "address": "local",
        "num_cpus": config.cpus,
        "object_store_memory": config.object_store_mb << 20,
        "include_dashboard": config.dashboard,
        "dashboard_port": config.dashboard_port if config.dashboard else None,
        "_temp_dir": _temp_dir(),
    }


def _temp_dir() -> str:
    """Return a folder of ours whose path leaves room for the names of Ray's sockets."""
    folder = f"{os.environ.get('TMPDIR', '/tmp').rstrip('/')}/raysr-{os.getuid()}"
    return folder if len(folder) <= SOCKET_PATH_LIMIT else f"/tmp/raysr-{os.getuid()}"


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Give SIGTERM its handler back: Ray's Python ends the process, and its C++ core aborts it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        signal.signal(signal.SIGTERM, before)
        if end.code == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what Ray's C++ core writes while it starts off the terminal; what goes wrong is raised all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _quieten() -> None:
    for name in ("ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")


def root_cause(error: BaseException) -> str:
    """Return in one line what an exception from a task or an actor comes down to; an error of ours says it itself."""
    from ray.exceptions import RayError

    while error.__cause__ is not None and (isinstance(error, RayError) or not isinstance(error, RaysrError)):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
