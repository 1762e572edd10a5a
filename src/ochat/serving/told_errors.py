"""Keep out of the server's log what a client was told: its own mistake.

On Anthropic's routes, and in streams of the others, vLLM logs a whole trace for each request that it refuses, so that a client can fill
the log (0.32.0). What isn't the client's fault stays, with its trace. Only where the engine gave up on a reply the trace is
dropped: a line before tells it, and the trace shows only who passed it on."""

import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from pydantic import ValidationError

from ochat.serving.replies import GAVE_UP

ROUTER = "vllm.entrypoints.anthropic.api_router"
STREAMS = (
    "vllm.entrypoints.anthropic.serving",
    "vllm.entrypoints.openai.chat_completion.serving",
    "vllm.entrypoints.openai.completion.serving",
)


def status_in_stream(error: BaseException) -> int:
    """What the gateway makes of it (metering.py). vLLM's own 400 for any ValueError or TypeError would hide faults of the server."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError

    is_clients = isinstance(error, VLLMClientError | GracefulHTTPError)
    return HTTPStatus.BAD_REQUEST if is_clients else HTTPStatus.INTERNAL_SERVER_ERROR


def status_of(error: BaseException) -> int:
    """What vLLM answers to it."""
    from vllm.entrypoints.anthropic.api_router import create_error_response

    code: int = create_error_response(error).error.code
    return code


def hide_told_errors() -> None:
    """From now on, in this process, hide a client's mistakes from the log, and shorten an engine's giving up."""
    logging.getLogger(ROUTER).addFilter(_of_router)
    for name in STREAMS:
        logging.getLogger(name).addFilter(_of_streams)


def is_news(status_of: Callable[[BaseException], int], record: logging.LogRecord) -> bool:
    """Whether the log is to have it, as a filter of logging's. Takes away the trace of an engine that gave up."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    status, said = told_in_stream(error) or (status_of(error), str(error))
    if GAVE_UP.decode() in said:
        record.exc_info = None
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR


def told_in_stream(error: BaseException) -> tuple[int, str] | None:
    """The status and words of vLLM's own error inside a stream, which Anthropic's routes make of a chat: 0.33 has it in an exception, and
    0.32 takes it for a piece of the reply, of which pydantic finds that it's none."""
    if isinstance(error, ValidationError):
        about = error.errors()[0]["input"]
        told = about.get("error") if isinstance(about, dict) else None
    else:
        told = vars(error.error_info) if hasattr(error, "error_info") else None
    if not isinstance(told, dict) or not isinstance(told.get("code"), int):
        return None
    return told["code"], str(told.get("message"))


# One object each, so that logging adds it once.
_of_router, _of_streams = partial(is_news, status_of), partial(is_news, status_in_stream)
