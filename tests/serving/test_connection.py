"""Before a real uvicorn: what is refused before any code of the server's is asked."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import uvloop

from ochat.serving import connection
from ochat.serving.connection import MAX_HEAD_BYTES, bound_connections

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = REQUEST + b"Transfer-Encoding: chunked\r\n\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def at_once(scope: Any, receive: Any, send: Any) -> None:
    """Answers whatever body may come, as /health does."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answers once it has the whole body."""
    while (await receive()).get("more_body"):
        pass
    await at_once(scope, receive, send)


def talk(with_server: Talk, app: Any = hello, loop: Any = asyncio.new_event_loop) -> None:
    """Run a server with bounds, and talk with it over a connection."""

    async def run() -> None:
        # A second after a reply was written uvicorn closes the connection, whatever of it was taken.
        config = uvicorn.Config(app, port=0, log_level="critical", http="httptools", lifespan="off", timeout_keep_alive=1)
        config.load()
        bound_connections(config)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1])
        try:
            async with asyncio.timeout(20):
                await with_server(reader, writer)
        finally:
            writer.transport.abort()
            server.should_exit = True
            await serving

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("app", [hello, at_once])
@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a"),
        (REQUEST + b"A: ", b"a"),
        (REQUEST, b"A: " + b"a" * 60 + b"\r\n"),
        (CHUNKED + b"0\r\n", b"A: b\r\n"),
        (CHUNKED + b"0\r\nA: ", b"a"),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"A: b\r\n"),
        (CHUNKED + b"1;", b"a"),
    ],
    ids=["address", "one header", "headers", "trailers", "one trailer", "trailers after a body", "what is said of a chunk"],
)
def test_a_head_or_trailers_that_never_end_are_cut_off(begin: bytes, more: bytes, app: Any) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            writer.write(begin)
            for _ in range(1000):
                writer.write(more * (MAX_HEAD_BYTES // len(more)))
                await writer.drain()

        with pytest.raises(ConnectionError):
            await send()

    talk(flood, app)


def test_a_head_that_comes_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in (b"", REQUEST):
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""

    talk(wait)


def test_trailers_that_come_slowly_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"0\r\n")
        await reader.readuntil(b"hello")
        monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
        writer.write(b"A: b\r\n")
        assert await reader.read() == b""

    talk(wait, at_once)


def test_the_rest_of_a_body_that_was_answered_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        await reader.readuntil(b"hello")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

    talk(trickle, at_once)  # it would never end


def test_a_body_that_ends_soon_after_its_reply_leaves_the_connection_to_the_next_request() -> None:
    async def ask_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
            await reader.readuntil(b"hello")
            for _ in range(3):
                await asyncio.sleep(0.02)
                writer.write(b"x")

    talk(ask_twice, at_once)


def chunked(body: bytes, size: int) -> bytes:
    """A request that sends the body in chunks of this size, with a trailer."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join([CHUNKED, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\nA: b\r\n\r\n"])


def test_whole_requests_are_answered_with_long_bodies_and_one_after_another() -> None:
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"x" * 4_000_000
        long = b"A: " + b"a" * (MAX_HEAD_BYTES // 2) + b"\r\n"
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        # Many short ones at once too: they are as long as four heads may be.
        short = (REQUEST + b"\r\n") * (4 * MAX_HEAD_BYTES // len(REQUEST))
        requests = [REQUEST + b"\r\n", post + body, REQUEST + long + b"\r\n", post + body, chunked(body, 1_000_000)]
        for request in (*requests, chunked(body, 10_000), short, REQUEST + b"\r\n"):
            writer.write(request)
            for _ in range(request.count(b"Host")):
                assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")

    talk(ask)


def test_a_body_that_comes_in_many_small_pieces_is_waited_for_and_the_connection_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    end = b"\r\n"
    request = chunked(b"x" * 3 * MAX_HEAD_BYTES, 4096).removesuffix(end)

    async def ask_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            for start in range(0, len(request), 4096):
                writer.write(request[start : start + 4096])
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(end)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.4)

    talk(ask_twice)


def test_a_client_that_reads_nothing_is_cut_off_and_its_next_request_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.2)
    ended = 0

    async def large(scope: Any, receive: Any, send: Any) -> None:
        nonlocal ended
        body = b"x" * 20_000_000  # more than the sockets hold
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        ended += 1

    async def ask_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((REQUEST + b"\r\n") * 2)
        while ended < 2:
            await asyncio.sleep(0.01)

    talk(ask_twice, large)


def test_a_client_that_reads_slowly_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.5)
    body = b"x" * 20_000_000

    async def in_pieces(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        for start in range(0, len(body), 200_000):
            await send({"type": "http.response.body", "body": body[start : start + 200_000], "more_body": True})
        await send({"type": "http.response.body"})

    async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST + b"\r\n")
        got = await reader.readuntil(b"\r\n\r\n")
        n = 0
        while n < len(body):
            some = await reader.read(1_000_000)
            assert some
            n += len(some)
            await asyncio.sleep(0.05)
        assert got.startswith(b"HTTP/1.1 200")

    talk(sip, in_pieces)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_that_reads_a_reply_written_at_once_slowly_gets_all(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    body = b"x" * 20_000_000  # more than the sockets hold

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(40):  # two seconds
            await reader.readexactly(len(body) // 40)
            await asyncio.sleep(0.05)

    talk(sip, whole, loop)
