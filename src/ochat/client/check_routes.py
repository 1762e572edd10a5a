"""Audit: what answers without a key, and ways round the check of it.

Nothing here asks a server to change. Some act on a GET too (SGLang's /flush_cache), so a route that may change something is asked
by a method that no such server routes: a 405 says that a stranger could have used the right one, where the key is asked for first."""

from collections.abc import Iterator, Mapping
from typing import Literal

from ochat.client.connection import Answer
from ochat.client.subject import CHAT, REFUSED, Finding, Subject, Verdict, field

Kind = Literal["generates", "changes", "tells"]
TOPIC = "keys"
ALIVE = ("/health", "/healthz", "/v1/health", "/ping", "/ready", "/readyz", "/livez")
# Routes of vLLM, SGLang, TGI, llama.cpp, Ollama, LM Studio and transformers.
GENERATES = """/v1/chat/completions /v1/completions /v1/responses /v1/messages /v1/messages/count_tokens /v1/embeddings
/v1/chat/completions/batch /v1/chat/completions/render /v1/completions/render /inference/v1/generate /invocations
/generative_scoring /pooling /classify /score /rerank /v1/rerank /v2/rerank /v1/score /tokenize /detokenize /v1/audio/transcriptions
/generate /generate_stream /completion /completions /chat/completions /chat_tokenize /infill /embedding /embeddings /apply-template
/api/generate /api/chat /api/embed /api/v0/chat/completions""".split()
CHANGES = """/sleep /wake_up /pause /resume /reset_prefix_cache /reset_mm_cache /reset_encoder_cache /collective_rpc /start_profile
/stop_profile /update_weights /start_weight_update /abort_requests /release_kv_cache_memory /v1/load_lora_adapter
/v1/unload_lora_adapter /scale_elastic_ep /flush_cache /update_weights_from_disk /load_model /models/load /models/unload /api/pull
/api/create /api/delete""".split()
TELLS = """/v1/models /v1/conditions /models /metrics /load /version /server_info /is_sleeping /is_paused /kv_event_sources /tokenizer_info /docs
/redoc /openapi.json /get_server_info /get_model_info /info /props /slots /lora-adapters /api/tags /api/ps /api/version
/api/v0/models""".split()
# Safe by RFC 4918 and RFC 9110. llama.cpp's parser doesn't know the first, and proxies often keep the second to themselves.
HARMLESS = ("PROPFIND", "TRACE")
PATHS = (
    "//v1/chat/completions",
    "/./v1/chat/completions",
    "/health/../v1/chat/completions",
    "/health/..%2fv1/chat/completions",
    "/v1/chat/completions/",
    "/V1/chat/completions",
    "/%76%31/chat/completions",
    "/v1%2fchat%2fcompletions",
    "/v1/chat/completions?path=/health",
    "/v1/chat/completions;/health",
)
HEADERS: tuple[Mapping[str, str], ...] = (
    {"Host": "localhost/health?"},  # vLLM once read the path from an address made of this (its advisory of 2026)
    {"Host": "localhost/health#"},
    {"Host": "x@localhost/ui/?"},
    {"X-Original-URL": "/health"},
    {"X-Rewrite-URL": "/health"},
    {"X-Forwarded-Prefix": "/v1"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-HTTP-Method-Override": "OPTIONS"},
)


NOWHERE = "/no-such-path-of-anybody"


def check_routes(subject: Subject) -> Iterator[Finding]:
    everyone = subject.ask("POST", CHAT, subject.request(), keyless=True)
    needs_key = everyone.status in REFUSED
    if not needs_key and not everyone.is_success:
        yield Finding(TOPIC, "generating wants a key", "unknown", f"{CHAT} answers {everyone.status or 'nothing'} without one")
    elif not needs_key:
        local = subject.server.host in ("localhost", "127.0.0.1", "::1")
        verdict: Verdict = "note" if local and not subject.server.key else "fail"
        yield Finding(TOPIC, "generating wants a key", verdict, f"{CHAT} answers {everyone.status} without one", _GIVE_KEYS)
    else:
        yield Finding(TOPIC, "generating wants a key", "pass", f"{everyone.status} without one")
        yield _wrong_keys(subject)
        yield _ways_round(subject)
    yield from _open_routes(subject, needs_key)
    yield _other_origins(subject, needs_key)


_GIVE_KEYS = "Start the server with keys, or put a proxy before it that asks for them."


def _wrong_keys(subject: Subject) -> Finding:
    key = subject.server.key
    tried = {"nonsense": "Bearer nonsense", "an empty key": "Bearer ", "'null'": "Bearer null", "no scheme": "x"}
    if key:
        tried |= {
            "the key and a letter": f"Bearer {key}x",
            "the key without its end": f"Bearer {key[:-1]}",
            "Basic": f"Basic {key}",
        }
    answers = {name: subject.ask("POST", CHAT, subject.request(), {"Authorization": value}) for name, value in tried.items()}
    taken = [f"{name} ({answer.status})" for name, answer in answers.items() if answer.is_success]
    untold = [
        f"{name} ({answer.status or 'no answer'})"
        for name, answer in answers.items()
        if not answer.is_success and answer.status not in (*REFUSED, 400)
    ]
    if taken:
        return Finding(TOPIC, "wrong keys are refused", "fail", f"taken: {', '.join(taken)}", "Compare the whole key.")
    if untold:
        return Finding(TOPIC, "wrong keys are refused", "unknown", f"neither taken nor refused: {', '.join(untold)}")
    return Finding(TOPIC, "wrong keys are refused", "pass", "all of them")


def _ways_round(subject: Subject) -> Finding:
    ways: list[tuple[str, Mapping[str, str]]] = [*((path, {}) for path in PATHS), *((CHAT, headers) for headers in HEADERS)]
    through = []
    for path, headers in ways:
        answer = subject.ask("POST", path, subject.request(), headers, keyless=True)
        if field(answer.json(), "choices") is not None:
            through.append(path if not headers else ", ".join(f"{name}: {value}" for name, value in headers.items()))
    if through:
        remedy = "Refuse all paths but listed ones, as the application's router will see them."
        return Finding(TOPIC, "no way round by path or header", "fail", f"replies without a key: {'; '.join(through)}", remedy)
    return Finding(TOPIC, "no way round by path or header", "pass", f"none of {len(ways)} tried")


def _open_routes(subject: Subject, needs_key: bool) -> Iterator[Finding]:
    """Which routes answer a stranger, by what they do. Where nothing wants a key, generating isn't told again."""
    harmless = _harmless_method(subject)
    keys_come_first = harmless is not None and subject.ask(harmless, CHAT, keyless=True).status in REFUSED
    nothing = {method: subject.ask(method, NOWHERE, _body(subject, method), keyless=True) for method in ("GET", "POST")}
    listed: dict[Kind, list[str]] = {"generates": GENERATES, "changes": CHANGES, "tells": TELLS}
    kinds: dict[str, Kind] = {path: kind for kind, paths in listed.items() for path in paths}
    own = {path: kind for path, kind in _own_list(subject).items() if path not in {*kinds, *ALIVE, "/"}}
    opened: dict[Kind, list[str]] = {kind: [] for kind in listed}
    untold: dict[Kind, list[str]] = {kind: [] for kind in listed}
    for path, kind in {**kinds, **own}.items():
        if kind != "changes" and path not in own:
            method = "POST" if kind == "generates" else "GET"
            answer = subject.ask(method, path, _body(subject, method), keyless=True)
            if _is_open(answer, nothing[method]):
                opened[kind].append(path)
        elif harmless is None:
            untold[kind].append(path)
        else:
            answer = subject.ask(harmless, path, keyless=True)
            if answer.is_success or (answer.status == 405 and keys_come_first):
                opened[kind].append(path)
            elif answer.status == 405:
                untold[kind].append(path)
    told: dict[Kind, tuple[str, Verdict, str]] = {
        "generates": ("routes that compute want a key", "fail", "Default-deny: refuse every path that isn't listed."),
        "changes": ("routes that change the server want a key", "fail", "Refuse them, or don't start with them."),
        "tells": ("routes that only tell want a key", "note", "Give metrics and documentation to the operator alone."),
    }
    for kind, (check, verdict, remedy) in told.items():
        if kind == "generates" and not needs_key:
            continue
        if opened[kind]:
            yield Finding(TOPIC, check, verdict, f"open: {' '.join(opened[kind])}", remedy)
        elif untold[kind] and harmless is None:
            yield Finding(
                TOPIC, check, "unknown", f"no path takes {' or '.join(HARMLESS)}, and other methods could change something"
            )
        elif untold[kind]:
            why = f"a {harmless} gets a 405 before a key is asked for; the right method may want one"
            yield Finding(TOPIC, check, "unknown", f"{why}: {' '.join(untold[kind])}")
        else:
            yield Finding(TOPIC, check, "pass", "none of those tried is open")


def _harmless_method(subject: Subject) -> str | None:
    """A method to which the server has its usual answer where there's nothing: its answer elsewhere tells that something is there."""
    for method in HARMLESS:
        if subject.ask(method, NOWHERE, keyless=True).status in (404, *REFUSED):
            return method
    return None


def _body(subject: Subject, method: str) -> object:
    """A body that most routes that generate take."""
    return {**subject.request(), "prompt": "Hi", "input": "Hi", "content": "Hi"} if method == "POST" else None


def _is_open(answer: Answer, nothing: Answer) -> bool:
    """Whether a stranger got past the check of keys to a route that is there; `nothing` is the answer where there's none."""
    if answer.status in (0, 404, 405, 410, 501, *REFUSED):
        return False
    return answer.status != nothing.status or answer.body != nothing.body  # a page for every path, or one refusal of all


def _own_list(subject: Subject) -> dict[str, Kind]:
    """The routes of the server's own openapi.json, as what changes where they take more than GET."""
    paths = field(subject.ask("GET", "/openapi.json").json(), "paths")
    if not isinstance(paths, dict):
        return {}
    return {
        path: "changes" if {"post", "put", "patch", "delete"} & set(methods) else "tells"
        for path, methods in paths.items()
        if isinstance(methods, dict) and "{" not in path
    }


def _other_origins(subject: Subject, needs_key: bool) -> Finding:
    origin = "https://page.example"
    answer = subject.ask("GET", "/v1/models", headers={"Origin": origin})
    allowed = answer.headers.get("access-control-allow-origin", "")
    if allowed not in ("*", origin):
        return Finding(TOPIC, "pages of other origins are kept out", "pass", "no Access-Control-Allow-Origin for them")
    return Finding(
        TOPIC,
        "pages of other origins are kept out",
        "note" if needs_key else "fail",
        f"Access-Control-Allow-Origin: {allowed}" + ("" if needs_key else ": any page that you open can use it"),
        "Name the origins that may ask.",
    )
