"""A server that speaks S3, as a process of its own, and the environment in which clients find it."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import fsspec
import pytest

from raysr.ports import free_port

BUCKET = "speech"


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """Run a server with an empty bucket; yield the variables that clients need."""
    port = free_port(0)
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=5).close()
                break
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        made = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        urllib.request.urlopen(made, timeout=20).close()
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


@contextmanager
def store_of_this_process() -> Iterator[str]:
    """Run a server that clients of this process and of its children find; yield the bucket's URI."""
    clients = fsspec.get_filesystem_class("s3")
    with object_store() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        clients.clear_instance_cache()
        yield f"s3://{BUCKET}"
    clients.clear_instance_cache()
