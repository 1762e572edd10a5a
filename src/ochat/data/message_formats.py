"""Formats whose rows hold a list of turns, or a text that is one."""

import re
from collections.abc import Callable

from ochat.data.problem import RowProblem, shown
from ochat.data.turns import (
    TOOL_LISTS,
    Converted,
    Row,
    conversation,
    message,
    objects,
    refuse_tools,
    text,
    turns,
    without_leading_answers,
    without_open_question,
)

CHATML_START = "<|im_start|>"
_START = re.compile(r"<\|im_start\|>([^\n<]*)\n")  # anchored at the whole mark: a text may hold line breaks, or code
_END = "<|im_end|>"


def from_list(field: str, *, drop_leading_answers: bool = False) -> Callable[[Row], Converted]:
    """The conversion of rows with a list of messages under this name. ShareGPT's long chats were split, so that many begin with
    an answer to nothing: those can be dropped."""

    def convert(row: Row) -> Converted:
        refuse_tools(row, TOOL_LISTS)
        found = turns(row[field], field)
        items, notes = without_leading_answers(found.items) if drop_leading_answers else (found.items, ())
        return Converted((conversation(row, items, found.system),), notes)

    return convert


def from_ultrachat(row: Row) -> Converted:
    """UltraChat 200k's rows, in which `prompt` repeats the first user's message."""
    found = turns(row["messages"], "messages")
    prompt = text(row["prompt"], "prompt")
    if prompt.strip() not in (item.content.strip() for item in found.items[:1]):
        raise RowProblem(
            "the prompt isn't the first message",
            f"`prompt` is {shown(prompt)}, which isn't the first message's text. Remove it, or make it a message.",
        )
    return Converted((conversation(row, found.items, found.system),))


def from_ultrachat_data(row: Row) -> Converted:
    """UltraChat's first form: texts of the user and the assistant in turn."""
    texts = row["data"]
    if not isinstance(texts, list):
        raise RowProblem("messages are no list", f"`data` is {shown(texts)}. Give a list of texts.")
    items = tuple(message(("user", "assistant")[i % 2], text(one, f"data[{i}]")) for i, one in enumerate(texts))
    items, notes = without_open_question(items)
    return Converted((conversation(row, items),), notes)


def from_pairs(question: str, answer: str) -> Callable[[Row], Converted]:
    """The conversion of rows whose `conversation` lists questions and answers under these names."""

    def convert(row: Row) -> Converted:
        items = []
        for number, pair in enumerate(objects(row["conversation"], "conversation")):
            for role, field in (("user", question), ("assistant", answer)):
                items.append(message(role, text(pair.get(field), f"conversation[{number}].{field}")))
        return Converted((conversation(row, items),))

    return convert


def from_chatml(row: Row) -> Converted:
    """ChatML in one text, as OpenAssistant's top answers have it."""
    before, *parts = _START.split(text(row["text"], "text"))
    if before.strip():
        raise RowProblem("ChatML is broken", f"`text` begins with {shown(before)}. Give only <|im_start|>ROLE messages.")
    messages: list[Row] = []
    for role, body in zip(parts[::2], parts[1::2], strict=True):
        content, end, after = body.partition(_END)
        if not end or after.strip() or CHATML_START in content:
            found = f"{shown(after)} after its {_END}" if end and after.strip() else f"no {_END} at its end"
            raise RowProblem(
                "ChatML is broken", f"message {len(messages) + 1} of `text` has {found}. Each message ends in one {_END}."
            )
        messages.append({"role": role, "content": content})
    found_turns = turns(messages, "text")
    items, notes = without_open_question(found_turns.items)
    return Converted((conversation(row, items, found_turns.system),), notes)
