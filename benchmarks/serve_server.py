"""The endpoint as a plain ASGI application, for `benchmarks.serve`: no Ray, one process.

python -m benchmarks.serve_server POOL --port P [--alone]

``--alone`` has every session stepped by itself, one after the other, as a server without an engine would.
"""

import argparse

import uvicorn

from raysr.serving.app import build_app
from raysr.serving.settings import ServingConfig
from raysr.stream import engine
from raysr.stream.together import together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sessions", type=int, default=1024, help="that it takes in")
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    if options.alone:
        engine.together = lambda tasks, stepped: [
            found for task in tasks for found in together([task], stepped)
        ]
    config = ServingConfig.parse({"pool": options.pool, "limits": {"sessions": options.sessions}})
    uvicorn.run(build_app(config), port=options.port, log_level="warning", ws="websockets-sansio")


if __name__ == "__main__":
    main()
