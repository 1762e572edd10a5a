"""What stands between clients and vLLM's server: an ASGI middleware that lets through what routes.py lists, asks for a key, checks
bodies, and puts the condition into requests and replies.

It runs before all of vLLM's own, under plain vLLM too (`--middleware ochat.serving.gateway.Gateway`)."""

import asyncio
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import Headers, State
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ochat.errors import OchatError
from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.registry import ModelType, detect_model_type, trained_conditions
from ochat.serving import metering, metrics
from ochat.serving.conditions import Conditions, server_conditions, take_condition
from ochat.serving.connection import bound_connections
from ochat.serving.constraint_trial import Trials
from ochat.serving.constraints import held_to
from ochat.serving.fatal import NOT_STARTED
from ochat.serving.gateway_options import KEYS_ARGUMENT, LOOPBACK, SECRET_ARGUMENT, options_of
from ochat.serving.held_replies import try_first
from ochat.serving.keys import Key, KeyStore, named_keys
from ochat.serving.lifecycle import LAST_WORDS_SECONDS, Lifecycle
from ochat.serving.limits import Limits, too_many
from ochat.serving.metering import Meter
from ochat.serving.plugin import MODEL_TYPE_KEY, TOKENIZER_MODE
from ochat.serving.refusal import INTERNAL, Refusal, bad_request, send_bytes
from ochat.serving.replies import Reply, cleaned, gave_up
from ochat.serving.request_body import ClientLeft, parse_body, read_body, write_body
from ochat.serving.request_checks import (
    check_bounds,
    check_fields,
    check_inner_fields,
    check_template_options,
    count_choices,
    known_fields,
)
from ochat.serving.routes import Route, routes_at
from ochat.serving.told_errors import hide_told_errors
from ochat.serving.usage_log import RequestLog, UsageLog
from ochat.serving.work import Work, new_id

# Headers that vLLM gets. It takes others as orders: a priority, an engine's rank, a session, an adapter.
PASSED_ON = (b"accept", b"content-length", b"content-type", b"host", b"origin", b"traceparent", b"tracestate", b"user-agent")


