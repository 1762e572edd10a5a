import asyncio
import json
from http import HTTPStatus
from typing import Any

import pytest

from ochat.serving.refusal import Refusal
from ochat.serving.replies import Reply, gave_up, with_field, with_field_in_events

FIELD = b'"condition":"Code",'


def passed_on(messages: list[dict[str, Any]], condition: str = "Code", cut: Refusal | None = None) -> list[dict[str, Any]]:
    """What a client gets of these messages of the application's."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        reply = Reply(send, "abc")
        reply.tell_condition(condition)
        for message in messages:
            await reply(message)
        if cut:
            await reply.end(cut)

    asyncio.run(run())
    return sent


def start(kind: str, status: int = 200, **headers: str) -> dict[str, Any]:
    given = {"content-type": kind, **headers}
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }


def body(text: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": more}


def test_a_field_comes_first_in_an_object_and_nowhere_else() -> None:
    assert json.loads(with_field(b'{"a":{"b":1}}', FIELD)) == {"condition": "Code", "a": {"b": 1}}
    assert with_field(b"{}", FIELD) == b"{}"
    assert with_field(b"null", FIELD) == b"null"


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b'data: {"a":1}\n\n', b'data: {"condition":"Code","a":1}\n\n'),
        (
            b'event: x\ndata: {"a":1}\n\ndata: {"b":1}\n\n',
            b'event: x\ndata: {"condition":"Code","a":1}\n\ndata: {"condition":"Code","b":1}\n\n',
        ),
        (b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
        (b": ping\n\n", b": ping\n\n"),
    ],
)
def test_a_field_comes_first_in_each_event(chunk: bytes, expected: bytes) -> None:
    assert with_field_in_events(chunk, FIELD) == expected


def test_a_text_that_looks_like_an_event_is_left_alone() -> None:
    text = json.dumps({"text": '\ndata: {"a": 1}'})
    event = with_field_in_events(f"data: {text}\n\n".encode(), FIELD)
    assert json.loads(event.removeprefix(b"data: ")) == {"condition": "Code", **json.loads(text)}


def test_the_length_counts_what_was_added() -> None:
    sent = passed_on([start("application/json", **{"content-length": "7"}), body(b'{"a":1}')])
    assert json.loads(sent[1]["body"]) == {"condition": "Code", "a": 1}
    assert (b"content-length", str(len(sent[1]["body"])).encode()) in sent[0]["headers"]
    assert (b"x-request-id", b"abc") in sent[0]["headers"]


def test_an_error_has_the_requests_id_and_tells_nothing_of_the_inside() -> None:
    sent = passed_on([start("application/json", 400), body(b'{"error":{"message":"why"}}')])
    told = {"message": "why", "type": "bad_request_error", "param": None, "code": 400}
    assert json.loads(sent[1]["body"]) == {"request_id": "abc", "type": "error", "error": told}
    sent = passed_on([start("application/json", 500), body(b'{"error":{"message":"ZeroDivisionError in x.py"}}')])
    assert b"x.py" not in sent[1]["body"]
    assert json.loads(sent[1]["body"])["request_id"] == "abc"


def test_a_stream_that_is_cut_ends_in_an_error_and_nothing_follows() -> None:
    refusal = Refusal(HTTPStatus.GATEWAY_TIMEOUT, "Too long.")
    sent = passed_on([start("text/event-stream"), body(b'data: {"a":1}\n\n', True)], cut=refusal)
    event, done = sent[-1]["body"].split(b"\n\n")[:2]
    assert json.loads(event.removeprefix(b"event: error\ndata: "))["error"]["message"] == "Too long."
    assert done == b"data: [DONE]"
    assert sent[-1]["more_body"] is False


def test_a_reply_that_has_not_begun_is_cut_to_an_error_alone() -> None:
    sent = passed_on([], cut=Refusal(HTTPStatus.GATEWAY_TIMEOUT, "Too long."))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 504


def test_a_reply_that_has_ended_is_not_cut() -> None:
    whole = [start("application/json"), body(b'{"a":1}')]
    assert passed_on(whole, cut=Refusal(HTTPStatus.GATEWAY_TIMEOUT, "Too long.")) == passed_on(whole)


@pytest.mark.parametrize("error", [b'data: {"error": {"message": "x.py"}}\n\n', b'event: error\ndata: {"error": "x.py"}\n\n'])
def test_an_error_in_a_stream_tells_nothing_of_the_inside(error: bytes) -> None:
    sent = passed_on(
        [start("text/event-stream"), body(b'data: {"a":1}\n\n', True), body(error, True), body(b"data: [DONE]\n\n")]
    )
    assert b"x.py" not in sent[2]["body"]
    assert json.loads(sent[2]["body"].removeprefix(b"event: error\ndata: "))["request_id"] == "abc"
    assert sent[3]["body"] == b"data: [DONE]\n\n"
    # Where nothing came before it, the client is answered as if it hadn't asked for a stream.
    sent = passed_on([start("text/event-stream"), body(error, True), body(b"data: [DONE]\n\n")])
    assert len(sent) == 2
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["code"] == 500


def test_a_stream_that_is_cut_before_its_first_event_is_an_error_alone() -> None:
    sent = passed_on([start("text/event-stream")], cut=Refusal(HTTPStatus.GATEWAY_TIMEOUT, "Too long."))
    assert (sent[0]["status"], json.loads(sent[1]["body"])["error"]["message"]) == (504, "Too long.")


def test_an_error_does_not_repeat_a_long_text_of_the_request() -> None:
    def error(message: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}).encode()

    for message, told in (("x" * 100_000, "x" * 1000 + "…"), ("short", "short")):
        messages = [start("application/json", 400), {"type": "http.response.body", "body": error(message)}]
        reply = json.loads(passed_on(messages)[1]["body"])
        assert (reply["error"]["message"], reply["error"]["code"], reply["request_id"]) == (told, 400, "abc")


def test_where_vllm_has_no_room_the_client_is_told_when_to_come_again() -> None:
    for status, told in ((503, b"1"), (400, None)):
        sent = passed_on([start("application/json", status), {"type": "http.response.body", "body": b'{"error":{}}'}])
        assert dict(sent[0]["headers"]).get(b"retry-after") == told


@pytest.mark.parametrize(
    ("message", "status"), [("Internal server error", 400), ("CUDA error: an illegal memory access was encountered", 500)]
)
@pytest.mark.parametrize(
    ("kind", "begins"), [("application/json", False), ("text/event-stream", False), ("text/event-stream", True)]
)
def test_only_what_the_engine_gave_up_on_is_the_requests_fault(
    message: str, status: int, kind: str, begins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> Reply:
        reply = Reply(send, "abc")
        reply.blames = lambda error: Refusal(HTTPStatus.BAD_REQUEST, "Send a simpler schema.") if gave_up(error) else None
        error = json.dumps(
            {"error": {"message": message, "type": "InternalServerError", "code": 500}}, separators=(",", ":")
        ).encode()
        await reply(start(kind, 500 if kind == "application/json" else 200))
        if begins:
            await reply(body(b'data: {"a":1}\n\n', True))
        await reply(body(error if kind == "application/json" else b"data: " + error + b"\n\n"))
        return reply

    reply = asyncio.run(run())
    assert b"CUDA" not in sent[-1]["body"]
    assert (b"Send a simpler schema." in sent[-1]["body"]) == (status == 400)
    assert (500 if reply.has_failed else reply.status) == status
    assert ("CUDA" in caplog.text) == (status == 500)  # whoever runs the server is told


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        ("The model x does not exist.", "model", "The model x does not exist."),
        (
            "1 validation error:\n  {'type': 'list_type', 'loc': 'body.messages', 'msg': 'Input should be a valid list', 'input': 'hi'}",
            "messages",
            "`messages`: Input should be a valid list. Mend it.",
        ),
        (
            "233 validation errors:\n  {'type': 'missing', 'loc': 'body.input.list[union[A,B]].0.EasyInputMessageParam.role', "
            "'msg': \"Input should be 'user'\", 'input': 'x'}\n  {'type': 'y', 'loc': 'body.input', 'msg': 'z', 'input': 1}",
            "input",
            "`input`: Input should be 'user'. Mend it.",
        ),
        (
            "1 validation error:\n  {'type': 'x', 'loc': 'body', 'msg': 'Not JSON', 'input': 1}",
            "body",
            "`body`: Not JSON. Mend it.",
        ),
        ("x" * 2000, None, "x" * 1000 + "…"),
    ],
)
@pytest.mark.parametrize("form", ["openai", "anthropic"])
def test_vllms_refusals_are_told_as_ours(message: str, param: str | None, said: str, form: str) -> None:
    own = {"message": message, "type": "Bad Request", "param": None if "validation" in message else param, "code": 400}
    error = (
        {"error": own}
        if form == "openai"
        else {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    )
    sent = passed_on([start("application/json", 400), body(json.dumps(error).encode())])
    told = json.loads(sent[1]["body"])
    assert told["type"] == "error"
    assert told["request_id"] == "abc"
    expected = None if form == "anthropic" and "validation" not in message else param
    assert told["error"] == {"message": said, "type": "bad_request_error", "param": expected, "code": 400}


def test_an_error_of_another_form_is_passed_on_with_its_id() -> None:
    sent = passed_on([start("application/json", 404), body(b'{"detail":"Not Found"}')])
    assert json.loads(sent[1]["body"]) == {"request_id": "abc", "detail": "Not Found"}


@pytest.mark.parametrize(("status", "has_failed"), [(HTTPStatus.BAD_REQUEST, False), (HTTPStatus.INTERNAL_SERVER_ERROR, True)])
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
def test_a_reply_that_had_begun_and_ends_in_an_error_is_known_as_such(kind: str, status: HTTPStatus, has_failed: bool) -> None:
    async def send(message: Any) -> None:
        pass

    async def run() -> Reply:
        reply = Reply(send, "abc")
        for message in (start(kind), body(b'data: {"a":1}\n\n', more=True)):
            await reply(message)
        await reply.end(Refusal(status, "No."))
        return reply

    reply = asyncio.run(run())
    assert (reply.status, reply.has_failed) == (status.value, has_failed)
