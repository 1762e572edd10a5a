import logging
from pathlib import Path
from typing import Any

import pytest
from live_server import Server
from pydantic import BaseModel, ValidationError

from ochat.serving.told_errors import drop_trace, is_news


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


def test_an_engine_that_gave_up_keeps_its_line_and_no_trace() -> None:
    with pytest.raises(ValidationError) as found:
        Chunk.model_validate({"error": {"message": "Internal server error", "code": 500}})
    for error in (RuntimeError("Internal server error"), found.value):
        record = record_of(error)
        assert drop_trace(record)
        assert record.exc_info is None
    with pytest.raises(ValidationError) as other:
        Chunk.model_validate({"choices": "a"})
    record = record_of(other.value)
    assert drop_trace(record)
    assert record.exc_info


USER = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/messages", {"max_tokens": 1, "stop_sequences": [""]}, 400),
        ("/v1/messages", {"max_tokens": 1, "temperature": 5}, 400),
        ("/v1/messages", {"max_tokens": 1, "messages": [{"role": "system", "content": "x"}]}, 400),
        ("/v1/messages", {"max_tokens": 1, "chat_template_kwargs": {"zzz": 1}}, 400),
        ("/v1/messages/count_tokens", {"chat_template_kwargs": {"zzz": 1}}, 400),
        (
            "/v1/messages",
            {"max_tokens": 5, "output_config": {"format": {"type": "json_schema", "schema": {"$ref": "#"}}}},
            400,
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_request_leaves_no_trace_in_the_log(
    path: str, body: dict[str, Any], status: int, stream: bool, server: Server
) -> None:
    before = len(log(server.log))
    given = {"model": "tiny", "messages": USER, **body, **({"stream": True} if stream and "max_tokens" in body else {})}
    response = server.post(path, **given)
    assert response.status_code == (200 if stream and "output_config" in body else status)
    written = log(server.log)[before:]
    assert "Traceback" not in written
    assert len(written.splitlines()) < 12


def log(path: Path) -> str:
    return path.read_text(encoding="utf-8")
