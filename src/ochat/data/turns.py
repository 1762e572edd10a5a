"""The turns of a conversation, as people's formats write them, and how they become ours.

What every format shares: which words name a role, where a message's text and weight may stand, and what we can't hold. A format
itself (`*_formats.py`) only says which of a row's fields are what. All of it is pure; what it drops or changes it says in
`notes`."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import ValidationError

from ochat.conversation import MAX_WEIGHT, Conversation, Message, first_problem
from ochat.data.problem import RowProblem, shown

Row = Mapping[str, object]

# Each word for a role that was met in public data sets. ShareGPT's pages name the model that answered.
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
CALL_ROLES = {"function_call", "tool_call"}
RESULT_ROLES = {"tool", "function", "observation", "tool_response", "ipython"}
TOOL_LISTS = ("tools", "functions")
_TOOL_FIELDS = ("tool_calls", "function_call", "tool_call_id")
_EMPTY: tuple[object, ...] = (None, "", "[]", [], {})  # of a field for tools

_SWITCHES = ("loss", "train")  # ms-swift's, axolotl's: is the message learned from
_WEIGHTS = ("weight", "loss_weight", "loss_scale")  # OpenAI's and axolotl's, LLaMA-Factory's, ms-swift's
NAME_FIELDS = frozenset({"role", "from", "content", "value"})
MESSAGE_FIELDS = NAME_FIELDS | frozenset({*_SWITCHES, *_WEIGHTS, "train_detail", *_TOOL_FIELDS})

NO_ANSWER = "last user turn dropped, since no answer follows it"
ASSISTANT_FIRST = "leading assistant turn dropped, since nothing asks for it"


class Converted(NamedTuple):
    """What a row became, and what was dropped or changed on the way: the same words for all rows it happened to."""

    rows: tuple[Conversation, ...]
    notes: tuple[str, ...] = ()


class Turns(NamedTuple):
    system: str
    items: tuple[Message, ...]


def value_of(row: Row, column: str) -> object:
    """The column's value; `a.b` is b within a where there's no column of that name. None where it's absent."""
    if column in row or "." not in column:
        return row.get(column)
    outer, _, inner = column.partition(".")
    within = row.get(outer)
    return value_of(within, inner) if isinstance(within, dict) else None


def text(value: object, field: str) -> str:
    """The value, if it's text. Raises RowProblem naming the field."""
    if isinstance(value, str):
        return value
    found = "missing or null" if value is None else shown(value)
    reason = "a text is missing" if value is None else "not a text"
    raise RowProblem(f"{reason}: {field.split('[')[0]}", f"`{field}` is {found}. Give text.")


