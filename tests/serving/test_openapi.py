"""What the OpenAPI description allows, and what it does not, is answered, and never with a failure of ours."""

import json
import urllib.request

import schemathesis
from endpoint import Server
from hypothesis import HealthCheck, given, settings
from test_hostile import all_left, failures

BUSY = 503


def test_no_request_is_a_failure(server: Server) -> None:
    description = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for operation in description.get_all_operations():

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.ok().as_strategy())
        def answered(case: schemathesis.Case) -> None:
            response = case.call(timeout=60)
            assert response.status_code < 500 or response.status_code == BUSY, case.as_curl_command()
            if response.status_code >= 400 and "audio" in case.path:
                assert response.json()["error"]["message"], case.as_curl_command()

        answered()


def test_afterwards_nothing_has_failed_and_all_places_are_free(server: Server) -> None:
    assert failures(server) == {}
    all_left(server)


def test_the_description_says_what_is_refused(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=20) as answer:
        paths = json.load(answer)["paths"]
    told = paths["/v1/audio/transcriptions"]["post"]["responses"]
    assert {"200", "400", "401", "413", "429", "503"} <= set(told)
    assert {"200", "503"} <= set(paths["/healthz"]["get"]["responses"])
