"""Formats whose rows hold one question and its answer in columns."""

import re
from collections.abc import Callable

from ochat.conversation import Message
from ochat.data.problem import RowProblem, shown
from ochat.data.turns import Converted, Row, Turns, as_context, conversation, message, text, turns

_DIGITS = re.compile(r"\d+")


def asked_and_answered(question: str, answer: str) -> Callable[[Row], Converted]:
    """The conversion of rows with a question and an answer under these names: texts, or TRL's lists of messages, of which
    those of the question are context."""

    def convert(row: Row) -> Converted:
        asked = prompt(row[question], question)
        answered = completion(row[answer], answer)
        system = asked.system or text(row.get("system_prompt") or "", "system_prompt")
        return Converted((conversation(row, (*_earlier(row), *asked.items, *answered), system),))

    return convert


def prompt(value: object, field: str) -> Turns:
    """A question, as text or as the messages that lead to it. Raises RowProblem naming the field."""
    if not isinstance(value, list):
        return Turns("", (message("user", text(value, field)),))
    found = turns(value, field)
    return Turns(found.system, as_context(found.items))


def completion(value: object, field: str) -> tuple[Message, ...]:
    """An answer, as text or as messages. Raises RowProblem naming the field."""
    if not isinstance(value, list):
        return (message("assistant", text(value, field)),)
    found = turns(value, field)
    if found.system:
        raise RowProblem("a late system message", f"`{field}` holds a system message. It can only be the first message.")
    return found.items


def instruction(row: Row) -> str:
    """Alpaca's question: the instruction, and the input below it where there is one. GPTeacher's and Dolly's are alike."""
    parts = [text(row["instruction"], "instruction")]
    for field in ("input", "context"):
        below = text(row.get(field) or "", field)
        parts += [below] if below else []
    return "\n".join(parts)


def instructed(answer: str) -> Callable[[Row], Converted]:
    """The conversion of rows with an instruction, and the answer under this name."""

    def convert(row: Row) -> Converted:
        items = (*_earlier(row), message("user", instruction(row)), *completion(row[answer], answer))
        return Converted((conversation(row, items),))

    return convert


def _earlier(row: Row) -> list[Message]:
    """The turns of `history`: earlier questions, each with its answer."""
    history = row.get("history")
    if history in (None, "", "[]"):
        return []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise RowProblem("history is no list of pairs", f"`history` is {shown(history)}. Give a list of [question, answer].")
    sides = (("user", 0), ("assistant", 1))
    return [
        message(role, text(pair[side], f"history[{number}][{side}]"))
        for number, pair in enumerate(history)
        for role, side in sides
    ]


def is_goat(row: Row) -> bool:
    """Goat's arithmetic: `input` is the expression that the instruction already holds, and `answer` the end of the output."""
    fields = [row.get(name) for name in ("instruction", "input", "output", "answer")]
    if not all(isinstance(field, str) and field for field in fields):
        return False
    asked, expression, output, answer = map(str, fields)
    return _DIGITS.findall(expression) == _DIGITS.findall(asked) != [] and answer in output


def from_goat(row: Row) -> Converted:
    """Only the instruction asks, and only the output answers: the two other columns repeat parts of them."""
    items = [message("user", text(row["instruction"], "instruction")), message("assistant", text(row["output"], "output"))]
    return Converted((conversation(row, items),))