class Gateway:
    """ASGI middleware. It begins with the server's lifespan, when vLLM's arguments and engine are there."""

    def __init__(self, app: ASGIApp, fields_of: Callable[[str], Mapping[str, object]] = known_fields) -> None:
        self.app = app
        self.fields_of = fields_of  # of a route's path, with their defaults
        self._is_ready = False

    def _prepare(self, state: State) -> None:
        args: Namespace = state.args
        self.options = options = options_of(args)
        self.kind = served_type(args)
        trained = trained_conditions(model_folder(args.model, TOKENIZER_FILES)) if self.kind else ()
        self.conditions = server_conditions(self.kind, options, trained)
        self.n_processes = getattr(args, "api_server_count", None) or 1
        # Plain vLLM has its keys in either place; the launcher leaves none in the environment.
        of_vllm = getattr(args, "api_key", None) or filter(None, [os.environ.get("VLLM_API_KEY")])
        given = getattr(args, KEYS_ARGUMENT, None) or named_keys(of_vllm)
        self.keys = KeyStore(given, options.api_key_file, allows_limits=self.n_processes == 1)
        self.hosts = trusted_hosts(args) if self.keys.is_empty and not options.i_know_this_is_open else None
        # All API processes must salt alike; plain vLLM's arguments have no secret.
        self.secret = bytes.fromhex(getattr(args, SECRET_ARGUMENT, "") or secrets.token_hex(32))
        self.limits = Limits()
        self.lifecycle = Lifecycle()
        self.trials: Trials | None = None
        self.cors = cors_of(args)
        self.in_flight = 0  # replies
        self.max_in_flight = options.max_in_flight
        self.usage_log = UsageLog(options.usage_log) if options.usage_log else None
        self.request_log = (
            RequestLog(options.request_log, options.log_max_mb, options.log_max_count) if options.request_log else None
        )
        self._is_ready = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # vLLM has one, for speech
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if not self._is_ready:
            self._prepare(scope["app"].state)
        request_id = new_id()
        if self.cors and "origin" in Headers(scope=scope):
            # vLLM puts them on its own replies alone, and a browser keeps an error without them from its page.
            send = partial(self.cors.send, send=send, request_headers=Headers(scope=scope))
        try:
            await self._answer(scope, receive, Reply(send, request_id), send)
        except Refusal as refusal:
            await refusal.send(send, request_id)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            watch = self._begin(scope["app"].state)
        except Exception as error:
            # uvicorn takes an error here for an application without a lifespan, and would serve without our bounds, logs and salts.
            if not isinstance(error, OchatError):
                logging.getLogger("vllm.ochat").exception("The gateway can't begin")
            NOT_STARTED.set()
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"ochat: {error}"})
            return
        try:
            await self.app(scope, receive, send)
        finally:
            watch.cancel()
            if self.trials:
                await self.trials.end()
            if self.request_log:
                self.request_log.close()

    def _begin(self, state: State) -> "asyncio.Task[None]":
        """All that has to be in place before the first request; returns the task that looks after it."""
        self._prepare(state)
        self.trials = try_first(state.engine_client)
        metering.install(state.engine_client)
        hide_told_errors()
        bound_connections(state.server.config)
        config = state.engine_client.vllm_config
        engines = config.parallel_config.data_parallel_size  # each takes so many sequences
        limit = self.options.max_in_flight or config.scheduler_config.max_num_seqs * engines
        self.max_in_flight = max(1, limit // self.n_processes)
        return self.lifecycle.watch(state, self._tick, ends_in_time=self.n_processes > 1)

    def _tick(self) -> None:
        """What is done each second."""
        self.keys.reload()
        for work in list(self.lifecycle.works):
            if work.key and not self.keys.is_valid(work.key):
                work.cut(Refusal(HTTPStatus.UNAUTHORIZED, "The key has been revoked."))
        if self.usage_log:
            self.usage_log.reopen_if_moved()

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply, send: Send) -> None:
        headers = Headers(scope=scope)
        if self.hosts is not None and host_of(headers) not in self.hosts:
            raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, "Without keys this server is for its own machine: ask for localhost.")
        route = find_route(scope)
        if scope["method"] == "OPTIONS":  # a browser asks before it sends its key
            await self._preflight(scope, receive, send)
            return
        key = None if route.is_open or self.keys.is_empty else self._key(headers)
        if route.path == "/metrics" and key and not key.metrics:
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "This key may not read the metrics, which tell of all keys. Make one that may: ochat keys create NAME --metrics",
            )
        # vLLM names its reply after x-request-id, so a client's own could be another client's. Plain vLLM asks for the key again, and
        # doesn't read it where Anthropic's clients give it.
        ours = {b"x-request-id": reply.request_id.encode()}
        if key:
            ours[b"authorization"] = f"Bearer {given_key(headers)}".encode("latin-1")
        scope = {**scope, "headers": [*(pair for pair in scope["headers"] if pair[0] in PASSED_ON), *ours.items()]}
        if route.method == "POST":
            await self._serve(scope, receive, Work(route, key, Meter(self._salt(key)), reply))
        elif route.path in ("/health", "/ready", "/v1/conditions"):
            await self._tell(route.path, key, reply.request_id, send)
        else:
            await self.app(scope, receive, reply)

    async def _preflight(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let vLLM answer by --allowed-origins. Raises Refusal where it refuses, which it does as plain text."""
        refused: HTTPStatus | None = None
        said = b""

        async def unless_refused(message: Message) -> None:
            nonlocal refused, said
            if message.get("status", 0) >= HTTPStatus.BAD_REQUEST:
                refused = HTTPStatus(message["status"])
            if refused is None:
                await send(message)
            else:
                said += message.get("body", b"")

        await self.app(scope, receive, unless_refused)
        if refused == HTTPStatus.METHOD_NOT_ALLOWED:
            raise not_allowed(scope)
        if refused:
            what = said.decode("utf-8", "replace") if said.startswith(b"Disallowed CORS") else "The question is refused"
            raise Refusal(refused, f"{what}. --allowed-origins and its like say whose pages may ask this server, and how.")

    async def _tell(self, path: str, key: Key | None, request_id: str, send: Send) -> None:
        """Answer what the gateway itself knows."""
        if path == "/v1/conditions":
            told = self._conditions(key).listing(self.kind.name if self.kind else "")
        else:
            problem = self.lifecycle.refusal()
            if problem and (path == "/ready" or not self.lifecycle.is_draining):
                raise problem
            told = {"status": "ready" if path == "/ready" else "alive"}
        await send_bytes(send, request_id, HTTPStatus.OK, json.dumps(told).encode())

    async def _serve(self, scope: Scope, receive: Receive, work: Work) -> None:
        """Answer a request, if it's admitted, within its time, and write down how it ended."""
        try:
            self._admit(work)
        except Refusal as refusal:
            await work.reply.end(refusal)
            self._record(work)
            return
        late = Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"The reply wasn't complete after {self.options.request_timeout:g} s.")
        deadline = asyncio.get_running_loop().call_later(self.options.request_timeout, work.cut, late)
        self.lifecycle.works.add(work)
        # A client may ask again at once, before vLLM has returned from this request: its place is free by then.
        work.reply.when_sent = partial(self._release, work)
        metrics.IN_FLIGHT.inc()
        token = metering.CURRENT.set(work.meter)
        try:
            body = self._checked(work, await read_body(Headers(scope=scope), receive, self.options.max_body_bytes))
            await self.app(scope, work.receiving(body, receive), work.reply)
            if work.refusal:
                with suppress(TimeoutError):  # a client that takes nothing isn't waited for
                    await asyncio.wait_for(work.reply.end(work.refusal), LAST_WORDS_SECONDS)
        except Refusal as refusal:
            await work.reply.end(refusal)
        except ClientLeft:  # nobody is there to be told
            pass
        except Exception as error:
            # Of a stream of responses vLLM 0.32.0 can't tell in an event of its own that the engine gave up.
            blame = work.reply.blames(_said(error).encode())
            if not blame:  # vLLM's own answer to it would tell of its inside
                logging.getLogger("vllm.ochat").exception("Request %s failed", work.id)
            await work.reply.end(blame or Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL))
        finally:
            metering.CURRENT.reset(token)
            deadline.cancel()
            self.lifecycle.works.discard(work)
            self._release(work)
            metrics.IN_FLIGHT.dec()
            self._record(work)

    def _release(self, work: Work) -> None:
        """Give an admitted request's place to others, once."""
        if not work.is_counted:
            return
        work.is_counted = False
        self.in_flight -= work.n_choices
        if work.key:
            self.limits.finish(work.key, time.monotonic(), work.meter.tokens)

    def _admit(self, work: Work) -> None:
        """Count a request that begins. Raises Refusal, and counts nothing."""
        if problem := self.lifecycle.refusal():
            raise problem
        self._check_room(1)
        if work.key:
            self.limits.admit(work.key, time.monotonic(), self._running_beside(work))
        self.in_flight += 1
        work.is_counted = True

    def _running_beside(self, work: Work) -> Iterator[int]:
        """The tokens of each other request of the same key."""
        name = work.key.name if work.key else None
        return (w.tokens for w in self.lifecycle.works if w is not work and w.key and w.key.name == name and w.is_counted)

    def _check_room(self, choices: int) -> None:
        if self.max_in_flight is not None and self.in_flight + choices > self.max_in_flight:
            raise too_many(f"The server makes {self.max_in_flight} replies at once and is busy.", 1)

    def _checked(self, work: Work, body: bytes) -> bytes:
        """The body as vLLM gets it. Takes places for further replies, and notes on `work` what logs and reply tell. Raises Refusal."""
        if work.key:  # others of its may have come while the body did
            self.limits.check_tokens(work.key, time.monotonic(), self._running_beside(work))
            if work.key.conditions and work.route.path == "/v1/completions":
                raise Refusal(
                    HTTPStatus.FORBIDDEN,
                    "This key may ask under some conditions only, and a raw prompt may hold any. Ask /v1/chat/completions.",
                )
        work.body_bytes = len(body)
        request = parse_body(body)
        work.condition = take_condition(request, work.route, self._conditions(work.key))
        check_fields(work.route.path, request, self.fields_of(work.route.path))
        check_inner_fields(request)
        if self.kind:  # under another tokenizer mode of vLLM's there's a template of Jinja's
            check_template_options(work.route, request)
        check_bounds(work.route, request, self.options)
        more = count_choices(request) - 1
        if work.route.generates and more:
            if self.max_in_flight is not None and more >= self.max_in_flight:
                raise bad_request(f"This server makes {self.max_in_flight} replies at once. Ask for fewer.", "n")
            self._check_room(more)
            work.n_choices += more
            self.in_flight += more
        sent = write_body(request)
        work.reply.blames = partial(self._blame, work.meter, held_to(request))
        work.user = end_user(request)
        if self.request_log:
            work.request = request
        work.reply.tell_condition(work.condition)
        return sent

    def _blame(self, meter: Meter, constraint: str | None, error: bytes) -> Refusal | None:
        """What to tell of an error of vLLM's, if it's the request's fault: that the engine refused it, or that it gave up on a reply
        which this field holds to something, which vLLM calls an error of its own (0.32.0)."""
        if meter.refusal:
            status, message = meter.refusal
            headers = {"retry-after": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
            return Refusal(HTTPStatus(status), cleaned(message), headers=headers)
        if not (constraint and gave_up(error)) or self.lifecycle.refusal():
            return None
        return bad_request(
            f"The engine can't hold a reply to this `{constraint}`. Send a simpler schema, regex or grammar.", constraint
        )

    def _record(self, work: Work) -> None:
        """Count and log a request that has ended."""
        row = work.row()
        if self.usage_log:
            self.usage_log.write(row)
        if self.request_log:
            self.request_log.write({**row, "request": work.request, "replies": work.meter.texts})
        metrics.record(row, is_known=work.condition in self._conditions(work.key).known)

    def _key(self, headers: Headers) -> Key:
        key = self.keys.find(given_key(headers))
        if key is None:
            metrics.UNAUTHORIZED.inc()
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "Give one of the server's keys: `Authorization: Bearer KEY`.",
                headers={"www-authenticate": "Bearer"},
            )
        return key

    def _conditions(self, key: Key | None) -> Conditions:
        return self.conditions.narrowed(key.conditions, key.default_condition) if key else self.conditions

    def _salt(self, key: Key | None) -> bytes | None:
        """The key's secret for the prefix cache."""
        if key is None or self.options.share_prefix_cache:
            return None
        return hmac.digest(self.secret, key.sha256.encode(), hashlib.sha256)


