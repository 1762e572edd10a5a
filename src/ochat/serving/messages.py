"""OpenAI's chat messages as a Conversation.

vLLM's own parsing fetches image addresses even for a model that reads text alone, and lets some malformed messages end in a
500. Here whatever the template has no place for is a ValueError, which the server answers with 400."""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from ochat.conversation import Conversation, first_problem

_ROLES = ("user", "assistant")
_SYSTEM_ROLES = ("system", "developer")
# The Responses API names them by their direction.
_TEXT_PARTS = ("text", "input_text", "output_text")
# Fields that don't change what the message says; the last four come with the Responses API's items.
_FIELDS = ("role", "content", "type", "id", "status", "phase")
_SHOWN = 100  # characters of what a message can't be, in the error


def _text(content: object, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Iterable) or isinstance(content, Mapping):
        raise ValueError(f"{place}.content is {content!r:.{_SHOWN}}. Give a string, or a list of text parts.")
    try:
        parts = list(content)
    except ValidationError as error:  # vLLM compares parts with those that it knows as they are read
        raise ValueError(f"{place}.content has a part of no known type. This model reads text alone: leave it out.") from error
    texts: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind not in _TEXT_PARTS:
            raise ValueError(
                f"{place}.content has a part of type {kind!r:.{_SHOWN}}. This model reads text alone: leave the part out."
            )
        if not isinstance(part.get("text"), str):
            raise ValueError(f"{place}.content has a text part without a string `text`. Give one.")
        texts.append(part["text"])
    return "\n".join(texts)


def read_messages(messages: Sequence[Mapping[str, object]], condition: str) -> Conversation:
    """The conversation of a request's messages; system messages at the start are joined by a newline. Raises ValueError."""
    systems: list[str] = []
    items: list[dict[str, object]] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise ValueError(f'{place} is {message!r:.{_SHOWN}}. Give {{"role": "user", "content": "…"}}.')
        unknown = [field for field, value in message.items() if value and field not in _FIELDS]
        if unknown:
            raise ValueError(
                f"{place} has `{unknown[0]:.{_SHOWN}}`, which this model's template has no place for. Leave it out."
            )
        role = message.get("role")
        if role in _SYSTEM_ROLES and items:
            raise ValueError(
                f"{place} has role {role!r:.{_SHOWN}} after the conversation began. Put it before the first user message."
            )
        text = _text(message.get("content"), place)
        if role in _SYSTEM_ROLES:
            systems.append(text)
        elif role in _ROLES:
            items.append({"role": role, "content": text})
        else:
            raise ValueError(
                f"{place} has role {role!r:.{_SHOWN}}. This model's template knows user, assistant and, at the start, system."
            )
    if not items:
        raise ValueError("messages has no user message. Give at least one.")
    try:
        return Conversation.model_validate({"items": items, "condition": condition, "system": "\n".join(systems)})
    except ValidationError as error:
        raise ValueError(f"messages: {first_problem(error)}. Send whole text.") from error
