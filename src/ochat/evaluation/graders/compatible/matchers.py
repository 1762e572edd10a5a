"""The original's graders, as they were in ochat 3.5.1 and 3.6.1, faults included.

Scores reported with them can be compared with ours only by grading the same way, so nothing here is ever improved: what is right
is the strict graders' business. Written anew, and held to the original's verdicts case by case. Two things differ: a reply on which the
original raises, ending its run, is no answer here, and so is one on which it wouldn't end (`symbolic.py`)."""

import ast
import re
import string
import warnings
from collections.abc import Callable, Mapping
from typing import Any  # task data is what the original's files hold

from ochat.evaluation.graders.compatible.math_answers import same_answer

Match = tuple[bool, str | bool | dict[str, str]]
Matcher = Callable[[Mapping[str, Any], str], Match]

_FENCE = "```"


def _first_letter(task: Mapping[str, Any], reply: str) -> Match:
    """AGIEval: the first capital from A to F, of any word."""
    letter = next((character for character in reply if character in "ABCDEF"), "")
    return bool(letter), letter


def _first_option_letter(task: Mapping[str, Any], reply: str) -> Match:
    """BBH MC, TruthfulQA: the first character that is an option, of any word."""
    letter = next((character for character in reply if character in task["options"]), "")
    return bool(letter), letter


def _letter_or_c(task: Mapping[str, Any], reply: str) -> Match:
    """GPQA: the first capital from A to D between the first phrase and the next one; C where there's none."""
    after = reply.split("The correct answer is")[1:2]
    letter = next((character for text in after for character in text if character in "ABCD"), "")
    return bool(letter), letter or "C"


def _first_in_order(text: str, letters: str) -> str:
    return next((f"({letter})" for letter in letters if f"({letter})" in text), "")


def _option_or_c(task: Mapping[str, Any], reply: str) -> Match:
    """MMLU: of the options after the last phrase, the first in the alphabet; C where there's none."""
    _, phrase, after = reply.rpartition("answer is")
    option = _first_in_order(after, "ABCD") if phrase else ""
    return bool(option), option or "(C)"


def _bbh(task: Mapping[str, Any], reply: str, *, empty_is_answer: bool) -> Match:
    """BBH CoT: of the options after the last phrase, the first in the alphabet; without options, all that follows."""
    _, phrase, after = reply.rpartition("answer is ")
    if not phrase:
        return False, reply
    answer = after.strip()
    if task["options"]:
        option = _first_in_order(answer, string.ascii_uppercase)
        return bool(option), option or answer
    if not answer and not empty_is_answer:
        raise IndexError("3.5.1 looks at the last character of nothing")
    return True, answer.removesuffix(".")


def _last_number(task: Mapping[str, Any], reply: str) -> Match:
    """GSM8K: the last run of digits, with a point in it or before it; of any script, and without its sign."""
    numbers = re.findall(r"\d*\.?\d+", reply)
    return (True, numbers[-1]) if numbers else (False, reply)


def _last_boxed(text: str) -> str | None:
    """What the last `\\boxed` holds, or the last `\\fbox` where there's none; None where its braces don't close."""
    start = text.rfind("\\boxed") if "\\boxed" in text else text.rfind("\\fbox")
    if start < 0:
        return None
    opened, depth = None, 0
    for at in range(start, len(text)):
        if text[at] == "{":
            depth += 1
            opened = at if opened is None else opened
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return None if opened is None else text[opened + 1 : at].strip()
    return None


def _gold(task: Mapping[str, Any]) -> str:
    gold = _last_boxed(task["_metadata"]["solution"])
    if not gold:
        raise ValueError("the solution has no answer in a box")
    return gold


def _zero_shot_math(task: Mapping[str, Any], reply: str) -> Match:
    """MATH in 3.5.1: what follows the last phrase, in any case; of that, what the last box holds."""
    answer, phrase = reply.strip(), "answer is"
    # as the original: the place is looked for in the lower-case text, which may be longer
    at = answer.lower().rfind(phrase)
    if at >= 0:
        answer = answer[at + len(phrase) :].strip().removeprefix(":").removesuffix(".")
    boxed = _last_boxed(answer)
    return at >= 0 or bool(boxed), same_answer(boxed or answer, _gold(task))


