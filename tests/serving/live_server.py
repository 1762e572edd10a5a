"""Start the server as a user does, in a process of its own, and talk to it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ochat.serving.keys import Key, hashed, make_key, read_keys, write_keys

USER = [{"role": "user", "content": "Hi"}]
START_SECONDS = 500  # about a minute on two free cores, minutes beside other work


@dataclass
class Server:
    url: str
    log: Path
    keys: Path  # its file of keys
    usage: Path  # its usage log
    key: str = ""  # one without limits

    def headers(self, key: str | None = None) -> dict[str, str]:
        """Those that give a key, its own for None; none for ""."""
        key = self.key if key is None else key
        return {"authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=self.headers(key), timeout=60)

    def post(self, path: str, key: str | None = None, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, headers=self.headers(key), timeout=60)

    def stream(self, path: str, key: str | None = None, **body: Any) -> AbstractContextManager[httpx.Response]:
        body = {"model": "tiny", "stream": True, **body}
        return httpx.stream("POST", f"{self.url}{path}", json=body, headers=self.headers(key), timeout=60)

    def chat(self, content: str = "Hello", key: str | None = None, **body: Any) -> httpx.Response:
        """A chat request that tells its prompt ids; `messages` in the body replaces the content."""
        given = {
            "model": "openchat_3.5",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 3,
            "return_token_ids": True,
        }
        return self.post("/v1/chat/completions", key, **{**given, **body})

    def add_key(self, name: str, **limits: Any) -> str:
        """A new key, which the server knows when this returns."""
        key = make_key()
        write_keys(self.keys, [*read_keys(self.keys), Key(name=name, sha256=hashed(key), **limits)])
        wait_for(lambda: self.get("/v1/models", key).is_success)
        return key

    def usage_of(self, request_id: str) -> dict[str, Any]:
        """The usage log's line for a request, which may be written a moment after its reply."""

        def lines() -> list[dict[str, Any]]:
            rows = map(json.loads, self.usage.read_text(encoding="utf-8").splitlines())
            return [row for row in rows if row["id"] == request_id]

        wait_for(lambda: bool(lines()))
        (row,) = lines()
        return row


async def streams(server: Server, number: int, max_tokens: int, then: Any) -> list[list[str]]:
    """The events of so many streams at once, with `then` called when all have begun."""
    begun = 0

    async def one(client: httpx.AsyncClient) -> list[str]:
        nonlocal begun
        body = {"model": "tiny", "stream": True, "messages": USER, "max_tokens": max_tokens, "ignore_eos": True}
        events: list[str] = []
        async with client.stream("POST", f"{server.url}/v1/chat/completions", json=body, headers=server.headers()) as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                if not line:
                    continue
                events.append(line)
                if len(events) == 2:
                    begun += 1
                if begun == number and len(events) >= 2:
                    begun = -(10**6)
                    then()
        return events

    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=number)) as client:
        return await asyncio.gather(*(one(client) for _ in range(number)))


def random_model(**shape: int) -> Any:  # transformers' classes have no types
    """A model of OpenChat 3.5's vocabulary that vLLM can serve on a CPU, whose attention takes no smaller heads."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    given = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8192, **shape}
    torch.manual_seed(0)
    config = MistralConfig(vocab_size=32002, intermediate_size=128, num_hidden_layers=2, head_dim=32, **given)
    return MistralForCausalLM(config).eval()


def random_checkpoint(tokenizer: Path, folder: Path, **shape: int) -> Path:
    """The folder of such a model, of OpenChat 3.5's type."""
    import torch

    from ochat.registry import model_type
    from ochat.training.checkpoint import save_checkpoint

    save_checkpoint(random_model(**shape).to(torch.bfloat16), tokenizer, model_type("openchat_3.5"), folder)
    return folder


def wait_for(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Return when it holds; fail where that takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)


def environment() -> dict[str, str]:
    """The tests' own without pytest's, so that a server starts as a user's does."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "VLLM"))}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the server answers; fail with its log where it ends before or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):  # the pause between two tries
            raise AssertionError(f"ended with {process.wait(0.5)}:\n{log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
    raise AssertionError(f"not ready after {START_SECONDS} s:\n{log.read_text()}")


@contextlib.contextmanager
def running(
    folder: Path, checkpoint: Path | str, *options: str, waits: bool = True, **variables: str
) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """A server of its own with a file of keys and a usage log; it's ended when the caller is done.

    Without `waits` the caller has it while it starts."""
    keys = folder / "keys.json"
    key = make_key()
    write_keys(keys, [Key(name="tests", sha256=hashed(key), metrics=True)])
    port = free_port()
    server = Server(f"http://localhost:{port}", folder / "log", keys, folder / "usage.jsonl", key)
    command = [sys.executable, "-m", "ochat.serving.openai_api_server", "--model", str(checkpoint), "--port", str(port)]
    command += ["--kv-cache-memory-bytes", str(2**26), "--api-key-file", str(keys), "--usage-log", str(server.usage), *options]
    with started(command, server, waits, **variables) as process:
        yield server, process


@contextlib.contextmanager
def started(command: list[str], server: Server, waits: bool = True, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command that starts a server, until the caller is done."""
    with server.log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**environment(), **variables}, start_new_session=True
        )
    try:
        if waits:
            wait_until_ready(process, server.url, server.log)
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):  # helpers may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
