"""Ask sympy, in a process of its own, whether an expression is zero.

sympy's parser evaluates the text, and `9**9**9` has no end. The child is killed by its own clock and kept small by the kernel's limits;
then the expression isn't zero. It is kept from one question to the next, since sympy takes most of a second to load."""

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from ochat.errors import require

LIMIT_SECONDS = 10

_lock = threading.Lock()
_child: "tuple[int, subprocess.Popen[bytes]] | None" = None  # and the process that it is a child of


def is_zero(expression: str) -> bool:
    """Whether sympy simplifies the expression to 0; False where it can't read it, or hasn't in LIMIT_SECONDS."""
    question = json.dumps([expression, LIMIT_SECONDS]).encode() + b"\n"
    with _lock:
        process = _started()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(question)
            process.stdin.flush()
            if answer := process.stdout.readline():
                return answer == b"1\n"
        stop()
        return False


def _started() -> "subprocess.Popen[bytes]":
    global _child
    if _child is None or _child[0] != os.getpid():
        require("sympy", "eval", "Grading MATH")
        script = Path(__file__).with_name("symbolic_child.py")
        process = subprocess.Popen(
            [sys.executable, "-I", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if _child is None:
            atexit.register(stop)
        _child = os.getpid(), process
    return _child[1]


def stop() -> None:
    """End the child, if it is ours."""
    global _child
    if _child and _child[0] == os.getpid():
        process = _child[1]
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        _child = None
