"""`--columns FILE`: what the columns of a data set are called, where no known format has those names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ochat.conversation import Conversation, Message, first_problem
from ochat.data.formats import RowFormat
from ochat.data.problem import RowProblem, shown
from ochat.data.turns import (
    MESSAGE_FIELDS,
    NAME_FIELDS,
    ROLES,
    Converted,
    MessageNames,
    Row,
    conversation,
    message,
    text,
    turns,
    value_of,
    weight,
)
from ochat.errors import OchatError

EXAMPLE = "`prompt: COLUMN` and `answer: COLUMN`, or `messages: COLUMN`"


class Columns(BaseModel):
    """The file's fields; each names a column unless it says otherwise; but for `messages`, `a.b` is b within a."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str | tuple[str, ...] | None = None
    """several columns are joined, a line each; an empty one is left out"""
    answer: str | dict[str, str] | None = None
    """several columns are as many answers to the prompt, each with the name of its class, which is its condition too"""
    messages: str | None = None
    role: str = "role"
    """the field of a message"""
    content: str = "content"
    """the field of a message"""
    roles: dict[str, Literal["user", "assistant", "system"]] = {}
    """the data set's words for roles"""
    system: str | None = None
    condition: str | None = None
    class_name: str | None = Field(default=None, alias="class")
    weight: str | None = None
    """of the assistant's messages that have none of their own"""

    @model_validator(mode="after")
    def _whole(self) -> "Columns":
        if bool(self.messages) == bool(self.prompt and self.answer) or bool(self.prompt) != bool(self.answer):
            raise PydanticCustomError("columns", f"name either {EXAMPLE}")
        if isinstance(self.answer, dict) and (self.condition or self.class_name):
            raise PydanticCustomError("columns", "answers by class leave no place for `condition` and `class`")
        return self


def read_columns(path: Path) -> RowFormat:
    """The format that a file describes, which fits any row. Raises OchatError where the file can't be used."""
    try:
        columns = Columns.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise OchatError(f"{path} can't be read ({error.strerror}). Name a YAML file after --columns.") from error
    except ValidationError as error:
        known = ", ".join(field.alias or name for name, field in Columns.model_fields.items())
        raise OchatError(f"{path}: {first_problem(error)}. Known fields: {known}.") from error
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise OchatError(f"{path} can't be read as YAML ({reason}). Write {EXAMPLE}.") from error
    prompts = (columns.prompt,) if isinstance(columns.prompt, str) else columns.prompt or ()
    answers = (columns.answer,) if isinstance(columns.answer, str) else columns.answer or ()
    others = (columns.messages, columns.system, columns.condition, columns.class_name, columns.weight)
    named = [name for name in (*prompts, *answers, *others) if name]
    read = frozenset(named) | {name.partition(".")[0] for name in named}
    names = MessageNames(columns.role, columns.content, {**ROLES, **columns.roles})
    listing = {columns.messages: MESSAGE_FIELDS - NAME_FIELDS | {columns.role, columns.content}} if columns.messages else {}

    def convert(row: Row) -> Converted:
        return Converted(_conversations(row, columns, prompts, names))

    return RowFormat(
        f"columns of {path}", lambda row: True, convert, read, listing, has_classes=isinstance(columns.answer, dict)
    )


def _conversations(row: Row, columns: Columns, prompts: tuple[str, ...], names: MessageNames) -> tuple[Conversation, ...]:
    own = {
        field: text(value_of(row, column), column) if column else ""
        for field, column in (("system", columns.system), ("condition", columns.condition), ("class", columns.class_name))
    }
    of_row = _number(value_of(row, columns.weight), columns.weight) if columns.weight else None
    if columns.messages:
        found = turns(row.get(columns.messages), columns.messages, names)
        return (conversation(own, _weighted(found.items, of_row), found.system),)
    parts = [text(value_of(row, column), column) for column in prompts]
    asked = message("user", "\n".join(part for part in parts if part))
    answers: Mapping[str, str] = columns.answer if isinstance(columns.answer, dict) else {str(columns.answer): ""}
    return tuple(
        conversation(
            {**own, "condition": name or own["condition"], "class": name or own["class"]},
            _weighted((asked, message("assistant", text(value_of(row, column), column))), of_row),
        )
        for column, name in answers.items()
    )


def _number(value: object, column: str) -> float:
    if isinstance(value, str):  # CSV has only text
        try:
            value = float(value)
        except ValueError as error:
            raise RowProblem("a weight is no number", f"`{column}` is {shown(value)}. Give a number, such as 1.0.") from error
    return weight(value, column)


def _weighted(items: tuple[Message, ...], of_row: float | None) -> tuple[Message, ...]:
    """The turns, with the row's weight on each answer that has none."""
    if of_row is None:
        return items
    return tuple(
        item if item.weight is not None or item.role == "user" else item.model_copy(update={"weight": of_row}) for item in items
    )
