import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_server import Server
from pydantic import BaseModel, ValidationError

from ochat.serving.told_errors import is_news


class Chunk(BaseModel):
    choices: list[int]


def record_of(error: Exception | None) -> logging.LogRecord:
    trace = (type(error), error, None) if error else None
    return logging.LogRecord("x", logging.ERROR, "x", 1, "Error in create_messages", None, trace)


def test_a_clients_mistake_is_hidden_and_a_servers_keeps_its_trace() -> None:
    for status, said in ((400, False), (404, False), (500, True), (503, True)):
        record = record_of(RuntimeError("why"))
        assert is_news(lambda error, status=status: status, record) == said  # type: ignore[misc]
        assert record.exc_info
    assert is_news(lambda error: 400, record_of(None))


def of_stream(**error: object) -> ValidationError:
    """What pydantic makes of vLLM's own error in a stream."""
    with pytest.raises(ValidationError) as found:
        Chunk.model_validate({"error": error})
    return found.value


def test_an_engine_that_gave_up_keeps_its_line_and_no_trace() -> None:
    for error in (RuntimeError("Internal server error"), of_stream(message="Internal server error", code=500)):
        record = record_of(error)
        assert is_news(lambda error: 500, record)
        assert record.exc_info is None
    with pytest.raises(ValidationError) as other:
        Chunk.model_validate({"choices": "a"})
    for error in (other.value, of_stream(message="CUDA error", code=500)):
        record = record_of(error)
        assert is_news(lambda error: 500, record)
        assert record.exc_info


def test_a_clients_mistake_in_a_stream_is_hidden() -> None:
    assert not is_news(lambda error: 500, record_of(of_stream(message="Mend it", code=400)))
    as_of_later = RuntimeError("Mend it")  # vLLM 0.33's
    as_of_later.error_info = SimpleNamespace(message="Mend it", code=400)  # type: ignore[attr-defined]
    assert not is_news(lambda error: 500, record_of(as_of_later))
    as_of_later.error_info.code = 500  # type: ignore[attr-defined]
    assert is_news(lambda error: 500, record_of(as_of_later))


USER = [{"role": "user", "content": "Hi"}]
GIVEN_UP = {"format": {"type": "json_schema", "schema": {"$ref": "#"}}}  # the engine finds out


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/messages", {"max_tokens": 1, "stop_sequences": [""]}, 400),
        ("/v1/messages", {"max_tokens": 1, "temperature": 5}, 400),
        ("/v1/messages", {"max_tokens": 1, "messages": [{"role": "system", "content": "x"}]}, 400),
        ("/v1/messages", {"max_tokens": 1, "chat_template_kwargs": {"zzz": 1}}, 400),
        (
            "/v1/messages",
            {"max_tokens": 1, "output_config": {"format": {"type": "json_schema", "schema": {"type": "zzz"}}}},
            400,
        ),
        ("/v1/chat/completions", {"max_tokens": 1, "structured_outputs": {"regex": "(("}}, 400),
        ("/v1/completions", {"max_tokens": 1, "prompt": "a", "messages": None, "structured_outputs": {"regex": "(("}}, 400),
        ("/v1/responses", {"max_output_tokens": 1, "input": "a", "messages": None, "structured_outputs": {"regex": "(("}}, 400),
        ("/v1/messages/count_tokens", {"chat_template_kwargs": {"zzz": 1}}, 400),
        ("/v1/messages", {"max_tokens": 5, "output_config": GIVEN_UP}, 400),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_request_leaves_no_trace_in_the_log(
    path: str, body: dict[str, Any], status: int, stream: bool, server: Server
) -> None:
    before = len(log(server.log))
    given = {
        "model": "tiny",
        "messages": USER,
        **body,
        **({"stream": True} if stream and path != "/v1/messages/count_tokens" else {}),
    }
    response = server.post(path, **given)
    gives_up = body.get("output_config") == GIVEN_UP
    has_begun = stream and (gives_up or path == "/v1/responses")  # events of its own come before
    assert response.status_code == (200 if has_begun else status), response.text
    assert f'"code": {status}' in response.text
    written = log(server.log)[before:].splitlines()
    assert not [line for line in written if "Traceback" in line]
    of_error = [line for line in written if "HTTP/1.1" not in line]  # else it's the access log's
    assert len(of_error) <= 11 * gives_up, of_error


def log(path: Path) -> str:
    return path.read_text(encoding="utf-8")
