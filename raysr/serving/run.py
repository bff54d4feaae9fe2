"""Starting and stopping the endpoint on the Ray cluster that this process is connected to."""

import json
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from raysr.cluster import Connection
from raysr.errors import PoolError, RunError
from raysr.pool import Pool
from raysr.ports import check_port
from raysr.serving.access import Access
from raysr.serving.settings import ServingConfig


def start(config: ServingConfig, host: str = "127.0.0.1", port: int = 8000, timeout: float = 180.0) -> str:
    """Serve ``config.pool`` and return the URL once a model answers there.

    Args:
        config: what to serve.
        host, port: where to listen.
        timeout: seconds to wait for the first healthy answer.

    Raises:
        PoolError: the pool holds no entry.
        RunError: the port is in use, or no model became healthy in time.
        ConfigError: the file of keys cannot be read.
    """
    pool = Path(config.pool).resolve()
    Access(config.keys)  # here its error is one line
    if not Pool(pool).entries():
        raise PoolError(f"pool {pool} holds no model to serve; run `raysr ipl` first, or name another pool")
    from raysr.serving.deployment import NAME, application

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # its import has set another level
    _listen(host, port)
    from ray import serve

    places = {"pool": str(pool), "keys": str(Path(config.keys).resolve()) if config.keys else None}
    serve.run(
        application(config.model_copy(update=places)),
        name=NAME,
        route_prefix="/",
        blocking=False,
    )
    url = f"http://{_reachable(host)}:{port}"
    _wait_until_healthy(url, timeout)
    return url


def stop(connection: Connection | None = None) -> None:
    """Take the endpoint down, and Serve with it where nothing else runs on it.

    Serve ends together with a cluster that this ``connection`` has started: Ray reports its own end as a failure.
    """
    from ray import serve

    from raysr.serving.deployment import NAME

    serve.delete(NAME)
    if not (connection and connection.started) and not serve.status().applications:
        serve.shutdown()


def health(url: str, timeout: float = 5.0) -> dict[str, Any] | None:
    """Return what ``/healthz`` says, also while it is not healthy; None when nothing of ours answers."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            return json.load(error)
        except ValueError:
            return None
    except (OSError, ValueError):
        return None


def _listen(host: str, port: int) -> None:
    """Start Serve's proxy on ``host:port``, or find it there already."""
    from ray import serve

    running = _serving_port()
    if running == port:
        return
    if running is not None:
        raise RunError(
            f"Ray Serve on this cluster listens on port {running} already, not {port}; use --port {running}, "
            "or stop it first (`serve shutdown`)"
        )
    check_port(host, port, "choose another port with --port")
    serve.start(
        http_options={"host": host, "port": port},
        proxy_location="HeadOnly",
        logging_config={"log_level": "WARNING"},
    )


def _serving_port() -> int | None:
    """Return the port that Serve on this cluster listens on; None when it does not run."""
    # Ray has no public way to ask this without starting Serve.
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return client.http_config.port if client is not None else None


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _wait_until_healthy(url: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    answer = health(url)
    while answer is None or not answer.get("model"):
        if time.monotonic() > deadline:
            told = json.dumps(answer["pool"]) if answer and "pool" in answer else "nothing answers"
            raise RunError(f"the endpoint at {url} is not healthy after {timeout:g} s: {told}")
        time.sleep(0.2)
        answer = health(url)
