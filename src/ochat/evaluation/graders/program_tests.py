"""What compares a program with the reference solution: a script for the sandbox's side of the tests, which imports nothing of ours.

EvalPlus's rules (evalplus/eval/__init__.py): results are equal, or, where floats are expected, of the same type and near; a root of a
polynomial is right where the polynomial is near 0. Expected results are computed here, beside the candidate's and out of its reach. An
input may take four times what the reference took, or a few seconds."""

import copy
import math
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Never  # Any: what the candidate returns

SECONDS, FACTOR = 6.0, 4.0  # for one input, at least; and as a multiple of the reference's time
RELATIVE = 1e-7


def is_floats(value: Any) -> bool:
    """A float, or a list or tuple of nothing else."""
    return isinstance(value, float) or (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(one, float) for one in value)
    )


def near(given: Any, expected: Any, atol: float) -> bool:
    """As numpy's allclose has it, piece by piece."""
    if isinstance(expected, list | tuple):
        return len(given) == len(expected) and all(near(*pair, atol) for pair in zip(given, expected, strict=True))
    return given == expected or abs(given - expected) <= atol + RELATIVE * abs(expected)


def is_right(given: Any, expected: Any, inputs: list[Any], atol: float, entry_point: str) -> bool:
    """Whether the result is one that the task accepts. Raises what comparing strange values raises."""
    if entry_point == "find_zero":
        (coefficients,) = inputs
        return abs(sum(factor * math.pow(given, power) for power, factor in enumerate(coefficients))) <= atol
    if given == expected:
        return True
    if not atol and is_floats(expected):
        atol = 1e-6
    return bool(atol) and type(given) is type(expected) and near(given, expected, atol)


def _too_long(number: int, frame: FrameType | None) -> Never:
    raise TimeoutError


def judge(candidate: Callable[..., Any], task: dict[str, Any]) -> None:
    """Raise AssertionError, which says `base 3` or `plus 14`, at the first input on which the candidate isn't right."""
    space: dict[str, Any] = {"__name__": "reference"}
    exec(task["reference"], space)
    reference = space[task["entry_point"]]
    signal.signal(signal.SIGALRM, _too_long)
    for part in task["parts"]:
        for number, inputs in enumerate(task[part]):
            start = time.perf_counter()
            # copied, which takes about as long as bringing the candidate's result here does
            expected = copy.deepcopy(reference(*copy.deepcopy(inputs)))
            limit = max(SECONDS, FACTOR * (time.perf_counter() - start))
            try:
                signal.setitimer(signal.ITIMER_REAL, limit)
                given = candidate(*copy.deepcopy(inputs))
                right = is_right(given, expected, inputs, task["atol"], task["entry_point"])
            except Exception:  # whatever the candidate raised, or its result did when compared
                right = False
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if not right:
                raise AssertionError(f"{part} {number}")
