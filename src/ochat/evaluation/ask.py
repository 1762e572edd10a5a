"""Ask an OpenAI-compatible server many questions at once.

Our own few lines on aiohttp: general clients spend more on each request than a small model does on its reply."""

import asyncio
import json
import sys
from collections.abc import Sequence

import aiohttp
from tqdm import tqdm

from ochat.errors import OchatError
from ochat.evaluation.journal import Journal, request_key

N_TRIES = 6
REPEAT = "Replies so far are kept; repeat the command to go on."
RETRIED = {408, 409, 429, 500, 502, 503, 504}
# What a value of another form than expected raises where it's read.
_UNEXPECTED = (ValueError, LookupError, TypeError, RecursionError)


def chat_request(model: str, question: str, condition: str, max_tokens: int) -> dict[str, object]:
    """A greedy chat request of one user turn. An empty condition is left out, so the server's default holds."""
    request: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": question}]}
    request |= {"temperature": 0, "max_tokens": max_tokens}
    return request | ({"condition": condition} if condition else {})


async def served_model(base_url: str, headers: dict[str, str], name: str) -> dict[str, str]:
    """The model of that name, or the server's first for "": its `id`, and its `root`, where the server found it.

    `root` is "" where the server doesn't tell it; vLLM does. Raises OchatError where no server answers."""
    try:
        async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{base_url}/models") as response:
            if response.status != 200:
                raise OchatError(f"{base_url}/models answered {response.status}. Check --base-url and OPENAI_API_KEY.")
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise OchatError(
            f"No OpenAI-compatible server answers at {base_url} ({error}). Start one: ochat serve --model DIR; its address is "
            "such as http://localhost:18888/v1."
        ) from error
    try:
        roots = {str(entry["id"]): str(entry.get("root") or "") for entry in json.loads(body)["data"]}
        name = name or next(iter(roots))
    except (*_UNEXPECTED, AttributeError, StopIteration) as error:
        raise OchatError(f"{base_url}/models didn't list models as OpenAI's API does. Check --base-url.") from error
    return {"id": name, "root": roots.get(name, "")}  # some servers take names that they don't list


async def ask_all(
    base_url: str, requests: Sequence[dict[str, object]], journal: Journal, n_parallel: int, headers: dict[str, str]
) -> list[str]:
    """The reply to each request, those in the journal not asked again."""
    waiting = {request_key(request): request for request in requests}
    todo = [(key, request) for key, request in waiting.items() if key not in journal.replies]
    slots = asyncio.Semaphore(n_parallel)
    mininterval = 0.5 if sys.stderr.isatty() else 15
    with tqdm(total=len(waiting), initial=len(waiting) - len(todo), unit="reply", mininterval=mininterval) as progress:
        timeout = aiohttp.ClientTimeout(total=600)
        connector = aiohttp.TCPConnector(limit=n_parallel)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:

            async def ask(key: str, request: dict[str, object]) -> None:
                async with slots:
                    journal.add(key, await _reply(session, f"{base_url}/chat/completions", request))
                    progress.update()

            async with asyncio.TaskGroup() as group:
                for key, request in todo:
                    group.create_task(ask(key, request))
    return [journal.replies[request_key(request)] for request in requests]


async def _reply(session: aiohttp.ClientSession, url: str, request: dict[str, object]) -> str:
    problem, remedy = "", "Check the options."
    for attempt in range(N_TRIES):
        try:
            async with session.post(url, json=request) as response:
                status, body = response.status, await response.read()
            if status == 200:
                return _content(body)
            problem = f"{status} {_start(body)}"
            if status not in RETRIED:
                break
            remedy = REPEAT
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = str(error) or type(error).__name__
            remedy = REPEAT
        except _UNEXPECTED:
            problem = f"200, but not as OpenAI's API does: {_start(body)}"
            break
        if attempt < N_TRIES - 1:
            await asyncio.sleep(0.5 * 2**attempt)  # a loaded server needs time, not more requests
    raise OchatError(f"{url} didn't answer a question: {problem}. {remedy}")


def _content(body: bytes) -> str:
    """The text of a chat completion, "" for null. Raises one of _UNEXPECTED where the body is none."""
    content = json.loads(body)["choices"][0]["message"]["content"]
    if not isinstance(content, str | None):
        raise TypeError("content is no text")
    return content or ""


def _start(body: bytes) -> str:
    """The start of a body, in one line."""
    return " ".join(body[:300].decode("utf-8", errors="replace").split())
