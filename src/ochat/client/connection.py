"""Requests to an OpenAI-compatible server of anybody's, on the standard library's connections.

The audit sends what no usual client does (paths and Host headers as they are written, replies that are hung up on), and the
terminal client ends a reply from another thread; both want the connection itself and nothing more."""

import http.client
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ochat.errors import OchatError


class NoAnswer(OchatError):
    """The server couldn't be reached, or hung up before it answered."""


@dataclass(frozen=True)
class Answer:
    """A whole response; status 0 where the connection was dropped instead."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body's value; None where it isn't JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def error_message(self) -> str:
        """What the server says is wrong, in one line: OpenAI's error.message, or else the body's start."""
        value = self.json()
        error = value.get("error", value.get("detail")) if isinstance(value, dict) else None
        text = error.get("message") if isinstance(error, dict) else error
        return " ".join((text if isinstance(text, str) else self.body[:300].decode("utf-8", "replace")).split())


class Server:
    """A server's address and the key that it's asked with."""

    def __init__(self, url: str, key: str = "", timeout: float = 300) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host:
            raise OchatError(f"{url!r} is no server's address. Give one such as http://localhost:18888/v1.")
        if not key.isascii() or not key.isprintable():
            raise OchatError("The key has a line break or a letter that no header can hold. Copy it again.")
        self.is_https, self.host, self.port = parts.scheme == "https", host, port
        # What stands before /v1: a proxy may serve the API under a path.
        self.prefix = parts.path.rstrip("/").removesuffix("/v1")
        self.url = f"{parts.scheme}://{parts.netloc}{self.prefix}"
        self.key, self.timeout = key, timeout

    @contextmanager
    def sent(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPConnection]:
        """A connection on which a request was sent; it is hung up when the block ends.

        `path` is sent as it is, after the prefix. `headers` replace the usual ones. Raises NoAnswer."""
        kind = http.client.HTTPSConnection if self.is_https else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=self.timeout)
        given = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        given |= {"Content-Type": "application/json"} if body is not None else {}
        given |= dict(headers or {})
        try:
            try:
                connection.putrequest(method, self.prefix + path, skip_host="Host" in given, skip_accept_encoding=True)
                for name, value in given.items():
                    connection.putheader(name, value)
                if body is not None:
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
            except OSError as error:
                raise self._no_answer(error) from error
            yield connection
        finally:
            connection.close()

    @contextmanager
    def answered(self, connection: http.client.HTTPConnection) -> Iterator[http.client.HTTPResponse]:
        """The response to what was sent, its headers read. Raises NoAnswer."""
        try:
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from error
        with response:
            yield response

    @contextmanager
    def response(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The response to one request; what is left of it is hung up on when the block ends. Raises NoAnswer."""
        with self.sent(method, path, body, headers) as connection, self.answered(connection) as response:
            yield response

    def _no_answer(self, error: Exception) -> NoAnswer:
        problem = str(error) or type(error).__name__
        return NoAnswer(f"No server answers at {self.url} ({problem}). Check the address, and that it runs.")

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """The whole answer to one request, whose body is sent as JSON where it isn't bytes. Raises NoAnswer."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with self.response(method, path, data, headers) as response:
            return self.whole(response)

    def whole(self, response: http.client.HTTPResponse) -> Answer:
        """The response read to its end. Raises NoAnswer."""
        try:
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self.url} hung up in the middle of an answer. Look at the server's log.") from error


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, until [DONE]. Raises NoAnswer where it breaks off."""
    try:
        for line in response:
            data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                value = json.loads(data)
                if isinstance(value, dict):
                    yield value
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:  # the last: closed by another thread
        raise NoAnswer(f"The stream broke off ({str(error) or type(error).__name__}). Look at the server's log.") from error
    raise NoAnswer("The stream ended before its last event. Look at the server's log.")


def served_models(server: Server) -> list[dict[str, Any]]:
    """The models that a server lists. Raises OchatError, in words, where it doesn't."""
    answer = server.ask("GET", "/v1/models")
    if answer.status in (401, 403):
        given = "The given key isn't one of its keys." if server.key else "It wants a key."
        raise OchatError(f"{server.url} answered {answer.status}. {given} Give one in OPENAI_API_KEY.")
    value = answer.json()
    models = value.get("data") if isinstance(value, dict) else None
    if not answer.ok or not isinstance(models, list):
        raise OchatError(
            f"{server.url}/v1/models didn't list models as OpenAI's API does ({answer.status}). Check the address."
        )
    return [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]
