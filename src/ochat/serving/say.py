"""Tell the operator something in a line on standard error, which may be gone: `tee` was killed, or the disk is full.

A server goes on without it: an error from `print` would end the request, or the watch over the engine, that has something to tell."""

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Print the line as ochat's, where that's possible."""
    with suppress(OSError, ValueError):  # ValueError: it's closed
        print(f"ochat: {line}", file=sys.stderr, flush=True)
