"""The row formats that can be imported: for each, a rule that knows it and a pure function to our Conversations.

Where several rules fit a row, the first in the table decides. So a format stands above those whose fields it adds to: a pair
of answers or a label above the messages or prompt that it judges, UltraChat's repeated prompt above plain messages."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ochat.conversation import MAX_WEIGHT, Conversation, Message
from ochat.data.instruction_formats import asked_and_answered, from_goat, instructed, is_goat
from ochat.data.message_formats import (
    CHATML_START,
    from_chatml,
    from_list,
    from_pairs,
    from_ultrachat,
    from_ultrachat_data,
)
from ochat.data.preference_formats import from_label, from_pair, from_rejected_response
from ochat.data.problem import RowProblem, shown
from ochat.data.turns import MESSAGE_FIELDS, TOOL_LISTS, Converted, Row
from ochat.errors import OchatError

OWN_FIELDS = frozenset({"system", "condition", "class"})  # ours may stand in a row of any format
# What data sets say about a row beside the conversation. It's left out and told. A score isn't here: whoever has one should
# hear that it's left out before they train without it.
METADATA = frozenset(
    "id _id idx index uid uuid hash source dataset subset split model model_name lang language category type topic tags title "
    "license licence url views avatarUrl timestamp created created_at updated_at conversation_id conversation_hash message_id "
    "prompt_id question_id original_question turn num_turns num_tokens tokens token_count __index_level_0__".split()
)
MESSAGE_METADATA = frozenset("name id message_id timestamp created_at model lang language".split())

# Of a row, where --allow-extra-keys would lose what its writer meant.
_HINTS = {
    "weight": " A --columns file takes a row's weight (`weight: weight`).",
    **dict.fromkeys(("score", "rating", "quality"), " --classes makes classes of it (a rule by score)."),
}


@dataclass(frozen=True)
class RowFormat:
    name: str
    detect: Callable[[Row], bool]
    convert: Callable[[Row], Converted]
    """raises RowProblem"""
    fields: frozenset[str]
    """of a row, that `convert` reads"""
    message_fields: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """of the messages, by the row's field that lists them"""
    metadata: frozenset[str] = METADATA
    """of a row, that may be left out"""
    has_classes: bool = False
    """its rows have classes and conditions of their own"""


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(name in row for name in names)


def _listing(listing: str, *names: str) -> Callable[[Row], bool]:
    """Whether the row lists objects, one of which has a field of one of these names."""

    def detect(row: Row) -> bool:
        found = row.get(listing)
        return isinstance(found, list) and any(
            isinstance(one, dict) and one.get(name) is not None for one in found for name in names
        )

    return detect


def _lists_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _is_chatml(row: Row) -> bool:
    found = row.get("text")
    return isinstance(found, str) and CHATML_START in found


def _listed(name: str, listing: str, detect: Callable[[Row], bool], convert: Callable[[Row], Converted]) -> RowFormat:
    fields = OWN_FIELDS | {listing, *TOOL_LISTS}
    return RowFormat(name, detect, convert, fields, {listing: MESSAGE_FIELDS})


def _pairs(name: str, question: str, answer: str) -> RowFormat:
    fields = {"conversation": frozenset({question, answer})}
    return RowFormat(
        name, _listing("conversation", question), from_pairs(question, answer), OWN_FIELDS | {"conversation"}, fields
    )


def _in_columns(question: str, answer: str) -> RowFormat:
    fields = OWN_FIELDS | {question, answer, "system_prompt", "history"}
    messages = {question: MESSAGE_FIELDS, answer: MESSAGE_FIELDS}
    convert = asked_and_answered(question, answer)
    return RowFormat(f"{question}/{answer}", _has(question, answer), convert, fields, messages)


_PAIR = frozenset({"chosen", "rejected", "prompt", "question", "instruction", "input", "messages", "conversations", "system"})
_PAIR_MESSAGES = dict.fromkeys(("prompt", "messages", "conversations", "chosen", "rejected"), MESSAGE_FIELDS)
_LABEL = frozenset({"label", "messages", "conversations", "prompt", "completion", "system", *TOOL_LISTS})
_LABEL_MESSAGES = dict.fromkeys(("messages", "conversations", "prompt", "completion"), MESSAGE_FIELDS)
_INSTRUCTION = OWN_FIELDS | {"instruction", "input", "context", "history"}
_FROM_MESSAGES = from_list("messages")