def weight(value: object, field: str) -> float:
    """The value, if a loss can be multiplied by it. Raises RowProblem naming the field."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowProblem("a weight is no number", f"`{field}` is {shown(value)}. Give a number, such as 1.0 or 0.0.")
    if not (value <= MAX_WEIGHT and value >= 0):  # a NaN is neither
        problem = "not finite" if isinstance(value, float) and not math.isfinite(value) else "out of range"
        raise RowProblem(f"a weight is {problem}", f"`{field}` is {shown(value)}. Give 0 (skip it) to {MAX_WEIGHT:g}.")
    return float(value)


def switch(value: object, field: str) -> bool:
    """The value, if it's true or false, also as 1 or 0 or in words, as CSV has them. Raises RowProblem naming the field."""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise RowProblem(f"not true or false: {field.split('[')[0]}", f"`{field}` is {shown(value)}. Give true or false.")
    return found


def objects(value: object, field: str) -> list[Row]:
    """The value, if it's a list of objects with one at least. Raises RowProblem naming the field."""
    if not isinstance(value, list):
        hint = " CSV can't hold lists; use jsonl or parquet." if isinstance(value, str) else ""
        raise RowProblem("messages are no list", f"`{field}` is {shown(value)}. Give a list of messages.{hint}")
    if not value:
        raise RowProblem("no message", f"`{field}` is empty. Give at least a user's and an assistant's message.")
    for number, one in enumerate(value):
        if not isinstance(one, dict):
            raise RowProblem(
                "a message is no object", f"`{field}[{number}]` is {shown(one)}. Give an object with a role and a content."
            )
    return value


def refuse_tools(row: Row, fields: Iterable[str], field: str = "") -> None:
    """Raise RowProblem where one of the fields holds tools or calls of them."""
    for name in fields:
        if row.get(name) not in _EMPTY:
            raise RowProblem(
                "tools",
                f"`{field}{name}` has tools, for which conversations here have no place. "
                "Leave such rows out, or take the calls as text: --tools-as-text.",
            )


class MessageNames(NamedTuple):
    """Which field of a message holds its role, which its text, and what the words for a role mean."""

    role: str = "role"
    content: str = "content"
    roles: Mapping[str, str] = ROLES


OURS, SHAREGPT = MessageNames(), MessageNames("from", "value")


def turns(value: object, field: str, names: MessageNames | None = None) -> Turns:
    """A list of messages as the system prompt that may open it and the turns, under these names or else those that each message
    has. Raises RowProblem naming the message."""
    system: str | None = None
    items = []
    for number, row in enumerate(objects(value, field)):
        where = f"{field}[{number}]"
        role = _role(row, where, names)
        refuse_tools(row, _TOOL_FIELDS, f"{where}.")
        content, of_parts = _content(row, where, names)
        own = _weight(row, where, of_parts)
        if role != "system":
            items.append(message(role, content, own))
        elif own:
            raise RowProblem(
                "a system message with a weight",
                f"`{where}` is a system message to learn from, which isn't done here. Weigh it 0.",
            )
        elif system is not None:
            raise RowProblem("two system messages", f"`{where}` is a second system message. Join the two into one.")
        elif items:
            raise RowProblem(
                "a late system message", f"`{where}` is a system message after other turns. It can only be the first message."
            )
        else:
            system = content
    return Turns(system or "", tuple(items))


def _role(row: Row, where: str, names: MessageNames | None) -> str:
    name = names.role if names else _either(row, where, OURS.role, SHAREGPT.role)
    roles = names.roles if names else ROLES
    given = text(row.get(name), f"{where}.{name}")
    if given in roles:
        return roles[given]
    if given in CALL_ROLES | RESULT_ROLES:
        raise RowProblem(
            "tools",
            f"`{where}.{name}` is {given!r}. Conversations here have no place for tools. "
            "Leave such rows out, or take the calls as text: --tools-as-text.",
        )
    raise RowProblem(
        "unknown role", f"`{where}.{name}` is {shown(given)}. Known: {', '.join(roles)}. A --columns file can name others."
    )


def _either(row: Row, where: str, one: str, other: str) -> str:
    """Which of two fields a message has; the first where it has neither."""
    if row.get(other) is None:
        return one
    if row.get(one) is not None:
        raise RowProblem(f"both {one} and {other} in a message", f"`{where}` has both `{one}` and `{other}`. Keep one.")
    return other


def _content(row: Row, where: str, names: MessageNames | None) -> tuple[str, float | None]:
    """A message's text, and the weight that its parts agree on."""
    name = names.content if names else _either(row, where, OURS.content, SHAREGPT.content)
    value, field = row.get(name), f"{where}.{name}"
    if not isinstance(value, list):
        return text(value, field), None
    texts, weights = [], set()
    for number, part in enumerate(value):
        at = f"{field}[{number}]"
        if not isinstance(part, dict) or part.get("type", "text") != "text":
            found = shown(part.get("type")) if isinstance(part, dict) else shown(part)
            raise RowProblem("a content part is no text", f"`{at}` is {found}. Only parts of type 'text' can be learned from.")
        stray = sorted(
            key for key in part if part[key] is not None and key not in ("type", "text", "value", *_SWITCHES, "weight")
        )
        if stray:
            raise RowProblem("unknown field in a content part", f"`{at}` has the field {shown(stray[0])}. Remove it.")
        own = "value" if part.get("value") is not None else "text"
        texts.append(text(part.get(own), f"{at}.{own}"))
        weights.add(_weight(part, at, None))
    if len(weights) > 1:
        raise RowProblem(
            "parts of one message have different weights",
            f"the parts of `{field}` have different weights. Here a weight is a whole message's: give all parts the same.",
        )
    return "".join(texts), weights.pop() if weights else None


def _weight(row: Row, where: str, of_parts: float | None) -> float | None:
    """A message's own weight: at most one number, times its switches."""
    if row.get("train_detail") not in _EMPTY:
        raise RowProblem(
            "parts of one message have different weights",
            f"`{where}.train_detail` learns from parts of a message. Here a weight is a whole message's: use `weight`.",
        )
    found = [weight(row[name], f"{where}.{name}") for name in _WEIGHTS if row.get(name) is not None]
    found += [] if of_parts is None else [of_parts]
    if len(found) > 1:
        given = ", ".join(name for name in _WEIGHTS if row.get(name) is not None)
        raise RowProblem("two weights in a message", f"`{where}` has more than one weight ({given}). Keep one.")
    found += [float(switch(row[name], f"{where}.{name}")) for name in _SWITCHES if row.get(name) is not None]
    return math.prod(found) if found else None


def message(role: str, content: str, weight: float | None = None) -> Message:
    """A Message; raises RowProblem where the text is half a character's."""
    try:
        return Message(role=role, content=content, weight=weight)  # type: ignore[arg-type]  # checked, as pydantic does again
    except ValidationError as error:
        raise _refused(error) from error


def conversation(row: Row, items: Iterable[Message], system: str = "") -> Conversation:
    """The turns with the row's own `system`, `condition` and `class`, if it has them. Raises RowProblem where nothing in it
    could be learned."""
    items = tuple(items)
    own = text(row.get("system") or "", "system")
    if own and system:
        raise RowProblem("two system messages", "`system` is given, and a system message too. Keep one.")
    if not items:
        raise RowProblem("no message", "no user's or assistant's message is left. Give at least one of each.")
    if not any(item.role == "assistant" or item.weight for item in items):
        raise RowProblem("no assistant turn", "no message is the assistant's, so there is nothing to learn. Give its answer.")
    try:
        return Conversation.model_validate(
            {
                "items": items,
                "system": own or system,
                "condition": text(row.get("condition") or "", "condition"),
                "class": text(row.get("class") or "", "class"),
            }
        )
    except ValidationError as error:
        raise _refused(error) from error


def _refused(error: ValidationError) -> RowProblem:
    return RowProblem(error.errors(include_url=False)[0]["msg"], f"{first_problem(error)}. Mend the text.")


def as_context(items: Iterable[Message]) -> tuple[Message, ...]:
    """The turns as what stands before an answer: not learned from, unless they say so themselves."""
    return tuple(item if item.weight is not None else item.model_copy(update={"weight": 0.0}) for item in items)


def without_leading_answers(items: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The turns from the first user's on, and a note for each that was dropped."""
    first = next((number for number, item in enumerate(items) if item.role == "user"), len(items))
    return items[first:], (ASSISTANT_FIRST,) * first


def without_open_question(items: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The turns up to the last answer, and a note for each that was dropped."""
    last = max((number for number, item in enumerate(items, start=1) if item.role == "assistant"), default=0)
    return (items[:last], (NO_ANSWER,) * (len(items) - last)) if last else (items, ())
