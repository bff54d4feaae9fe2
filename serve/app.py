"""`serve run serve.app:build pool=runs/demo/pool`: the transcription endpoint on Ray Serve."""

from typing import Any

from ray.serve import Application

from raysr.serving.deployment import application
from raysr.serving.settings import ServingConfig


def build(arguments: dict[str, Any]) -> Application:
    """Return the application that the arguments describe: the keys of ``raysr.serving.settings.ServingConfig``."""
    return application(ServingConfig.from_arguments(arguments))
