"""The application on Ray Serve: the model lives inside the replica that holds the sockets."""

import os
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from raysr.serving import logs
from raysr.serving.app import build_app
from raysr.serving.ray_metrics import RayMetrics
from raysr.serving.settings import ServingConfig, UserConfig

NAME = "raysr"
SPARE_REQUESTS = 256
UPSCALE_DELAY_S = 5.0
"""Streams cannot wait for Ray Serve's half minute: they are refused where there is no place."""


@serve.ingress()
class Endpoint:
    """One replica: the ASGI application of :func:`raysr.serving.app.build_app`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = ServingConfig.parse(config, where="serving")
        self._user_config = UserConfig(entry=self._config.entry)
        self._app: FastAPI | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        logs.configure(self._config.logs)
        # Ray Serve's own proxy takes all that a client sends, HAProxy leaves it in the socket
        haproxy = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "0") not in ("", "0")
        self._app = build_app(self._config, [RayMetrics()], backpressure=haproxy)
        self._app.state.server.reconfigure(self._user_config)
        return self._app

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Take another ``user_config``, in place: no stream is cut by that itself."""
        self._user_config = UserConfig.parse(config, where="user_config")
        if self._app is not None:
            self._app.state.server.reconfigure(self._user_config)


def application(config: ServingConfig) -> Application:
    """Return the Serve application.

    A waiting handshake hangs and an overfull queue answers 500 in Ray Serve, so its own limits are set far above
    ours, which answer in the client's protocol.
    """
    deployment: Any = serve.deployment(
        Endpoint,
        name="Endpoint",
        **_replicas(config),
        max_ongoing_requests=config.limits.sessions + config.limits.uploads + SPARE_REQUESTS,
        ray_actor_options={"num_cpus": config.cpus_per_replica},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=config.grace_seconds,
        user_config=UserConfig(entry=config.entry).dump(),
    )
    return deployment.bind(config.dump())


def _replicas(config: ServingConfig) -> dict[str, Any]:
    """Return how many replicas there are: a number, or as many as the streams need."""
    if config.max_replicas is None:
        return {"num_replicas": config.replicas}
    scaling = {
        "min_replicas": config.replicas,
        "max_replicas": max(config.replicas, config.max_replicas),
        "target_ongoing_requests": config.fill * config.limits.sessions,
        "upscale_delay_s": UPSCALE_DELAY_S,
    }
    return {"autoscaling_config": scaling}
