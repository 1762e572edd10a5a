import json
from typing import Any

import pytest
from live_server import Server

from ochat.tokenizer import Tokenizer

USER = {"role": "user", "content": "Hi"}


@pytest.fixture
def there(openchat: Tokenizer) -> dict[str, Any]:
    """A request whose reply is the token `▁there`, three times."""
    (id,) = openchat.encode_text(["there"])[0]
    return {"model": "tiny", "max_tokens": 3, "logit_bias": {str(id): 100}}


@pytest.mark.parametrize("condition", ["", "none", "Code"])
def test_a_reply_has_no_leading_blank(condition: str, server: Server, there: dict[str, Any]) -> None:
    response = server.post("/v1/chat/completions", **there, messages=[USER], condition=condition, n=2)
    assert [choice["message"]["content"] for choice in response.json()["choices"]] == ["there there there"] * 2


def test_a_streamed_reply_has_none_either(server: Server, there: dict[str, Any]) -> None:
    with server.stream("/v1/chat/completions", **there, messages=[USER]) as stream:
        chunks = [json.loads(line[len("data: ") :]) for line in stream.iter_lines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "there there there"


def test_a_continued_message_and_a_raw_completion_keep_their_blank(server: Server, there: dict[str, Any]) -> None:
    continued = server.post("/v1/chat/completions", **there, messages=[USER, {"role": "assistant", "content": "Over"}])
    assert continued.json()["choices"][0]["message"]["content"] == " there there there"
    rendered = server.post("/tokenize", model="tiny", messages=[USER]).json()["tokens"]
    server.post("/v1/chat/completions", **there, messages=[USER])
    for prompt in ("Over", rendered):  # also where a chat has the same prompt
        raw = server.post("/v1/completions", **there, prompt=prompt, n=2)
        assert [choice["text"] for choice in raw.json()["choices"]] == [" there there there"] * 2
