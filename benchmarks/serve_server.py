"""The endpoint as a plain ASGI application, for `benchmarks.serve`: no Ray, one process.

python -m benchmarks.serve_server POOL --port P [--alone] [limits.sessions=64 …]

``--alone`` has every session stepped by itself, one after the other, as a server without an engine would, and each
answered as soon as its own step is done.
"""

import argparse

import uvicorn

from raysr.config import apply_overrides
from raysr.serving.app import build_app
from raysr.serving.settings import ServingConfig
from raysr.stream.engine import Engine, Job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("overrides", nargs="*", help="of the configuration: dotted.key=value")
    options = parser.parse_intermixed_args()
    if options.alone:
        Engine._next = next_alone
    config = ServingConfig.parse(apply_overrides({"pool": options.pool}, options.overrides))
    app = build_app(config)
    # audio does not become smaller by deflate, which takes a tenth of the core
    sockets = {"ws": "websockets-sansio", "ws_per_message_deflate": False}
    uvicorn.run(app, port=options.port, log_level="warning", **sockets)


def next_alone(engine: Engine) -> list[Job]:
    """Return one task, as soon as there is one; none once the engine is closed."""
    with engine._changed:
        engine._changed.wait_for(lambda: engine._jobs or engine._closed)
        return [engine._jobs.popleft()] if engine._jobs else []


if __name__ == "__main__":
    main()
