"""Keep out of the server's log what a client was told: its own mistake.

On Anthropic's routes vLLM logs a whole trace for each request that it answers with 400, so that a client can fill the log (0.32.0,
entrypoints/anthropic). On all others it logs none. What is answered with 500 stays, with its trace. Only where the engine gave up on a
reply the trace is dropped: a line before tells it, and the trace shows only who passed it on."""

import logging
from collections.abc import Callable
from functools import partial

from pydantic import ValidationError

from ochat.serving.replies import GAVE_UP

LOGGERS = ("vllm.entrypoints.anthropic.api_router", "vllm.entrypoints.anthropic.serving")


def status_of(error: BaseException) -> int:
    """What vLLM answers to it."""
    from vllm.entrypoints.anthropic.api_router import create_error_response

    code: int = create_error_response(error).error.code
    return code


def hide_told_errors() -> None:
    """From now on, in this process, hide a client's mistakes from the log, and shorten an engine's giving up."""
    router, converter = map(logging.getLogger, LOGGERS)
    router.addFilter(_of_router)
    converter.addFilter(drop_trace)


def is_news(status_of: Callable[[BaseException], int], record: logging.LogRecord) -> bool:
    """Whether the log is to have it, as a filter of logging's."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or (status_of(error) >= 500 and drop_trace(record))


def drop_trace(record: logging.LogRecord) -> bool:
    """Always true: a filter of logging's that takes away the trace of an engine that gave up."""
    error = record.exc_info[1] if record.exc_info else None
    # In the middle of a stream vLLM takes its own error for a piece of the reply, and pydantic finds that it's none.
    about = error.errors()[0]["input"] if isinstance(error, ValidationError) else error
    if error is not None and GAVE_UP.decode() in str(about):
        record.exc_info = None
    return True


_of_router = partial(is_news, status_of)  # one object, so that logging adds it once
