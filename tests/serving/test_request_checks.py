from typing import Any

import pytest

from ochat.serving.gateway_options import GatewayOptions
from ochat.serving.refusal import Refusal
from ochat.serving.request_checks import check_bounds, check_fields, choices, parse_body
from ochat.serving.routes import routes_at

CHAT = routes_at("/v1/chat/completions")["POST"]


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"5", b"{", b"[" * 100_000, b'{"temperature": NaN}', b"\xff", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match="The body isn't"):
        parse_body(body)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": -3}, 1),  # vLLM says what is wrong with it
        ({"prompt": "ab", "n": 2}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
    ],
)
def test_choices_are_counted_over_prompts(request_: dict[str, Any], expected: int) -> None:
    assert choices(request_) == expected


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"n": 5}, "asks for 5 replies. Ask for at most 4"),
        ({"n": "5"}, "`n` is '5'. Give a whole number."),  # vLLM reads these as numbers
        ({"n": 5.0}, "`n` is '5.0'"),
        ({"n": True}, "`n` is 'True'"),
        ({"n": [5]}, "`n` is"),
        ({"max_tokens": "101"}, "`max_tokens` is '101'. Give a whole number."),
        ({"bad_words": ["x"] * 17}, "`bad_words` may hold 16"),
        ({"messages": [{}] * 2001}, "`messages` has 2001 entries"),
        ({"stop": ["x"] * 17}, "`stop` may hold 16"),
        ({"stop": "x" * 1001}, "of 1000 characters"),
        ({"max_tokens": 101}, "`max_tokens` is 101. Ask for at most 100"),
        ({"max_tokens": 5, "max_completion_tokens": 101}, "`max_completion_tokens` is 101"),
    ],
)
def test_a_request_out_of_bounds_is_refused(request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_bounds(CHAT, request_, GatewayOptions(max_choices=4, max_reply_tokens=100))


def test_a_request_within_bounds_passes_and_one_without_a_length_gets_the_bound() -> None:
    request: dict[str, Any] = {"n": 4, "messages": [{}] * 2000, "stop": ["x"] * 16}
    check_bounds(CHAT, request, GatewayOptions(max_choices=4, max_reply_tokens=100))
    assert request["max_completion_tokens"] == 100
    unbounded: dict[str, Any] = {}
    check_bounds(CHAT, unbounded, GatewayOptions())
    assert unbounded == {}


KNOWN = {"temperature": None, "stream": False, "stream_options": None, "tools": None, "store": True, "mm_payload": "tensors"}


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"temprature": 1}, "`temprature` isn't honoured by /x. Did you mean `temperature`?"),
        ({"conditions": "Code"}, "Did you mean `condition`?"),
        ({"zzz": 1}, "`zzz` isn't honoured by /x. Leave it out."),
        ({"metadata": {"a": 1}}, "`metadata` isn't honoured"),
        ({"mm_payload": "none"}, "`mm_payload` has no effect"),
        ({"stream_options": {"include_usag": True}}, "`stream_options.include_usag` isn't honoured"),
        ({"tools": [{}]}, "`tools` has no place in this model's template"),
    ],
)
def test_a_field_without_effect_is_refused(request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_fields("/x", request_, KNOWN)


def test_what_asks_for_nothing_passes() -> None:
    request = {"temperature": 1, "top_k": None, "store": False, "metadata": {}, "modalities": ["text"], "mm_payload": "tensors"}
    check_fields("/x", request, KNOWN)
    assert request == {"temperature": 1, "store": False, "mm_payload": "tensors"}
