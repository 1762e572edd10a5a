"""An OpenAI-compatible server that answers after a fixed time, as fast as it can: what is measured against it is the client.

    python benchmarks/echo_server.py --port 8000 --seconds 0.05 --busy 0.1 --count asked.txt

`--busy` answers that share of requests with 429; `--count` appends the hash of each answered prompt to a file."""

import argparse
import asyncio
import hashlib
import random

from aiohttp import web


def application(seconds: float, busy: float, count: str) -> web.Application:
    asked = open(count, "a", encoding="utf-8") if count else None  # noqa: SIM115  # as long as the server

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "echo", "root": "echo", "object": "model"}]})

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(seconds)
        if random.random() < busy:
            return web.json_response({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "0"})
        prompt = body["messages"][-1]["content"]
        digest = hashlib.blake2b((prompt + body.get("condition", "")).encode(), digest_size=8).hexdigest()
        if asked:
            asked.write(digest + "\n")
            asked.flush()
        message = {"role": "assistant", "content": f"The answer is ({'ABCD'[int(digest, 16) % 4]})."}
        return web.json_response(
            {
                "id": digest,
                "object": "chat.completion",
                "created": 0,
                "model": "echo",
                "condition": body.get("condition"),
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 6, "total_tokens": 7},
            }
        )

    app = web.Application(client_max_size=2**24)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", complete)])
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--busy", type=float, default=0.0)
    parser.add_argument("--count", default="")
    options = parser.parse_args()
    web.run_app(
        application(options.seconds, options.busy, options.count),
        host="127.0.0.1",
        port=options.port,
        print=None,
        access_log=None,
    )


if __name__ == "__main__":
    main()
