import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.lifespan.on import LifespanOn

from ochat.serving import metering
from ochat.serving.gateway import Gateway
from ochat.serving.keys import Key, hashed, write_keys

CHAT = "/v1/chat/completions"
BODY = b'{"messages": []}'
Chunks = list[bytes]


def call(
    chunks: Chunks,
    path: str = CHAT,
    method: str = "POST",
    args: dict[str, Any] | None = None,
    sent: list[Any] | None = None,
    passed: dict[bytes, bytes] | None = None,
    leaves: bool = False,
    **headers: str,
) -> Any:
    """Send a body in chunks through the gateway to an application that answers 200 with the body it read. `sent` gets what comes
    back, and `passed` the headers that the application gets. One that `leaves` is gone before its body is whole."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = leaves
    incoming = iter([*messages, {"type": "http.disconnect"}])
    sent = [] if sent is None else sent

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        (passed if passed is not None else {}).update(scope["headers"])
        if method == "POST":
            message = await receive()
            body = message["body"]
            assert not message["more_body"]
            assert (await receive())["type"] == "http.disconnect"
        asks = "api_key" in (args or {}) and method != "OPTIONS"  # as plain vLLM does, of this header alone
        admits = not asks or dict(scope["headers"]).get(b"authorization") == b"Bearer secret"
        await send({"type": "http.response.start", "status": 200 if admits else 403, "headers": []})
        await send({"type": "http.response.body", "body": body})

    given = {"content-type": "application/json", **headers}
    server = SimpleNamespace(tokenizer_mode="auto", **(args or {}))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "app": SimpleNamespace(state=SimpleNamespace(args=server)),
    }
    asyncio.run(Gateway(echo, lambda path: {"messages": None})(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def split(body: bytes, size: int = 7) -> Chunks:
    return [body[start : start + size] for start in range(0, len(body), size)]


def test_a_body_arrives_whole_however_it_is_cut() -> None:
    for chunks in ([BODY], split(BODY), [*split(BODY), b""]):
        assert call(chunks) == (200, BODY)


def test_a_body_is_read_to_a_limit_only() -> None:
    small = {"max_body_mb": 20e-6}
    assert call([BODY], args=small)[0] == 200
    for chunks, headers in (([BODY, BODY, b"never read"], {}), ([b"never read"], {"content-length": "21"})):
        status, body = call(chunks, args=small, **headers)
        assert status == 413
        assert "more than 20 bytes" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""])
def test_what_a_browser_may_send_without_asking_is_no_request(kind: str) -> None:
    assert call([BODY], **{"content-type": kind})[0] == 415


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/invocations", "POST", 404),
        ("/v1/embeddings", "POST", 404),
        ("//v1/chat/completions", "POST", 404),
        ("/v1/chat/completions/", "POST", 404),
        ("/v1/../v1/chat/completions", "POST", 404),
        ("/v1/chat/completions", "GET", 405),
        ("/metrics", "POST", 405),
        ("/v1/models", "OPTIONS", 200),
        ("/invocations", "OPTIONS", 404),
    ],
)
def test_only_listed_routes_answer(path: str, method: str, status: int) -> None:
    assert call([BODY], path, method)[0] == status


def test_pages_of_allowed_origins_can_read_what_is_refused_too() -> None:
    asked = {"allowed_origins": ["https://app.example"], "allow_credentials": False, "api_key": ["secret"]}
    for origin, allowed in (("https://app.example", b"https://app.example"), ("https://other.example", None)):
        for args, expected in ((asked, allowed), ({"api_key": ["secret"]}, None)):
            sent: list[Any] = []
            assert call([BODY], args=args, sent=sent, origin=origin)[0] == 401
            headers = dict(sent[0]["headers"])
            assert headers.get(b"access-control-allow-origin") == expected
            assert (headers.get(b"access-control-expose-headers") == b"x-request-id, retry-after") == (
                "allowed_origins" in args
            )


def test_headers_that_vllm_takes_for_orders_are_not_passed_on() -> None:
    orders = {"x-vllm-priority": "-9", "x-data-parallel-rank": "1", "x-session-id": "a", "x-request-id": "forged"}
    passed: dict[bytes, bytes] = {}
    assert call([BODY], passed=passed, accept="text/event-stream", **orders)[0] == 200
    assert set(passed) == {b"accept", b"content-type", b"x-request-id"}
    assert passed[b"x-request-id"] != b"forged"


def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(Gateway(never)({"type": "websocket", "path": "/v1/realtime"}, never, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_with_keys_every_path_but_the_health_checks_asks_for_one() -> None:
    keys = {"api_key": ["other", "secret"]}
    for path, method in ((CHAT, "POST"), ("/tokenize", "POST"), ("/metrics", "GET"), ("/v1/conditions", "GET")):
        status, body = call([BODY], path, method, keys)
        assert status == 401
        assert "Authorization" in json.loads(body)["error"]["message"]
        for given in ({"authorization": "Bearer secret"}, {"x-api-key": "secret"}):
            assert call([BODY], path, method, keys, **given)[0] == 200
        assert call([BODY], path, method, keys, authorization="Basic secret")[0] == 401
    assert call([b""], "/health", "GET", keys)[0] == 200
    assert call([b""], CHAT, "OPTIONS", keys)[0] == 200


def gateway_before(
    app: Any, keys: Path, may_send: asyncio.Event | None = None
) -> tuple[Gateway, Callable[[bytes], Awaitable[int]]]:
    """A gateway for two replies at once, and what asks it with the key and gives the reply's status as soon as the reply is whole.
    Bodies come when they may."""
    write_keys(keys, [Key(name="a", sha256=hashed("secret"), concurrent=2)])
    gateway = Gateway(app, lambda path: {"messages": None, "n": 1})
    args = SimpleNamespace(tokenizer_mode="auto", max_in_flight=2, api_key_file=keys)
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer secret")]
    state = SimpleNamespace(state=SimpleNamespace(args=args))
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "app": state}

    async def ask(body: bytes) -> int:
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        status = 0

        async def receive() -> Any:
            if may_send:
                await may_send.wait()
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set_result(status)

        task = asyncio.create_task(gateway(scope, receive, send))
        await asyncio.wait((task, answered), return_when=asyncio.FIRST_COMPLETED)
        return answered.result()

    return gateway, ask


@pytest.mark.parametrize("sizes", [(3,), (1, 2)])  # of the bodies that a reply is sent in
def test_a_client_that_has_its_reply_may_ask_again_at_once(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    async def ask_again() -> list[int]:
        may_end, has_ended = asyncio.Event(), 0

        async def lingering(scope: Any, receive: Any, send: Any) -> None:
            nonlocal has_ended
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number, size in enumerate(sizes, start=1):
                await send({"type": "http.response.body", "body": b"x" * size, "more_body": number < len(sizes)})
            await may_end.wait()
            has_ended += 1

        gateway, ask = gateway_before(lingering, tmp_path / "keys")
        statuses = [await ask(b'{"messages": [], "n": 2}'), await ask(BODY), await ask(BODY), await ask(BODY)]
        assert gateway.in_flight == 0
        may_end.set()
        while gateway.lifecycle.works:
            await asyncio.sleep(0)
        assert has_ended == 4
        assert gateway.in_flight == 0  # and nothing is freed twice
        return statuses

    assert asyncio.run(ask_again()) == [200] * 4


def test_places_are_counted_by_replies_and_freed_once(tmp_path: Path) -> None:
    async def fill() -> None:
        may_reply = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await may_reply.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        gateway, ask = gateway_before(slow, tmp_path / "keys")
        for _ in range(3):  # refused before and after it was admitted
            assert await ask(b'{"messages": [], "zzz": 1}') == 400
            assert await ask(b'{"messages": [], "n": 3}') == 400  # never room for it, so not a 429
            assert gateway.in_flight == 0
        first = asyncio.create_task(ask(BODY))
        await asyncio.sleep(0.01)
        assert await ask(b'{"messages": [], "n": 2}') == 429
        second = asyncio.create_task(ask(BODY))
        await asyncio.sleep(0.01)
        assert gateway.in_flight == 2
        assert await ask(BODY) == 429
        may_reply.set()
        assert (await first, await second) == (200, 200)
        assert gateway.in_flight == 0

    asyncio.run(fill())


def test_a_client_that_leaves_while_it_sends_has_aborted(tmp_path: Path) -> None:
    usage = tmp_path / "usage"
    with pytest.raises(IndexError):  # nothing is sent to it
        call([b'{"mess', b""], args={"usage_log": usage}, leaves=True)
    assert [(row["outcome"], row["status"]) for row in map(json.loads, usage.read_text().splitlines())] == [("aborted", 499)]


def server_state(args: dict[str, Any], data_parallel_size: int = 1) -> SimpleNamespace:
    """What vLLM's server has in its state when the lifespan begins."""
    parallel, scheduler = SimpleNamespace(data_parallel_size=data_parallel_size), SimpleNamespace(max_num_seqs=256)
    config = SimpleNamespace(parallel_config=parallel, scheduler_config=scheduler)
    engine = SimpleNamespace(vllm_config=config, errored=False, shutdown=lambda timeout=None: None)
    server = SimpleNamespace(config=SimpleNamespace(http_protocol_class=None), should_exit=False)
    return SimpleNamespace(args=SimpleNamespace(tokenizer_mode="auto", **args), engine_client=engine, server=server)


