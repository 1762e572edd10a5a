"""A small OpenAI-compatible server without a model, right in everything but the faults that it's given. (Some are none: with
"metrics" it tells how many requests are at work, with "routes first" it asks for a key when it knows that it has such a route, as
checks of keys do that are a dependency of each route, and with "no PROPFIND" and "no TRACE" it doesn't know these methods.)

A token of its prompts is a letter; its replies are words made of the seed, or what `reply` holds. All requests share one engine, which makes a word in
some milliseconds."""

import contextlib
import json
import select
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ochat.client.check_tokens import MARKS
from ochat.client.subject import CHAT

KEY = "sk-toy"
FIELDS = (
    "model messages max_tokens temperature stop seed n logprobs top_logprobs top_p logit_bias response_format stream".split()
)
FIELDS += ["stream_options", "condition", "ignore_eos"]
CONDITIONS = ("GPT4 Correct", "GPT3")
ROUTES = {"/v1/models": ["GET"], CHAT: ["POST"], "/v1/files": ["GET", "POST"], "/v1/cars": ["GET"]}
CONTEXT = 1600  # tokens; the audit asks for replies of half of it
WORD_SECONDS = 0.001


class Refused(Exception):
    """Status and message of an answer that is no reply."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Toy:
    """A running server; `asked` are the bodies of its chat requests, `flushed` the methods by which its cache was. `reply` and `thoughts` are pieces of each stream."""

    url: str
    faults: frozenset[str]
    reply: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()
    asked: list[dict[str, Any]] = field(default_factory=list)
    flushed: list[str] = field(default_factory=list)
    engine: threading.Lock = field(default_factory=threading.Lock)
    at_work: set[threading.Thread] = field(default_factory=set)


def check(body: Any, faults: frozenset[str]) -> None:
    def need(true: bool, what: str) -> None:
        if not true:
            raise Refused(400, f"{what} is wrong")

    need(isinstance(body, dict), "the body")
    unknown = [name for name in body if name not in FIELDS]
    need(not unknown or "shrugs" in faults, f"field {unknown}")
    if body.get("model") != "toy":
        raise Refused(404, "no such model")
    messages = body.get("messages")
    need(isinstance(messages, list) and bool(messages), "messages")
    for message in messages:
        if "breaks" in faults and not isinstance(message, dict):
            raise AttributeError("messages")
        need(isinstance(message, dict) and message.get("role") in ("user", "assistant", "system"), "a role")
        need(set(message) <= {"role", "content"} and isinstance(message.get("content"), str), "a message")
    numbers = {"temperature": (0, 2), "top_p": (0, 1), "n": (1, 4), "max_tokens": (1, 4000), "seed": (0, 2**31)}
    for name, (low, high) in numbers.items():
        value = body.get(name, low)
        need(isinstance(value, int | float) and low <= value <= high, name)
    need(isinstance(body.get("stop", []), list), "stop")
    need("top_logprobs" not in body or body.get("logprobs") is True, "top_logprobs")
    need("response_format" not in body and "logit_bias" not in body, "an option")
    need(body.get("condition", "GPT3") in CONDITIONS or "shrugs" in faults, "condition")


def fetch(body: Any) -> None:
    """Open the addresses that a message's parts name."""
    for part in body["messages"][0]["content"]:
        url = part.get(part["type"], {}).get("url", "") if isinstance(part, dict) else ""
        if url.startswith("http:"):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=5).close()


def prompt_tokens(body: dict[str, Any], faults: frozenset[str]) -> int:
    texts = [message["content"] for message in body["messages"]]
    if "forged" in faults:
        for mark in MARKS[:2]:
            texts = [text.replace(mark, "#") for text in texts]
    return sum(map(len, texts)) + 3 * len(texts)


def words(body: dict[str, Any], faults: frozenset[str]) -> Iterator[str]:
    seed = time.monotonic_ns() if "seed" in faults and body.get("temperature") else body.get("seed", 0)
    for number in range(body.get("max_tokens", 8)):
        word = f"w{seed}x{number} "
        if "stop" not in faults and any(stop in word for stop in body.get("stop", [])):
            return
        yield word


