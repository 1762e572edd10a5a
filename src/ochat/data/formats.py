"""The row formats that can be imported: for each, a rule that knows it and a pure function to our Conversation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ochat.conversation import Conversation, Message, Weight, first_problem, parse_conversation
from ochat.errors import DataError


class _OpenAIMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: str
    content: str
    weight: Weight | None = None
    name: str | None = None  # a label of the API's that models don't read


class _OpenAIRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    messages: list[_OpenAIMessage] = Field(min_length=1)


def _from_messages(row: Mapping[str, object], place: str) -> Conversation:
    """OpenAI's fine-tuning rows: system or developer first, then user and assistant; `weight` 0 skips a message."""
    try:
        messages = _OpenAIRow.model_validate(row).messages
    except ValidationError as error:
        raise DataError(
            f"{place}: {first_problem(error)}. Expected OpenAI's {{'messages': [{{'role', 'content'}}]}}."
        ) from error
    system = []
    while messages and messages[0].role in ("system", "developer"):
        system.append(messages.pop(0).content)
    for message in messages:
        if message.role not in ("user", "assistant"):
            raise DataError(
                f"{place}: a message's role is {message.role!r}. Only user and assistant may follow the system prompt."
            )
    items = [{"role": m.role, "content": m.content, "weight": m.weight} for m in messages]
    return parse_conversation({"items": items, "system": "\n".join(system)}, place)


@dataclass(frozen=True)
class RowFormat:
    name: str
    detect: Callable[[Mapping[str, object]], bool]
    convert: Callable[[Mapping[str, object], str], Conversation]


FORMATS = (
    RowFormat("ochat items", lambda row: "items" in row, parse_conversation),
    RowFormat("OpenAI messages", lambda row: "messages" in row, _from_messages),
)


def detect_format(row: object, place: str) -> RowFormat:
    """The format of a row; raises DataError, naming the row's fields, where none fits."""
    if isinstance(row, dict):
        for format in FORMATS:
            if format.detect(row):
                return format
    found = f"the fields {', '.join(row) or 'of an empty object'}" if isinstance(row, dict) else f"a {type(row).__name__}"
    raise DataError(f'{place}: found {found}. Give rows with "items" (ours) or "messages" (OpenAI\'s).')


def with_class(row: Conversation, condition: str | None, weight: float, class_name: str | None) -> Conversation:
    """The row as one of a class: its condition and name replaced where given, its messages' weights (absent: an
    assistant's 1, a user's 0) multiplied by the class's weight, so that what is not to be learned from stays so."""

    def weighted(item: Message) -> Message:
        own = float(item.role == "assistant") if item.weight is None else item.weight
        return item.model_copy(update={"weight": weight * own})

    condition = row.condition if condition is None else condition
    return row.model_copy(
        update={
            "items": tuple(map(weighted, row.items)),
            "condition": condition,
            "class_name": class_name or row.class_name or condition,
        }
    )
