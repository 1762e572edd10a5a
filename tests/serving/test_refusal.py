import json
from http import HTTPStatus

import pytest

from ochat.serving.refusal import Refusal


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (HTTPStatus.INTERNAL_SERVER_ERROR, "server_error"),
        (HTTPStatus.BAD_REQUEST, "bad_request_error"),
        (HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests_error"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable_error"),
    ],
)
def test_an_errors_type_says_error_once(status: HTTPStatus, expected: str) -> None:
    told = json.loads(Refusal(status, "why").body("abc"))
    assert told == {
        "request_id": "abc",
        "type": "error",
        "error": {"message": "why", "type": expected, "param": None, "code": status.value},
    }
