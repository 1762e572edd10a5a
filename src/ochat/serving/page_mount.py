"""The chat page, served by the same process: whatever application the entry point group `ochat.page` names.

Serving knows it by that name alone, so a server without the page's files serves on, and someone else's page can stand in its
place. What is shown without a key is static; the requests that the page makes give one like all others."""

from importlib.metadata import entry_points

from starlette.types import ASGIApp, Receive, Scope, Send

GROUP = "ochat.page"


class PageMount:
    """ASGI middleware: `/` and `/ui/…` are the page's, all else the server's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.page: ASGIApp | None = next((point.load() for point in entry_points(group=GROUP)), None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.page is not None and scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if asked and _is_page(scope["path"].removeprefix(scope.get("root_path", ""))):
            assert self.page is not None
            await self.page(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_page(path: str) -> bool:
    return path in ("", "/", "/ui") or path.startswith("/ui/")