FORMATS = (
    RowFormat("ochat items", _has("items"), from_list("items"), OWN_FIELDS | {"items"}, {"items": MESSAGE_FIELDS}),
    RowFormat(
        "chosen/rejected",
        _has("chosen", "rejected"),
        from_pair,
        _PAIR,
        _PAIR_MESSAGES,
        METADATA | {"score_chosen", "score_rejected"},
        has_classes=True,
    ),
    RowFormat(
        "messages and rejected_response",
        _has("messages", "rejected_response"),
        from_rejected_response,
        frozenset({"messages", "rejected_response", "system"}),
        {"messages": MESSAGE_FIELDS, "rejected_response": MESSAGE_FIELDS},
        has_classes=True,
    ),
    RowFormat("KTO messages and label", _has("messages", "label"), from_label, _LABEL, _LABEL_MESSAGES, has_classes=True),
    RowFormat(
        "KTO conversations and label", _has("conversations", "label"), from_label, _LABEL, _LABEL_MESSAGES, has_classes=True
    ),
    RowFormat(
        "KTO prompt/completion and label",
        _has("prompt", "completion", "label"),
        from_label,
        _LABEL,
        _LABEL_MESSAGES,
        has_classes=True,
    ),
    RowFormat(
        "UltraChat prompt and messages",
        _has("prompt", "messages"),
        from_ultrachat,
        OWN_FIELDS | {"prompt", "messages"},
        {"messages": MESSAGE_FIELDS},
    ),
    _listed("LLaMA-Factory messages", "messages", _listing("messages", "loss_weight"), _FROM_MESSAGES),
    _listed("ms-swift messages", "messages", _listing("messages", "loss", "loss_scale"), _FROM_MESSAGES),
    _listed("axolotl messages", "messages", _listing("messages", "train", "train_detail"), _FROM_MESSAGES),
    _listed("OpenAI messages", "messages", _has("messages"), _FROM_MESSAGES),
    _listed(
        "ShareGPT conversations", "conversations", _has("conversations"), from_list("conversations", drop_leading_answers=True)
    ),
    _pairs("LDJnr input/output pairs", "input", "output"),
    _pairs("ms-swift human/assistant pairs", "human", "assistant"),
    _listed("conversation messages", "conversation", _has("conversation"), from_list("conversation")),
    RowFormat(
        "UltraChat data",
        lambda row: "data" in row and not _lists_objects(row["data"]),
        from_ultrachat_data,
        OWN_FIELDS | {"data"},
    ),
    RowFormat("ChatML text", _is_chatml, from_chatml, OWN_FIELDS | {"text"}),
    _in_columns("prompt", "completion"),
    RowFormat(
        "goat arithmetic", is_goat, from_goat, OWN_FIELDS | {"instruction", "output"}, metadata=METADATA | {"input", "answer"}
    ),
    RowFormat(
        "Alpaca instruction/output",
        _has("instruction", "output"),
        instructed("output"),
        _INSTRUCTION | {"output"},
        metadata=METADATA | {"text"},  # all of the row again, in the words of Alpaca's prompt
    ),
    RowFormat("instruction/response", _has("instruction", "response"), instructed("response"), _INSTRUCTION | {"response"}),
    _in_columns("question", "answer"),
    _in_columns("question", "response"),
    _in_columns("query", "response"),
    _in_columns("prompt", "response"),
)


def format_named(name: str) -> RowFormat:
    """The format of this name, whatever its case. Raises OchatError, naming near ones, for none."""
    names = {format.name.lower(): format for format in FORMATS}
    if name.lower() in names:
        return names[name.lower()]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4) or list(names)
    raise OchatError(f"Unknown --format {shown(name)}. Did you mean: {', '.join(names[one].name for one in near)}?")


