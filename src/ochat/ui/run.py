"""`ochat ui`: the chat page on this machine, in front of any server that speaks OpenAI's API."""

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from ochat.errors import OchatError, require


@dataclass(frozen=True)
class Options:
    base_url: str = "http://localhost:18888/v1"
    """the server's API, as OpenAI's clients are given it; mostly it ends in /v1"""
    port: int = 18889
    """port of the page, on this machine alone"""

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise OchatError(f"--base-url is {self.base_url!r}. Give one such as http://localhost:8000/v1")
        if not 0 < self.port < 65536:
            raise OchatError(f"--port is {self.port}. Give one from 1 to 65535.")


def main(options: Options) -> None:
    for module in ("httpx", "starlette", "uvicorn"):
        require(module, "ui", "The chat page")
    import uvicorn

    from ochat.ui.proxy import make_app

    try:
        sock = socket.create_server(("127.0.0.1", options.port))
    except OSError as error:
        raise OchatError(f"Port {options.port} can't be used ({error.strerror}). Give another with --port.") from error
    print(f"The chat page for {options.base_url}: http://localhost:{options.port}/   (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(uvicorn.Config(make_app(options.base_url), log_level="warning", timeout_graceful_shutdown=1))
    server.run(sockets=[sock])
