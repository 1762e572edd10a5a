"""Keep out of the server's log what a client was told: its own mistake.

On Anthropic's routes vLLM logs a whole trace for each request that it answers with 400, so that a client can fill the log (0.32.0,
entrypoints/anthropic). On all others it logs none. What is answered with 500 stays, with its trace, but where the engine gave up on a reply: that
is told in a line before, and a trace of the places that passed it on says no more."""

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
    """From now on hide or shorten them in this process."""
    router, converter = map(logging.getLogger, LOGGERS)
    router.addFilter(_of_router)
    converter.addFilter(shortened)


def is_news(status_of: Callable[[BaseException], int], record: logging.LogRecord) -> bool:
    """Whether the log is to have it, as a filter of logging's."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or (status_of(error) >= 500 and shortened(record))


def shortened(record: logging.LogRecord) -> bool:
    """Always true: a filter of logging's that takes away the trace of an engine that gave up."""
    error = record.exc_info[1] if record.exc_info else None
    # In the middle of a stream vLLM takes its own error for a piece of the reply, and pydantic finds that it's none.
    about = error.errors()[0]["input"] if isinstance(error, ValidationError) else error
    if error is not None and GAVE_UP.decode() in str(about):
        record.exc_info = None
    return True


_of_router = partial(is_news, status_of)  # one object, so that logging adds it once
