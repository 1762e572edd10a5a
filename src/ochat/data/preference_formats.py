"""Formats whose rows tell a good answer from a bad one: each becomes a class, with its name as condition.

That is what conditions are for. Under one condition, or under none, the bad answers would be taught as the good ones are."""

import re

from ochat.conversation import Conversation, Message
from ochat.data.instruction_formats import completion, instruction, prompt
from ochat.data.problem import RowProblem, shown
from ochat.data.turns import Converted, Row, Turns, as_context, conversation, message, switch, text, turns

SAME_ANSWERS = "chosen and rejected answer are the same"
_PROMPTS = ("prompt", "question", "messages", "conversations")
_SIDE = re.compile(r"\n\n(Human|Assistant): ")


def _of_class(row: Conversation, name: str) -> Conversation:
    return row.model_copy(update={"condition": name, "class_name": name})


def _judged(items: tuple[Message, ...], n_context: int) -> tuple[Message, ...]:
    """The turns, of which the judgement only concerns those after the context."""
    return (*as_context(items[:n_context]), *items[n_context:])


def from_pair(row: Row) -> Converted:
    """`chosen` and `rejected`, after a prompt or with it inside. What both share is context, and not learned from."""
    asked = _asked(row)
    answers = [_answered(row[field], field, asked) for field in ("chosen", "rejected")]
    return _pair(row, *answers)


def from_rejected_response(row: Row) -> Converted:
    """ms-swift's rows: messages whose last is the chosen answer, and `rejected_response` in its place."""
    chosen = turns(row["messages"], "messages")
    if not chosen.items or chosen.items[-1].role != "assistant":
        raise RowProblem("no chosen answer", "`messages` doesn't end in an assistant's message. Give the chosen answer there.")
    rejected = completion(row["rejected_response"], "rejected_response")
    return _pair(row, chosen, Turns(chosen.system, (*chosen.items[:-1], *rejected)))


def _pair(row: Row, chosen: Turns, rejected: Turns) -> Converted:
    shared = 0
    for one, other in zip(chosen.items[:-1], rejected.items[:-1], strict=False):
        if (one.role, one.content) != (other.role, other.content):
            break
        shared += 1
    rows = (
        _of_class(conversation(row, _judged(chosen.items, shared), chosen.system), "chosen"),
        _of_class(conversation(row, _judged(rejected.items, shared), rejected.system), "rejected"),
    )
    same = [item.content for item in chosen.items] == [item.content for item in rejected.items]
    return Converted(rows, (SAME_ANSWERS,) if same else ())


def _asked(row: Row) -> Turns | None:
    """The prompt, or nothing where each answer brings it."""
    if row.get("instruction") is not None:
        return Turns("", (message("user", instruction(row)),))
    given = [field for field in _PROMPTS if row.get(field) is not None]
    if "messages" in given and row["messages"] == row["chosen"]:
        given.remove("messages")  # UltraFeedback repeats the chosen conversation there
    if len(given) > 1:
        raise RowProblem("two prompts", f"the row has {' and '.join(f'`{field}`' for field in given)}. Keep one.")
    return prompt(row[given[0]], given[0]) if given else None


def _answered(value: object, field: str, asked: Turns | None) -> Turns:
    """The whole conversation that ends in this answer."""
    if isinstance(value, dict):  # LLaMA-Factory's: the one message
        value = [value]
    if asked is None and isinstance(value, str):
        return _dialogue(value, field)
    given = turns(value, field) if isinstance(value, list) else Turns("", (message("assistant", text(value, field)),))
    if asked is None:
        return given
    n_asked = len(asked.items)
    repeats = [(i.role, i.content) for i in given.items[:n_asked]] == [(i.role, i.content) for i in asked.items]
    items = given.items if repeats else (*asked.items, *given.items)
    if not repeats and given.items and given.items[0].role == "user":
        raise RowProblem(
            "the answer brings another prompt",
            f"`{field}` begins with a user's message that isn't the prompt: {shown(given.items[0].content)}. Keep one prompt.",
        )
    return Turns(given.system or asked.system, items)


def _dialogue(value: str, field: str) -> Turns:
    """Anthropic's form of a whole dialogue in one text."""
    before, *parts = _SIDE.split(value)
    if before or not parts:
        raise RowProblem(
            "no prompt", f"`{field}` is a text, and the row has no prompt. Give `prompt`, or messages, or '\\n\\nHuman: …'."
        )
    roles = {"Human": "user", "Assistant": "assistant"}
    return Turns("", tuple(message(roles[side], body) for side, body in zip(parts[::2], parts[1::2], strict=True)))


def from_label(row: Row) -> Converted:
    """KTO's rows: one conversation, whose last answer `label` calls good or bad."""
    name = "desirable" if switch(row["label"], "label") else "undesirable"
    listing = next((name for name in ("messages", "conversations") if row.get(name) is not None), None)
    if listing:
        found = turns(row[listing], listing)
        items = _judged(found.items, len(found.items) - 1)
    else:
        found = prompt(row["prompt"], "prompt")
        items = (*as_context(found.items), *completion(row["completion"], "completion"))
    if items and items[-1].role != "assistant":
        raise RowProblem(
            "no answer to judge", "the last message isn't the assistant's, so `label` judges nothing. Give the answer."
        )
    return Converted((_of_class(conversation(row, items, found.system), name),))