def begun(gateway: Gateway, state: SimpleNamespace, lifespan: str) -> bool:
    """Whether uvicorn, with so much trust in its application's lifespan, goes on to serve."""

    async def run() -> bool:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await gateway({**scope, "app": SimpleNamespace(state=state)}, receive, send)

        config = uvicorn.Config(app, lifespan=lifespan, log_level="critical")  # type: ignore[arg-type]  # of its words
        config.load()
        told = LifespanOn(config)
        await told.startup()
        await told.shutdown()
        return not told.should_exit

    return asyncio.run(run())


async def starts(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@pytest.mark.parametrize("log", ["usage_log", "request_log"])
def test_a_gateway_that_cannot_begin_keeps_the_server_from_it(
    log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_started = threading.Event()
    monkeypatch.setattr("ochat.serving.gateway.NOT_STARTED", not_started)
    monkeypatch.setattr(metering, "install", lambda engine: None)
    monkeypatch.setattr("ochat.serving.gateway.try_first", lambda engine: None)
    good, bad = ({log: tmp_path / name / "log.jsonl"} for name in (".", "no-such-folder"))
    assert begun(Gateway(starts), server_state(good), "auto")
    assert not not_started.is_set()
    assert not begun(Gateway(starts), server_state(bad), "auto")
    assert not_started.is_set()


def test_what_another_vllm_has_moved_keeps_the_server_from_beginning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ochat.serving.gateway.NOT_STARTED", threading.Event())
    monkeypatch.setattr(metering, "install", lambda engine: None)
    monkeypatch.setattr("ochat.serving.gateway.try_first", lambda engine: None)
    moved = server_state({})
    del moved.engine_client.vllm_config.scheduler_config
    assert not begun(Gateway(starts), moved, "auto")


@pytest.mark.parametrize(
    ("args", "engines", "places"),
    [
        ({}, 1, 256),
        ({"api_server_count": 2}, 1, 128),
        ({"api_server_count": 4}, 4, 256),
        ({"max_in_flight": 6, "api_server_count": 2}, 4, 3),
    ],
)
def test_every_engine_takes_its_sequences(
    args: dict[str, Any], engines: int, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "install", lambda engine: None)
    monkeypatch.setattr("ochat.serving.gateway.try_first", lambda engine: None)
    gateway = Gateway(starts)
    assert begun(gateway, server_state(args, engines), "auto")
    assert gateway.max_in_flight == places


def test_plain_vllms_key_is_asked_for_wherever_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert call([BODY], "/tokenize")[0] == 401
    assert call([BODY], "/tokenize", authorization="Bearer secret")[0] == 200


@pytest.mark.parametrize("bodies_come_later", [False, True])
def test_requests_that_come_at_once_count_for_each_other(bodies_come_later: bool, tmp_path: Path) -> None:
    """Bodies of 400 bytes, 100 tokens or so, and a limit of 250: of ten that come at once three are let through."""

    async def at_once() -> list[int]:
        may_reply = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await may_reply.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        may_send = asyncio.Event()
        gateway, ask = gateway_before(slow, tmp_path / "keys", may_send)
        write_keys(tmp_path / "keys", [Key(name="a", sha256=hashed("secret"), tokens_per_minute=250)])
        gateway._prepare(SimpleNamespace(args=SimpleNamespace(tokenizer_mode="auto", api_key_file=tmp_path / "keys")))  # type: ignore[arg-type]
        body = json.dumps({"messages": ["x" * 380]}).encode()
        if not bodies_come_later:
            may_send.set()
        asking = [asyncio.create_task(ask(body)) for _ in range(10)]
        await asyncio.sleep(0.05)
        may_send.set()
        await asyncio.sleep(0.05)
        may_reply.set()
        return [await one for one in asking]

    statuses = asyncio.run(at_once())
    assert sorted(statuses) == [200] * 3 + [429] * 7


def test_a_key_of_some_conditions_may_not_write_its_prompts_itself(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [Key(name="some", sha256=hashed("some"), conditions=("Code",)), Key(name="all", sha256=hashed("all"))])
    answers = {
        name: call([BODY], path="/v1/completions", args={"api_key_file": file}, authorization=f"Bearer {name}")
        for name in ("some", "all")
    }
    assert answers["some"][0] == 403
    assert b"a raw prompt may hold any" in answers["some"][1]
    assert answers["all"][0] == 200


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ((400, b"Disallowed CORS origin, headers"), 400, "Disallowed CORS origin, headers. --allowed-origins"),
        ((405, b'{"detail":"Method Not Allowed"}'), 405, "/v1/chat/completions takes POST."),
    ],
)
def test_a_preflight_that_vllm_refuses_is_told_in_openais_form(answer: tuple[int, bytes], status: int, words: str) -> None:
    sent: list[Any] = []

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": answer[0], "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": answer[1]})

    async def send(message: Any) -> None:
        sent.append(message)

    async def never() -> Any:
        raise AssertionError

    state = SimpleNamespace(args=SimpleNamespace(tokenizer_mode="auto"))
    scope = {"type": "http", "method": "OPTIONS", "path": CHAT, "headers": [], "app": SimpleNamespace(state=state)}
    asyncio.run(Gateway(refuses)(scope, never, send))
    (start, body), headers = sent, dict(sent[0]["headers"])
    told = json.loads(body["body"])
    assert start["status"] == status == told["error"]["code"]
    assert words in told["error"]["message"]
    assert told["request_id"].encode() == headers[b"x-request-id"]
