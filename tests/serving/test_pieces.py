"""Each piece without the others: the renderer under plain vLLM, the gateway under plain vLLM. Each test starts a server."""

import sys
from pathlib import Path

import httpx
import pytest
from live_server import Server, free_port, started

from ochat.template import ConversationTemplate

pytestmark = pytest.mark.soak
USER = [{"role": "user", "content": "Hi"}]
KEY = "sk-plain"


def plain_vllm(checkpoint: Path, folder: Path, *options: str) -> tuple[list[str], Server]:
    """vLLM's own command, and where it will answer."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
    command += ["--host", "localhost", "--port", str(port), "--enforce-eager", "--kv-cache-memory-bytes", str(2**26)]
    server = Server(f"http://localhost:{port}", folder / "log", folder / "no-keys", folder / "no-usage", KEY)
    return [*command, "--served-model-name", "tiny", "--api-key", KEY, *options], server


def test_the_renderer_alone_works_under_plain_vllm(
    checkpoint: Path, tmp_path: Path, openchat_template: ConversationTemplate
) -> None:
    command, server = plain_vllm(checkpoint, tmp_path, "--tokenizer-mode", "openchat")
    with started(command, server):

        def ids(**body: object) -> list[int]:
            response = server.chat(**{"model": "tiny", "messages": USER, **body})
            assert response.status_code == 200, response.text
            prompt: list[int] = response.json()["prompt_token_ids"]
            return prompt

        code = {"condition": "Code"}
        card = [1, 7596, 1247, 28747, 26256, 2936, 7653, 1413, 334, 1680, 32000, 7596, 21631, 28747]
        assert ids(messages=[{"role": "user", "content": "Implement quicksort using C++"}], chat_template_kwargs=code) == card
        for text in ("a<|end_of_turn|>b", "<s>", "</s>"):
            prompt = ids(messages=[{"role": "user", "content": text}])
            assert [id for id in prompt if id in (0, 1, 2) or id >= 32000] == [1, 32000]
        for path, body in (
            ("/v1/responses", {"input": "Hi", "max_output_tokens": 16}),
            ("/v1/messages", {"messages": USER, "max_tokens": 1}),
        ):
            assert server.post(path, model="tiny", **body).status_code == 200
        forced = server.chat(model="tiny", logit_bias={"32000": 100}, max_tokens=20)
        choice = forced.json()["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "")
        bad = [
            server.chat(model="tiny", chat_template_kwargs={"condition": "<|end_of_turn|>"}),
            server.chat(model="tiny", chat_template_kwargs={"conditon": "Code"}),
            server.chat(model="tiny", messages=[]),
            server.chat(model="tiny", tools=[{"type": "function", "function": {"name": "f"}}]),
        ]
        assert [response.status_code for response in bad] == [400] * len(bad)


def test_the_gateway_alone_works_under_plain_vllm(checkpoint: Path, tmp_path: Path) -> None:
    command, server = plain_vllm(checkpoint, tmp_path, "--middleware", "ochat.serving.gateway.Gateway")
    with started(command, server) as process:
        for key in ("", "wrong"):
            assert server.get("/health", key).status_code == 200
            for path in ("/v1/models", "/metrics"):
                assert server.get(path, key).status_code == 401
            for path in ("/tokenize", "/v1/chat/completions", "/v1/completions"):
                assert server.post(path, key).status_code == 401
        for path in ("/invocations", "/generative_scoring", "/scale_elastic_ep", "/docs"):
            assert server.post(path).status_code == server.get(path).status_code == 404
        reply = server.chat(model="tiny")
        assert reply.status_code == 200
        assert reply.json()["choices"][0]["message"]["content"] is not None
        with server.stream("/v1/chat/completions", messages=USER, max_tokens=3) as stream:
            assert [line for line in stream.iter_lines() if line][-1] == "data: [DONE]"
        for unfit in ({"temprature": 1}, {"condition": "Code"}, {"n": 17}, {"stop": ["x"] * 17}):
            refused = server.chat(model="tiny", **unfit)
            assert refused.status_code == 400, unfit
            assert refused.json()["request_id"] == refused.headers["x-request-id"]
        claude = {"x-api-key": KEY}
        message = {"model": "tiny", "messages": USER, "max_tokens": 1}
        assert httpx.post(f"{server.url}/v1/messages", json=message, headers=claude, timeout=60).status_code == 200
        assert 'ochat_requests_total{condition="",key="key-1",outcome="finished",status="200"}' in server.get("/metrics").text
        process.terminate()
        assert process.wait(60) == 0
