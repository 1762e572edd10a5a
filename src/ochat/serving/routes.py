"""The routes that the server answers. Whatever else vLLM has, now or later, is closed: default-deny.

What is left out generates under another name (`/invocations`), serves other parts of a cluster (`/scale_elastic_ep`), or gives a
request's reply to whoever knows its id (`/v1/responses/{id}`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """A method and path. `conversation`: the body's field that shows that the request renders the template; None: it never does.
    `max_tokens`: the fields that bound a reply's length, where there's a reply."""

    method: str
    path: str
    is_open: bool = False  # answered without a key
    conversation: str | None = None
    max_tokens: tuple[str, ...] = ()

    @property
    def generates(self) -> bool:
        return bool(self.max_tokens)


ROUTES = (
    Route("GET", "/health", is_open=True),
    Route("GET", "/ready", is_open=True),
    Route("GET", "/metrics"),
    Route("GET", "/openapi.json"),
    Route("GET", "/v1/conditions"),
    Route("GET", "/v1/models"),
    Route("POST", "/v1/chat/completions", conversation="messages", max_tokens=("max_completion_tokens", "max_tokens")),
    Route("POST", "/v1/completions", max_tokens=("max_tokens",)),
    Route("POST", "/v1/messages", conversation="messages", max_tokens=("max_tokens",)),
    Route("POST", "/v1/messages/count_tokens", conversation="messages"),
    Route("POST", "/v1/responses", conversation="input", max_tokens=("max_output_tokens",)),
    Route("POST", "/tokenize", conversation="messages"),
    Route("POST", "/detokenize"),
)
_BY_PATH: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _BY_PATH.setdefault(_route.path, {})[_route.method] = _route


def routes_at(path: str) -> dict[str, Route]:
    """The routes of exactly this path, by method; none for an unknown path, a doubled slash or an encoded one."""
    return _BY_PATH.get(path, {})
