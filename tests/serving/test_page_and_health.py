"""What a person and a load balancer see first."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from endpoint import Server


def get(server: Server, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"{server.url}{path}", timeout=20) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


def test_health_names_the_model_and_the_load(server: Server) -> None:
    status, _, body = get(server, "/healthz")
    health = json.loads(body)
    assert status == 200
    assert (health["status"], health["model"], health["pool"]["refused"]) == ("ok", "first", {})
    with server.listen():
        assert json.loads(get(server, "/healthz")[2])["sessions"] == health["sessions"] + 1


def test_health_is_503_while_there_is_no_model(start: Callable[..., Server], tmp_path: Any) -> None:
    status, _, body = get(start(pool=str(tmp_path / "none")), "/healthz")
    assert status == 503
    assert "there is no pool" in json.loads(body)["pool"]["trouble"]


def test_every_part_of_the_page_is_served(server: Server) -> None:
    status, kind, html = get(server, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "static/app.js" in html
    for name, expected in {
        "app.js": "text/javascript",
        "captions.js": "text/javascript",
        "endpoint.js": "text/javascript",
        "transcript.js": "text/javascript",
        "microphone.js": "text/javascript",
        "worklet.js": "text/javascript",
        "style.css": "text/css",
    }.items():
        status, kind, _ = get(server, f"/static/{name}")
        assert (status, kind.split(";")[0]) == (200, expected)


def test_nothing_outside_the_page_is_served(server: Server) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"):
        assert get(server, path)[0] == 404