def detect_format(row: object, formats: tuple[RowFormat, ...] = FORMATS) -> RowFormat:
    """The first format that fits a row; raises RowProblem, naming the row's fields, where none does."""
    if isinstance(row, dict):
        # Parquet fills what a row doesn't have with null. Where all of a format is null, that is what should be told.
        for part in (
            ({name: value for name, value in row.items() if value is not None}, row) if None in row.values() else (row,)
        ):
            for format in formats:
                if format.detect(part):
                    return format
        if within := [name for name, value in row.items() if _lists_objects(value)]:
            raise RowProblem(
                "no known format, with objects in it",
                f"`{shown(within[0])[1:-1]}` lists objects in a row of no known format. If those are the rows, give that list alone, as a "
                "JSON array; else say what the columns are with --columns FILE.",
            )
        raise RowProblem("no known format", _unknown_fields(tuple(row), formats[0].name if len(formats) == 1 else ""))
    if isinstance(row, list) and row and all(isinstance(part, list) for part in row):
        raise RowProblem(
            "tokens, not text",
            "these are lists, such as the tokens of the original's openchat.train.json. Import the conversations that they were made of, "
            "such as sharegpt_gpt4.json.",
        )
    raise RowProblem("a row is no object", f"found {shown(row)}. Give an object with fields, such as `messages`.")


@lru_cache(maxsize=1000)
def _unknown_fields(names: tuple[str, ...], wanted: str) -> str:
    known = set().union(*(format.fields for format in FORMATS)) - set(names)
    near = [f"`{match}`" for name in names for match in difflib.get_close_matches(name, known, n=1, cutoff=0.75)]
    found = ", ".join(f"`{shown(name)[1:-1]}`" for name in names[:10]) or "no field"
    hint = f" Did you mean {' and '.join(near)}?" if near else ""
    if wanted:
        return f"found {found}, which isn't {wanted}.{hint} Check the file, and what --format or --set says."
    return f"found {found}, which is no known format.{hint} Say what its columns are with --columns FILE."


@lru_cache(maxsize=1000)
def _near(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else ""


def known_part(row: Row, format: RowFormat, *, allow_extra_keys: bool = False) -> tuple[Row, list[str]]:
    """The fields of the row and of its messages that the format reads, and the names of the others. Raises RowProblem at one
    that isn't known to be without meaning, unless all are allowed. A null says nothing, so it may be anywhere."""
    left_out: list[str] = []

    def kept(part: Row, fields: frozenset[str], metadata: frozenset[str], place: str) -> Row:
        extra = part.keys() - fields
        if not extra:
            return part
        for name in sorted(extra):
            if part[name] is None:
                continue
            if not (allow_extra_keys or name in metadata):
                where = f"unknown field {shown(name)}" + (f" in `{place}`" if place else "")
                hint = _near(name, fields) or ("" if place else _HINTS.get(name, ""))
                raise RowProblem(f"unknown field {shown(name)}", f"{where}.{hint} --allow-extra-keys leaves it out.")
            left_out.append(f"{place.split('[')[0]}[].{name}" if place else name)
        return {name: value for name, value in part.items() if name in fields}

    found = kept(row, format.fields, format.metadata, "")
    for listing, fields in format.message_fields.items():
        messages = found.get(listing)
        if not isinstance(messages, list | dict):
            continue
        several = messages if isinstance(messages, list) else [messages]
        parts = [
            kept(one, fields, MESSAGE_METADATA, f"{listing}[{number}]") if isinstance(one, dict) else one
            for number, one in enumerate(several)
        ]
        if any(part is not one for part, one in zip(parts, several, strict=True)):
            found = {**found, listing: parts if isinstance(messages, list) else parts[0]}
    return found, left_out


def with_class(row: Conversation, condition: str | None, weight: float, class_name: str | None) -> Conversation:
    """The row as one of a class: its condition and name replaced where given, its messages' weights (absent: an
    assistant's 1, a user's 0) multiplied by the class's weight, so that what is not to be learned from stays so. Raises
    RowProblem where a weight becomes too large."""

    def weighted(item: Message) -> Message:
        own = float(item.role == "assistant") if item.weight is None else item.weight
        if weight * own > MAX_WEIGHT:
            raise RowProblem(
                "a weight is out of range", f"a weight of {own:g} times {weight:g} is over {MAX_WEIGHT:g}. Lower it."
            )
        return item.model_copy(update={"weight": weight * own})

    condition = row.condition if condition is None else condition
    return row.model_copy(
        update={
            "items": tuple(map(weighted, row.items)),
            "condition": condition,
            "class_name": class_name or row.class_name or condition,
        }
    )
