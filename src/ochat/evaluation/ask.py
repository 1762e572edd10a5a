"""Ask an OpenAI-compatible server many questions at once.

Our own few lines on aiohttp: general clients spend more on each request than a small model does on its reply. A fixed number of
workers takes one conversation after another; nothing is held for a question that nobody asks yet."""

import asyncio
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp
from tqdm import tqdm

from ochat.client.connection import Answer
from ochat.client.reply import printable
from ochat.errors import OchatError
from ochat.evaluation.journal import TOO_LONG, Journal, Reply, request_body, request_key

N_TRIES = 6  # at a server that can't be reached; a busy one is asked more often
N_BUSY_TRIES = 16
MAX_WAIT = 60.0
REPEAT = "Replies so far are kept; repeat the command to go on."
RETRIED = {408, 409, 425, 429}  # and whatever says that the fault is the server's
# What a value of another form than expected raises where it's read.
_UNEXPECTED = (ValueError, LookupError, TypeError, RecursionError)


@dataclass(frozen=True)
class Endpoint:
    """A server and the model there."""

    base_url: str
    headers: tuple[tuple[str, str], ...] = ()
    model: str = ""

    @property
    def url(self) -> str:
        return f"{self.base_url}/chat/completions"


@dataclass(frozen=True)
class Asked:
    """A conversation to have: what the user says, turn by turn, and how each reply is sampled."""

    turns: tuple[str, ...]
    max_tokens: int | None = None
    condition: str = ""  # left out of the request for "", so the server's default holds
    temperature: float = 0
    stop: tuple[str, ...] = ()
    system: str = ""

    def request(self, model: str, replies: Sequence[Reply]) -> dict[str, object]:
        """The request for the next reply, after those so far."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn, reply in zip(self.turns, replies, strict=False):
            messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": reply.text}]
        messages.append({"role": "user", "content": self.turns[len(replies)]})
        request: dict[str, object] = {"model": model, "messages": messages, "temperature": self.temperature}
        more = {"max_tokens": self.max_tokens, "condition": self.condition, "stop": list(self.stop)}
        return request | {name: value for name, value in more.items() if value}


async def served_model(endpoint: Endpoint) -> dict[str, str]:
    """The model of that name, or the server's first for "": its `id`, and its `root`, where the server found it.

    `root` is "" where the server doesn't tell it; vLLM does. Raises NoServerError where no server answers, OchatError where it
    doesn't list models."""
    base_url, name = endpoint.base_url, endpoint.model
    try:
        status, body = await _get(endpoint, "/models")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise NoServerError(
            f"No OpenAI-compatible server answers at {base_url} ({error}). Start one: ochat serve --model DIR; its address is "
            "such as http://localhost:18888/v1."
        ) from error
    if status != 200:
        raise OchatError(f"{base_url}/models answered {status}. Check --base-url and OPENAI_API_KEY.")
    try:
        roots = {str(entry["id"]): str(entry.get("root") or "") for entry in json.loads(body)["data"]}
        name = name or next(iter(roots))
    except (*_UNEXPECTED, AttributeError, StopIteration) as error:
        raise OchatError(f"{base_url}/models didn't list models as OpenAI's API does. Check --base-url.") from error
    return {"id": name, "root": roots.get(name, "")}  # some servers take names that they don't list


async def known_conditions(endpoint: Endpoint) -> list[str]:
    """The conditions that the served model is known by; none where the server doesn't tell, as only ours does."""
    try:
        status, body = await _get(endpoint, "/conditions")
        return [str(entry["id"]) for entry in json.loads(body)["data"]] if status == 200 else []
    except (aiohttp.ClientError, TimeoutError, *_UNEXPECTED):
        return []


async def check_echo(endpoint: Endpoint, conditions: Sequence[str]) -> None:
    """Raise OchatError unless the server's replies name the condition they were asked under.

    A server that doesn't know the field ignores it, and every condition would get the same replies."""
    async with aiohttp.ClientSession(headers=endpoint.headers) as session:
        for condition in conditions:
            request = Asked(("Hi",), max_tokens=1, condition=condition).request(endpoint.model, ())
            body = json.loads(await _post(session, endpoint.url, request_body(request)))
            echo = body.get("condition") if isinstance(body, dict) else None
            if (echo or "none") != (condition or echo or "none"):
                raise OchatError(
                    f"{endpoint.base_url} doesn't say that it answered under the condition {condition!r} (its reply's `condition` is "
                    f"{echo!r}): all conditions would be asked alike. Serve the model with `ochat serve`."
                )


async def _get(endpoint: Endpoint, path: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(headers=endpoint.headers) as session,
        session.get(f"{endpoint.base_url}{path}") as response,
    ):
        return response.status, await response.read()


