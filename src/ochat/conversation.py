"""A conversation as people write it: one JSON object a line.

This module checks rows and says where a bad one is. It knows nothing of tokens; `template.py` turns a conversation into them."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from ochat.errors import DataError

# Asks for a prompt with no condition at all. An absent or empty condition is the type's default at inference.
NO_CONDITION = "none"


def _whole(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can write half of a character, which no tokenizer reads
        raise PydanticCustomError("half_character", "half of a character (a lone surrogate such as \\ud83d)") from error
    return text


def _some(items: tuple["Message", ...]) -> tuple["Message", ...]:
    if not items:
        raise PydanticCustomError("no_message", "there is no message")
    return items


Text = Annotated[str, AfterValidator(_whole)]
# Strict: `true` or "0.5" is a slip. Bounded: the data set stores float32, where a weight beyond 3e38 is infinite.
MAX_WEIGHT = 1e6
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False, strict=True)]


class Message(BaseModel):
    """What one side said, and how much its tokens count in the loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["user", "assistant"]
    content: Text
    weight: Weight | None = None


class Conversation(BaseModel):
    """Messages with the class of their source: its condition goes into the prompt, its weight into the loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    items: Annotated[tuple[Message, ...], AfterValidator(_some)]
    condition: Text = ""
    system: Text = ""
    # The source's name in reports. Two classes may share a condition, so it is a field of its own.
    class_name: Text = Field(default="", alias="class")

    def to_json(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(self.model_dump(by_alias=True, exclude_defaults=True), ensure_ascii=False)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a row, in one line: `items.0.weight: Input should be …`."""
    details = error.errors(include_url=False)
    field = ".".join(str(part) for part in details[0]["loc"])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    problem = details[0]["msg"].replace("valid tuple", "list")  # JSON has lists
    return f"{field + ': ' if field else ''}{problem}{more}"


def found_instead(error: ValidationError) -> str:
    """A sentence, with a blank before it, of what stands in the first problem's place; nothing where that is a whole message or row."""
    first = error.errors(include_url=False)[0]
    value = first["input"]
    is_short = (
        value is None
        or isinstance(value, float)
        or (isinstance(value, int) and abs(value) < 10**40)  # Python doesn't print very long ones
        or (isinstance(value, str) and len(value) <= 40)
    )
    return f" Found {value!r}." if is_short and first["type"] not in ("missing", "extra_forbidden") else ""


def read_json_lines(path: Path) -> Iterator[tuple[str, object]]:
    """Yield `(place, value)` for each line, place being `file:line`; `.gz` is read too. Raises DataError at a line that
    isn't JSON or isn't UTF-8, at an empty line, and where the file can't be read."""
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}:{number}"
        yield place, parse_json(line, place)


def read_lines(path: Path) -> Iterator[bytes]:
    """The file's lines as they are; `.gz` is read too. Raises DataError where the file can't be read."""
    if path.suffix == ".zst":  # as text it would be bad UTF-8, which helps nobody
        raise DataError(f"{path}: .zst is read by `ochat data import` alone. Unpack it, or compress as .gz.")
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                number += 1
                yield line
    except (OSError, EOFError, zlib.error) as error:
        place = f"{path}:{number}" if number else str(path)
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{place}: can't be read ({reason}). Check the path and the file.") from error


def parse_json(line: bytes, place: str) -> object:
    """The value of a line; `place` (`file:line`) opens the DataError's message."""
    if not line.strip():
        raise DataError(f"{place}: the line is empty. Remove it; each line is one JSON object.")
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg}, column {error.colno}). Give one JSON object a line.") from error
    except ValueError as error:  # Python's own limit on the digits of a number
        raise DataError(f"{place}: a number is too long. Give weights such as 1.0.") from error
    except RecursionError as error:
        raise DataError(f"{place}: the JSON is nested too deep. Give one flat conversation a line.") from error


def read_conversation(line: bytes, place: str) -> Conversation:
    """A line's Conversation; `place` (`file:line`) opens the DataError's message."""
    try:
        return Conversation.model_validate_json(line)  # half the time of reading the JSON first
    except ValidationError:
        return parse_conversation(parse_json(line, place), place)  # says what is wrong


def parse_conversation(value: object, place: str) -> Conversation:
    """A checked Conversation; `place` (`file:line`) opens the DataError's message."""
    try:
        return Conversation.model_validate(value)
    except ValidationError as error:
        raise DataError(
            f"{place}: {first_problem(error)}.{found_instead(error)} A row is "
            '{"items": [{"role": "user"|"assistant", "content", "weight"}], "condition", "system", "class"}; '
            "other formats go through `ochat data import`."
        ) from error


def read_conversations(path: Path) -> Iterator[tuple[str, Conversation]]:
    """Yield `(place, conversation)` for each line of a Conversation jsonl; raises DataError at the first bad line."""
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}:{number}"
        yield place, read_conversation(line, place)
