import asyncio
from typing import Any

import pytest

from ochat.serving import request_body
from ochat.serving.refusal import Refusal
from ochat.serving.request_body import MAX_NESTING, parse_body, write_body


def test_a_body_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.01)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def read() -> None:
        await request_body.read_body({"content-type": "application/json"}, receive, 10)  # type: ignore[arg-type]

    with pytest.raises(request_body.Refusal, match="Send it faster"):
        asyncio.run(read())


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[1]", b"5", b"{", b"[" * 100_000, b'{"temperature": NaN}', b"\xff", b'{"a": ' + b"9" * 5000 + b"}"),
        *(b'{"a": 1e999}', b'{"a": [-1e999]}', b'{"a": 9223372036854775808}', b'{"a": -9223372036854775809}'),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match="The body isn't"):
        parse_body(body)


def test_the_largest_numbers_pass() -> None:
    assert parse_body(b'{"a": [9223372036854775807, -9223372036854775808, 1e308]}') == {"a": [2**63 - 1, -(2**63), 1e308]}


def test_lists_and_objects_are_so_deep_at_most() -> None:
    def nested(levels: int) -> bytes:  # the body is a level too
        return b'{"a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert parse_body(nested(MAX_NESTING))
    with pytest.raises(Refusal, match="more than 100 deep"):
        parse_body(nested(MAX_NESTING + 1))


def test_what_is_passed_on_has_each_name_once_and_whole_characters() -> None:
    assert write_body(parse_body(b'{"n": 1, "n": 2, "a": "\\u00e9\\ud83d\\ude00"}')) == '{"n": 2, "a": "é😀"}'.encode()
    for half in (b'{"user": "\\ud83d"}', b'{"\\udc80": 1}'):
        with pytest.raises(Refusal, match="half of a character"):
            write_body(parse_body(half))