def _said(error: BaseException) -> str:
    """An error's words, with those of the errors that it came of; of one of pydantic's, what it was about."""
    found, waiting = {}, [error]
    while waiting:
        one = waiting.pop()
        if id(one) not in found:
            found[id(one)] = str(one.errors()[0]["input"] if isinstance(one, ValidationError) else one)
            waiting += [*getattr(one, "exceptions", ()), *filter(None, (one.__cause__, one.__context__))]
    return "\n".join(found.values())


def cors_of(args: Namespace) -> CORSMiddleware | None:
    """What puts the headers on replies by which browsers show them to pages of other origins, where some are allowed."""
    if not getattr(args, "allowed_origins", None):
        return None

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        """Only the headers are wanted."""

    return CORSMiddleware(
        nothing, args.allowed_origins, allow_credentials=args.allow_credentials, expose_headers=("x-request-id", "retry-after")
    )


def served_type(args: Namespace) -> ModelType | None:
    """The model type that the renderer serves; None under another tokenizer mode of vLLM's."""
    if (args.tokenizer_mode or "").lower() != TOKENIZER_MODE:
        return None
    return detect_model_type(model_folder(args.model, TOKENIZER_FILES), (args.additional_config or {}).get(MODEL_TYPE_KEY, ""))


def find_route(scope: Scope) -> Route:
    """The route of a request, by its exact path. The Host header, which tells vLLM's URLs, isn't looked at. Raises Refusal."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    routes = routes_at(path)
    route = routes.get(scope["method"]) or (next(iter(routes.values())) if routes and scope["method"] == "OPTIONS" else None)
    if route is not None:
        return route
    if routes:
        raise not_allowed(scope)
    raise Refusal(HTTPStatus.NOT_FOUND, "There is nothing at this path. Chat is at /v1/chat/completions.")


def not_allowed(scope: Scope) -> Refusal:
    """A refusal of a method that the path's routes don't have."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    methods = ", ".join(routes_at(path))
    return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {methods}.", headers={"allow": methods})


def trusted_hosts(args: Namespace) -> set[str] | None:
    """The names that this machine has for itself, where a server listens for it alone; None where others may call it.

    A page that a browser shows can have its own name point here, and would read replies as its own (DNS rebinding)."""
    host = getattr(args, "host", None)
    return {*LOOPBACK, host} if host in LOOPBACK else None


def host_of(headers: Headers) -> str:
    """The Host header without its port."""
    host = headers.get("host", "")
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def end_user(request: Mapping[str, Any]) -> str | None:
    """Whom a client says that it asks for: OpenAI's `user`, Anthropic's `metadata.user_id`."""
    metadata = request.get("metadata")
    user = request.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else None)
    return user[:256] if isinstance(user, str) else None


def given_key(headers: Headers) -> str:
    """The key of a request, as OpenAI's clients give it or as Anthropic's do; "" for none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given if scheme.lower() == "bearer" else headers.get("x-api-key", "")
