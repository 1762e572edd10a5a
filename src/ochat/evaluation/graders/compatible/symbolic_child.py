"""The process in which sympy runs: a script, which answers a line of JSON, [expression, seconds], with `1` or `0`."""

import contextlib
import json
import resource
import signal
import sys

from sympy import simplify
from sympy.parsing import sympy_parser

MEMORY_BYTES = 2 * 2**30
_TRANSFORMATIONS = (*sympy_parser.standard_transformations, sympy_parser.implicit_multiplication_application)


def is_zero(expression: str) -> bool:
    """The original's question: whether the expression simplifies to 0; what can't be read, doesn't."""
    try:
        parsed = sympy_parser.parse_expr(expression.replace("^", "**"), transformations=_TRANSFORMATIONS)
        return bool(simplify(parsed) == 0)
    except BaseException:  # model text is evaluated: anything may be raised, SystemExit too
        return False


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the kernel ends us, whatever is being computed
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            expression, seconds = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, seconds)  # of our own work: a busy machine changes no verdict
            answer = is_zero(expression)
            signal.setitimer(signal.ITIMER_PROF, 0)
            print(int(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
