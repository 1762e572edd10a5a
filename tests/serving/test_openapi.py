"""Requests made from the server's own OpenAPI, good and bad: none may bring it down."""

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from live_server import Server
from schemathesis import GenerationMode

from ochat.serving.routes import routes_at


@pytest.mark.soak
@pytest.mark.parametrize("mode", GenerationMode)
def test_no_request_that_the_openapi_describes_or_forbids_is_a_failure_of_the_servers(
    mode: GenerationMode, server: Server
) -> None:
    whole = server.get("/openapi.json").json()
    whole["paths"] = {
        path: {method: what for method, what in methods.items() if method.upper() in routes_at(path)}
        for path, methods in whole["paths"].items()
        if routes_at(path)
    }
    assert len(whole["paths"]) >= 8
    schema = schemathesis.openapi.from_dict(whole)
    schema.config.update(base_url=server.url)
    operations = [found.ok() for found in schema.get_all_operations()]
    if mode.is_negative:  # without a body there's nothing to do wrong
        operations = [operation for operation in operations if operation.body]
        assert len(operations) >= 5
    seen: Counter[tuple[str, int]] = Counter()
    for operation in operations:

        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def is_answered(case: Any) -> None:
            response = case.call(headers=server.headers(), timeout=60)
            seen[case.operation.path, response.status_code] += 1
            assert response.status_code < 500, response.text

        is_answered()
    assert {path for path, _ in seen} == {operation.path for operation in operations}
    if mode.is_negative:
        refused = {path for path, status in seen if status >= 400}
        assert refused == {operation.path for operation in operations}