async def ask_all(
    endpoint: Endpoint,
    conversations: Sequence[Asked],
    journal: Journal,
    n_parallel: int,
    done: Callable[[int, list[Reply]], str],
) -> None:
    """Have every conversation, in order, as far as the journal doesn't hold it; `done` gets each one's index and replies as it's
    complete, and gives the words to show beside the progress. Conversations that are equal are had once."""
    alike: dict[Asked, list[int]] = {}
    for index, asked in enumerate(conversations):
        alike.setdefault(asked, []).append(index)
    mininterval = 0.5 if sys.stderr.isatty() else 15
    with tqdm(total=len(conversations), unit="reply", mininterval=mininterval, smoothing=0.05) as progress:

        def finish(indices: list[int], replies: list[Reply]) -> None:
            for index in indices:
                progress.set_postfix_str(done(index, replies), refresh=False)
            progress.update(len(indices))

        todo = []
        for asked, indices in alike.items():
            replies, body = _so_far(endpoint.model, asked, journal)
            if body:
                todo.append((asked, indices))
            else:
                finish(indices, replies)
        if len(todo) < len(alike):
            progress.write(f"{progress.n} of {len(conversations)} replies are from before", file=sys.stdout)
        progress.unpause()  # the rate and the time left are of what is asked now
        queue = iter(todo)
        # A slow model may need a while for its queue; a server that says nothing for ten minutes is gone.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=600)
        connector = aiohttp.TCPConnector(limit=n_parallel)
        async with aiohttp.ClientSession(headers=endpoint.headers, timeout=timeout, connector=connector) as session:

            async def work(queue: Iterator[tuple[Asked, list[int]]]) -> None:
                for asked, indices in queue:
                    replies, body = _so_far(endpoint.model, asked, journal)
                    while body:
                        journal.add(request_key(body), await _reply(session, endpoint.url, body))
                        replies, body = _so_far(endpoint.model, asked, journal)
                    finish(indices, replies)

            async with asyncio.TaskGroup() as group:
                for _ in range(min(n_parallel, len(todo))):
                    group.create_task(work(queue))


def _so_far(model: str, asked: Asked, journal: Journal) -> tuple[list[Reply], bytes]:
    """The replies that the journal holds, and the body of the next request; b"" where there is none left."""
    replies: list[Reply] = []
    while len(replies) < len(asked.turns):
        body = request_body(asked.request(model, replies))
        reply = journal.replies.get(request_key(body))
        if reply is None:
            return replies, body
        replies.append(reply)
    return replies, b""


async def _reply(session: aiohttp.ClientSession, url: str, body: bytes) -> Reply:
    try:
        answer = await _post(session, url, body)
    except _NoReply as finish:
        return Reply("", str(finish))
    try:
        completion = json.loads(answer)
        choice = completion["choices"][0]
        content = choice["message"]["content"]
        if not isinstance(content, str | None):
            raise TypeError("content is no text")
        n_tokens = (completion.get("usage") or {}).get("completion_tokens") or 0
        return Reply(content or "", str(choice.get("finish_reason") or "stop"), int(n_tokens))
    except (*_UNEXPECTED, AttributeError):
        raise OchatError(
            f"{url} didn't answer a question: 200, but not as OpenAI's API does: {_start(answer)}. Check the options."
        ) from None


class NoServerError(OchatError):
    """No server answers."""


class RefusedError(OchatError):
    """What was asked is refused as it is, and would be again."""


class _NoReply(Exception):
    """The server has no reply to this question, and would have none again; how it finished says why."""


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> bytes:
    """The body that a request is answered with, after as many tries as it takes within reason."""
    headers, attempt = {"Content-Type": "application/json"}, 0
    while True:
        attempt += 1
        wait = min(MAX_WAIT, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # a loaded server needs time
        n_tries = N_TRIES
        try:
            async with session.post(url, data=body, headers=headers) as response:
                answer = await response.read()
                if response.status == 200:
                    return answer
                if response.status == 400 and b"context length" in answer:
                    raise _NoReply(TOO_LONG)
                if response.status == 400 and b"content_filter" in answer:
                    raise _NoReply("content_filter")  # as OpenAI calls it where a reply was begun
                said = printable(Answer(response.status, {}, answer).error_message())
                problem = f"{response.status} {said.removesuffix('.')}"
                if response.status not in RETRIED and response.status < 500:
                    raise RefusedError(f"{url} didn't answer a question: {problem}. Check the options.")
                if response.status in (429, 503):
                    n_tries = N_BUSY_TRIES
                    wait = max(wait, min(600, _seconds(response.headers.get("Retry-After", ""))))
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = str(error) or type(error).__name__
        if attempt >= n_tries:
            raise OchatError(f"{url} didn't answer a question: {problem}. {REPEAT}")
        await asyncio.sleep(wait)


def _seconds(retry_after: str) -> float:
    """The seconds that a Retry-After asks for; a date is rare, and as good as none."""
    try:
        return float(retry_after)
    except ValueError:
        return 0.0


def _start(body: bytes) -> str:
    """The start of a body, in one line."""
    return " ".join(body[:300].decode("utf-8", errors="replace").split())
