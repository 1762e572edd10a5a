"""Start the server as a user does, in a process of its own, and talk to it."""

import contextlib
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 300  # half a minute on two free cores, minutes beside other work


@dataclass
class Server:
    url: str
    log: Path

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60)

    def chat(self, content: str = "Hello", **body: Any) -> httpx.Response:
        """A chat request that tells its prompt ids; `messages` in the body replaces the content."""
        given = {
            "model": "openchat_3.5",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 3,
            "return_token_ids": True,
        }
        return self.post("/v1/chat/completions", **{**given, **body})


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
