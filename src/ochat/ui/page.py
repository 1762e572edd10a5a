"""The chat page: a few static files, as an ASGI application.

The server mounts it by the name of an entry point (serving/page_mount.py), `ochat ui` runs it in front of any other server. The page
talks to the paths beside its own, so it needs no address of anything. Its policy lets it load from and talk to nobody else, and
run no script but the files here: docs/decisions/0007-chat-page.md."""

import hashlib
from importlib.resources import files

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

PREFIX = "/ui/"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked for again: a new version is seen at once
}


def _read_files() -> dict[str, tuple[bytes, dict[str, str]]]:
    """The content and headers of each path."""
    found = {}
    for file in files("ochat.ui").joinpath("static").iterdir():
        path = "/" if file.name == "index.html" else PREFIX + file.name
        content = file.read_bytes()
        kind = TYPES["." + file.name.rpartition(".")[2]]
        found[path] = (
            content,
            {**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "ETag": f'"{hashlib.sha256(content).hexdigest()}"'},
        )
    return found


FILES = _read_files()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for the page or one of its files; `root_path` is what a proxy leaves before the path."""
    path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
    response: Response
    if path in ("/ui", PREFIX):
        response = RedirectResponse("./" if path == "/ui" else "../", headers=HEADERS)
    elif path not in FILES:
        response = Response("Not found. The chat page is at the root of this server.\n", 404, HEADERS, "text/plain")
    else:
        content, headers = FILES[path]
        if Headers(scope=scope).get("if-none-match") == headers["ETag"]:
            response = Response(status_code=304, headers=headers)
        else:
            response = Response(content, headers=headers)
    await response(scope, receive, send)
