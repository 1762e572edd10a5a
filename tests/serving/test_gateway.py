import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException

from ochat.serving import gateway
from ochat.serving.gateway import Gateway, move_condition

CHAT = "/v1/chat/completions"
Chunks = list[bytes]


def call(chunks: Chunks, path: str = CHAT, method: str = "POST", api_key: list[str] | None = None, **headers: str) -> Any:
    """Send a body in chunks through the gateway to an application that answers 200 with the body it read."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False
    incoming = iter([*messages, {"type": "http.disconnect"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", method == "POST"
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        if method == "POST":
            assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "app": SimpleNamespace(state=SimpleNamespace(args=SimpleNamespace(api_key=api_key))),
    }
    asyncio.run(Gateway(echo)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def split(body: bytes, size: int = 7) -> Chunks:
    return [body[start : start + size] for start in range(0, len(body), size)]


def test_a_condition_moves_into_the_template_options_however_the_body_is_cut() -> None:
    body = json.dumps({"messages": [], "condition": "Code", "chat_template_kwargs": {"a": 1}}).encode()
    for chunks in ([body], split(body), [*split(body), b""]):
        status, received = call(chunks)
        assert status == 200
        assert json.loads(received) == {"messages": [], "chat_template_kwargs": {"a": 1, "condition": "Code"}}


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "the \\"condition\\" of it"}]}',
        b'{"messages": [{"condition": "x"}]}',
        b'["condition"]',
        rb'{"messages": [{"role": "user", "content": "caf\u00e9"}]}',
        b'{"condition"',
        b'{"condition": ' + b"[" * 100_000,
        b"",
    ],
)
def test_a_body_without_a_condition_of_its_own_is_passed_on_byte_by_byte(body: bytes) -> None:
    assert call([body]) == (200, body)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"messages": [], "\u0063ondition": "Code"}',
        rb'{"messages": [], "c\u006fnd\u0069tion": "Code"}',
        '{"messages": [], "condition": "Code"}'.encode("utf-16"),
    ],
)
def test_a_condition_is_found_however_its_name_is_written(body: bytes) -> None:
    assert json.loads(move_condition(CHAT, body)) == {"messages": [], "chat_template_kwargs": {"condition": "Code"}}
    with pytest.raises(HTTPException, match="no effect"):
        move_condition("/v1/completions", body)


def test_a_null_condition_is_an_absent_one() -> None:
    assert json.loads(move_condition(CHAT, b'{"messages": [], "condition": null}')) == {"messages": []}


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        (CHAT, {"messages": [], "condition": ["Code"]}, "Give a string"),
        (CHAT, {"messages": [], "condition": 5}, "Give a string"),
        (CHAT, {"messages": [], "condition": "auto"}, "auto"),
        (CHAT, {"messages": [], "chat_template_kwargs": {"condition": "auto"}}, "auto"),
        (CHAT, {"messages": [], "condition": "Code", "chat_template_kwargs": 5}, "must be an object"),
        (CHAT, {"messages": [], "condition": "Code", "chat_template_kwargs": {"condition": "GPT4"}}, "differ"),
        ("/v1/completions", {"prompt": "x", "condition": "Code"}, "no effect on this request to /v1/completions"),
        ("/tokenize", {"prompt": "x", "condition": "Code"}, "no effect"),
        ("/v1/embeddings", {"input": "x", "condition": "Code"}, "no effect"),
    ],
)
def test_a_condition_that_cannot_be_honoured_is_refused(path: str, body: dict[str, object], found: str) -> None:
    with pytest.raises(HTTPException, match=found) as refusal:
        call([json.dumps(body).encode()], path)
    assert refusal.value.status_code == 400


def test_a_body_is_read_to_a_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "MAX_BODY_BYTES", 10)
    with pytest.raises(HTTPException, match="more than 10 bytes") as refusal:
        call([b"x" * 6, b"x" * 5, b"never read"])
    assert refusal.value.status_code == 413
    assert call([b"x" * 5, b"x" * 5]) == (200, b"x" * 10)


def test_an_uploaded_file_is_not_held_back() -> None:
    assert call([b'"condition"'], **{"content-type": "multipart/form-data; boundary=x"})[0] == 200


def test_with_keys_every_path_but_the_health_checks_asks_for_one() -> None:
    for path in (CHAT, "/invocations", "/tokenize", "/metrics"):
        status, body = call([b"{}"], path, api_key=["secret"])
        assert status == 401
        assert "Authorization" in json.loads(body)["error"]["message"]
        assert call([b"{}"], path, api_key=["other", "secret"], authorization="Bearer secret")[0] == 200
    assert call([b""], "/health", "GET", api_key=["secret"])[0] == 200
    assert call([b""], CHAT, "OPTIONS", api_key=["secret"])[0] == 200
