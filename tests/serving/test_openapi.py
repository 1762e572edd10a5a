"""Requests made from the server's own OpenAPI, good and bad: none may bring it down."""

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from live_server import Server

from ochat.serving.routes import routes_at


@pytest.mark.soak
def test_no_request_that_the_openapi_describes_is_a_failure_of_the_servers(server: Server) -> None:
    whole = server.get("/openapi.json").json()
    whole["paths"] = {
        path: {method: what for method, what in methods.items() if method.upper() in routes_at(path)}
        for path, methods in whole["paths"].items()
        if routes_at(path)
    }
    assert len(whole["paths"]) >= 8
    schema = schemathesis.openapi.from_dict(whole)
    schema.config.update(base_url=server.url)
    seen: Counter[tuple[str, int]] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=15, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def is_answered(case: Any) -> None:
            response = case.call(headers=server.headers(), timeout=60)
            seen[case.operation.path, response.status_code] += 1
            assert response.status_code < 500, response.text

        is_answered()
    assert {path for path, _ in seen} == set(whole["paths"])