class Handler(BaseHTTPRequestHandler):
    toy: Toy

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, value: object, as_json: bool = True) -> None:
        data = json.dumps(value).encode() if as_json else str(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        faults = self.toy.faults
        path = self.path.partition("?")[0]
        try:
            if f"no {self.command}" in faults:
                raise Refused(501, "no such method")
            if path == "/health":
                self.answer(200, {})
                return
            if path == "/flush_cache" and "flushes" in faults:
                self.flush("any method" in faults)
                return
            if "routes first" in faults and self.command not in ROUTES.get(path, [self.command]):
                raise Refused(405, "another method")
            is_open = (path == "/invocations" and "open" in faults) or ("path" in faults and path != self.path)
            if not self.gives_key() and not is_open:
                given = "no key" if self.headers.get("Authorization") is None else "a wrong key"
                raise Refused(503 if f"stumbles at {given}" in faults else 401, "give a key")
            if path == "/openapi.json" and "routes first" in faults:
                self.answer(200, {"paths": {path: {method.lower(): {} for method in ROUTES[path]} for path in ROUTES}})
            elif (self.command, path) == ("GET", "/v1/models"):
                self.answer(200, {"data": [{"id": "toy", "max_model_len": CONTEXT}]})
            elif (self.command, path) == ("GET", "/v1/conditions"):
                self.answer(200, {"data": [{"id": name} for name in CONDITIONS]})
            elif path == "/metrics" and "metrics" in faults:
                self.answer(200, f"\nllamacpp:requests_processing {len(self.toy.at_work)}\n", as_json=False)
            elif self.command == "POST" and (path == CHAT or is_open):
                self.toy.at_work.add(threading.current_thread())
                try:
                    self.chat(data)
                finally:
                    self.toy.at_work.discard(threading.current_thread())
            else:
                raise Refused(404, "no such path")
        except Refused as refused:
            error: object = {"message": str(refused), "type": "toy"} if "shape" not in faults else str(refused)
            self.answer(refused.status, {"error": error})
        except AttributeError as error:
            self.answer(500, {"error": {"message": f'Traceback: File "toy.py" {error}', "type": "toy"}})
        except OSError:  # the client has gone
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_PROPFIND = do_TRACE = handle_any

    def gives_key(self) -> bool:
        given = self.headers.get("Authorization") or ""
        return given == f"Bearer {KEY}" or ("starts" in self.toy.faults and given.startswith("Bearer sk-"))

    def flush(self, by_any_method: bool) -> None:
        """Flush the cache as SGLang does, by GET as well as by POST."""
        if self.command not in ("GET", "POST") and not by_any_method:
            raise Refused(405, "GET or POST")
        self.toy.flushed.append(self.command)
        self.answer(200, {})

    def has_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def send_delta(self, delta: dict[str, str]) -> None:
        self.wfile.write(b"data: %s\n\n" % json.dumps({"choices": [{"delta": delta}]}).encode())

    def chat(self, data: bytes) -> None:
        try:
            body = json.loads(data, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            raise Refused(400, "not JSON") from None
        if "fetches" in self.toy.faults:
            fetch(body)
        check(body, self.toy.faults)
        self.toy.asked.append(body)
        usage = {"prompt_tokens": prompt_tokens(body, self.toy.faults), "completion_tokens": 0}
        if usage["prompt_tokens"] > CONTEXT:
            raise Refused(400, "too long")
        stream = body.get("stream", False)
        if stream:
            self.send_response(200)
            self.end_headers()
            for thought in self.toy.thoughts:
                self.send_delta({"reasoning_content": thought})
        said = []
        for word in self.toy.reply or words(body, self.toy.faults):
            with self.toy.engine:
                time.sleep(WORD_SECONDS)
            if "goes on" not in self.toy.faults and self.has_gone():
                self.close_connection = True
                return
            said.append(word)
            usage["completion_tokens"] += 1
            if stream:
                with contextlib.suppress(OSError):
                    self.send_delta({"content": word})
        if stream and "fails" in self.toy.faults:
            self.wfile.write(b"data: %s\n\n" % json.dumps({"error": {"message": "gone\x1b[2J"}}).encode())
        reason = "length" if len(said) == body.get("max_tokens", 8) else "stop"
        if stream:
            self.wfile.write(b"data: %s\n\n" % json.dumps({"choices": [{"delta": {}, "finish_reason": reason}]}).encode())
            self.wfile.write(b"data: %s\n\ndata: [DONE]\n\n" % json.dumps({"choices": [], "usage": usage}).encode())
            self.close_connection = True
            return
        logprobs = {"content": [{"top_logprobs": [{}, {}]}]} if body.get("logprobs") else None
        choice = {"message": {"content": "".join(said)}, "finish_reason": reason, "logprobs": logprobs}
        self.answer(200, {"choices": [choice] * body.get("n", 1), "usage": usage})


@contextlib.contextmanager
def toy_server(
    *faults: str, host: str = "127.0.0.1", reply: tuple[str, ...] = (), thoughts: tuple[str, ...] = ()
) -> Iterator[Toy]:
    """The server, on a free port, while the block runs."""

    class Bound(Handler):
        pass

    class Quiet(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        request_queue_size = 1024  # of 5, many clients at once lose their connections on a busy machine

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that hang up are what some tests are about."""

    server = Quiet((host, 0), Bound)
    name = f"[{host}]" if ":" in host else host
    Bound.toy = Toy(f"http://{name}:{server.server_address[1]}", frozenset(faults), reply, thoughts)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Bound.toy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