def _few_shot_math(task: Mapping[str, Any], reply: str) -> Match:
    """MATH in 3.6.1: all that follows the last phrase, or what the last box holds, or the reply; 256 characters of it."""
    _, phrase, after = reply.rpartition("The answer is")
    boxed = None if phrase else _last_boxed(reply)
    answer = after.strip() if phrase else boxed or reply
    return bool(phrase or boxed), same_answer(answer[:256], _gold(task))


def _parts(reply: str) -> list[str]:
    """HumanEval in 3.5.1: what stands between fences, and around them."""
    return [part.strip().removeprefix("python") for part in reply.split(_FENCE)]


def _blocks(reply: str) -> list[str]:
    """HumanEval in 3.6.1: the blocks between fences of their own lines, and the reply itself.

    The original's pattern, (`{3}.*?\\n+)([\\s\\S]*?)(\\n+`{3}), takes cubic time on the empty lines of a reply that loops; this
    finds what it finds."""
    blocks, at = [], 0
    while (opened := reply.find(_FENCE, at)) >= 0:
        line_end = reply.find("\n", opened + len(_FENCE))
        if line_end < 0:
            break
        start = line_end
        while reply.startswith("\n", start):
            start += 1
        closed = reply.find("\n" + _FENCE, start)
        if closed >= 0:
            end = closed
            while end > start and reply[end - 1] == "\n":
                end -= 1
            blocks.append(reply[start:end])
        elif start - line_end > 1 and reply.startswith(_FENCE, start):  # the pattern gives an empty line back
            closed = start - 1
            blocks.append("")
        else:
            at = opened + 1
            continue
        at = closed + 1 + len(_FENCE)
    return [*blocks, reply]


def _defines(code: str, name: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError):  # a null byte is a ValueError in some versions
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(tree))


def _code(task: Mapping[str, Any], reply: str, *, split: Callable[[str], list[str]]) -> Match:
    """HumanEval: the first part that defines the function after the prompt's imports, else after the whole prompt."""
    data = task["_metadata"]
    imports = data["prompt"].split("def")[0].strip() + "\n\n"
    for before in (imports, data["prompt"]):
        for part in split(reply):
            if _defines(before + part, data["entry_point"]):
                return True, {"task_id": data["task_id"], "completion": before + part}
    return False, {"task_id": data["task_id"], "completion": reply}


_BOTH: dict[str, Matcher] = {
    "zs/agieval": _first_letter,
    "zs/bbh_mc_orca": _first_option_letter,
    "zs/truthfulqa_orca": _first_option_letter,
    "fs_cothub/gsm8k": _last_number,
    "fs_cothub/mmlu": _option_or_c,
    # each known to one version alone; the other grades it the same way, so that a report has a figure for it
    "zs/math": _zero_shot_math,
    "zs/gpqa": _letter_or_c,
    "fs_cothub/math": _few_shot_math,
}
MATCHERS: dict[str, dict[str, Matcher]] = {
    "3.5.1": _BOTH
    | {
        "fs_cothub/bbh": lambda task, reply: _bbh(task, reply, empty_is_answer=False),
        "coding/humaneval": lambda task, reply: _code(task, reply, split=_parts),
    },
    "3.6.1": _BOTH
    | {
        "fs_cothub/bbh": lambda task, reply: _bbh(task, reply, empty_is_answer=True),
        "coding/humaneval": lambda task, reply: _code(task, reply, split=_blocks),
    },
}


def match(version: str, task_type: str, task: Mapping[str, Any], reply: str) -> Match:
    """Whether the version's matcher found an answer, and which; no answer, "", where it raises."""
    try:
        return MATCHERS[version][task_type](task, reply)
    except (AssertionError, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError):
        return False, ""
