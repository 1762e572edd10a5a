"""Turn a conversation into tokens and weights, and into the prompt for a reply.

Training and serving call the same function here, so what the model is asked is what it was trained on (invariant 1). Marks
(role prefixes, end of turn) and text are encoded apart, so what a person writes stays text (invariant 2). The Jinja template
that other tools read is generated from the same fields; it can't protect against control tokens in text."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ochat.conversation import NO_CONDITION, Conversation, Message
from ochat.errors import TemplateError
from ochat.tokenizer import Tokenizer

MAX_CONDITION_LENGTH = 128


def is_condition(text: str) -> bool:
    """Whether the text can stand in a prefix, as far as that doesn't depend on the tokenizer."""
    return len(text) <= MAX_CONDITION_LENGTH and text == text.strip() and text.isprintable()


@dataclass(frozen=True)
class TemplateFormat:
    """The marks of a model type, as plain data. `{condition} ` in a prefix is replaced, with its blank, by the condition."""

    user_prefix: str
    assistant_prefix: str
    end_of_turn: str
    # None: the type has no place for a system prompt. "": its text stands bare before the first turn.
    system_prefix: str | None = ""
    default_condition: str = ""  # at inference; in training an absent condition is no condition
    separator: str = ""  # between an end of turn and the next prefix

    @property
    def takes_condition(self) -> bool:
        return "{condition} " in self.assistant_prefix

    def prefix(self, role: str, condition: str) -> str:
        """The mark that opens a turn of `role` ("user" or "assistant") under a condition ("" for none)."""
        prefix = {"user": self.user_prefix, "assistant": self.assistant_prefix}[role]
        return prefix.replace("{condition} ", f"{condition} " if condition else "")


class Run(NamedTuple):
    """Consecutive tokens of one weight: a mark, or a message with its end of turn."""

    ids: list[int]
    weight: float


class ConversationTemplate:
    """A model type's format bound to a tokenizer."""

    def __init__(self, format: TemplateFormat, tokenizer: Tokenizer) -> None:
        self.format = format
        self.tokenizer = tokenizer
        self._prefixes: dict[tuple[str, str, bool], list[int]] = {}
        self.end_of_turn = self._end_of_turn_id()

    def _end_of_turn_id(self) -> int:
        mark = self.format.end_of_turn
        if mark not in self.tokenizer.control_tokens:
            raise TemplateError(
                f"The tokenizer has no token {mark}, which ends a turn in this model type. Choose the model's own type with "
                "--model-type, or give the model the token: ochat model add-tokens."
            )
        return self.tokenizer.control_tokens[mark]

    def check_condition(self, condition: object) -> str:
        """The condition as it will stand in a prefix, "" for none. Raises TemplateError where it can't stand there."""
        if not isinstance(condition, str):
            raise TemplateError(f"The condition is {condition!r}. Give a string.")
        if condition in ("", NO_CONDITION):
            return ""
        if not self.format.takes_condition:
            raise TemplateError(f"This model type takes no condition; found {condition!r}. Leave it out or give 'none'.")
        if not is_condition(condition):
            raise TemplateError(
                f"The condition {condition[:MAX_CONDITION_LENGTH]!r} must be one line of at most {MAX_CONDITION_LENGTH} "
                "characters without outer blanks. Use a short name such as 'GPT4 Correct'."
            )
        tokenizer = self.tokenizer
        for role in ("user", "assistant"):  # encoded in place, since a condition could complete a token with its neighbours
            plain, conditioned = tokenizer.encode_marks(self.format.prefix(role, c) for c in ("", condition))
            if tokenizer.control_ids(plain) != tokenizer.control_ids(conditioned):
                raise TemplateError(f"The condition {condition!r} holds a control token. Use plain words.")
        return condition

    def _prefix(self, role: str, condition: str, first: bool) -> list[int]:
        key = (role, condition, first)
        ids = self._prefixes.get(key)
        if ids is None:
            if len(self._prefixes) > 1_000:  # conditions come from requests too: keep the cache small
                self._prefixes.clear()
            self.check_condition(condition)
            separator = "" if first else self.format.separator
            ids = self._prefixes[key] = self.tokenizer.encode_marks([separator + self.format.prefix(role, condition)])[0]
        return ids

    def _condition_at(self, condition: str, inference: bool) -> str:
        if condition == NO_CONDITION:
            return ""
        return condition or (self.format.default_condition if inference else "")

    def runs(self, conversations: Sequence[Conversation], *, inference: bool = False) -> list[list[Run]]:
        """The runs of each conversation. At inference weights are 0 and the last message, which opens the reply, gets no end of
        turn. Raises TemplateError where a message has no weight or the format has no place for what is there."""
        texts = self.tokenizer.encode_text(
            text for row in conversations for text in (row.system, *(item.content for item in row.items))
        )
        encoded = iter(texts)
        return [self._runs(row, inference, [next(encoded) for _ in range(len(row.items) + 1)]) for row in conversations]

    def _runs(self, row: Conversation, inference: bool, texts: list[list[int]]) -> list[Run]:
        condition = self._condition_at(row.condition, inference)
        head, system = list(self.tokenizer.bos), texts[0]
        if row.system:
            if self.format.system_prefix is None:
                raise TemplateError(
                    "This model type has no system prompt. Put its text at the start of the first user message."
                )
            head += self.tokenizer.encode_marks([self.format.system_prefix])[0] + system + [self.end_of_turn]
        runs = [Run(head, 0.0)] if head else []
        for number, (item, text) in enumerate(zip(row.items, texts[1:], strict=True)):
            first = number == 0 and not row.system
            runs.append(Run(self._prefix(item.role, condition, first), 0.0))
            if inference:
                is_open = number == len(row.items) - 1
                runs.append(Run(text if is_open else [*text, self.end_of_turn], 0.0))
            else:
                runs.append(Run([*text, self.end_of_turn], _training_weight(item)))
        return runs

    def tokens_and_weights(self, conversation: Conversation, *, inference: bool = False) -> tuple[list[int], list[float]]:
        """Token ids and one weight for each, [n] and [n]. A mark weighs 0, a message and its end of turn the message's weight."""
        (runs,) = self.runs([conversation], inference=inference)
        return [id for run in runs for id in run.ids], [run.weight for run in runs for _ in run.ids]

    def prompt(self, conversation: Conversation) -> list[int]:
        """Prompt ids [P] for a reply: the first P training tokens of that conversation under that explicit condition.

        A last assistant message is continued; after a last user message a new reply is opened."""
        if conversation.items[-1].role == "user":
            opened = (*conversation.items, Message(role="assistant", content=""))
            conversation = conversation.model_copy(update={"items": opened})
        return self.tokens_and_weights(conversation, inference=True)[0]

    def sha256(self) -> str:
        """Of the template's text, so that data can tell which one it was made with."""
        return hashlib.sha256(self.jinja().encode()).hexdigest()

    def jinja(self) -> str:
        """A Jinja chat template that gives the same ids for text without control tokens and outer blanks. Takes `condition`."""
        format = self.format
        blank = " " if self.tokenizer.prepends_blank() else ""
        bos = "".join(token for token, id in self.tokenizer.control_tokens.items() if id in self.tokenizer.bos)
        branches = "".join(
            f"{{%- {keyword} message['role'] == '{role}' -%}}{{{{ {_jinja_prefix(format, role)} }}}}"
            for keyword, role in (("if", "user"), ("elif", "assistant"))
        )
        if format.system_prefix is not None:
            # A bare system text opens the sequence, where the tokenizer itself puts the first blank.
            after = blank if format.system_prefix else ""
            branches += (
                f"{{%- elif message['role'] == 'system' and loop.first -%}}{{{{ {_quote(format.system_prefix + after)} }}}}"
            )
        return (
            "{%- if messages[0]['role'] == 'system' and not messages[0]['content'] -%}"
            "{%- set messages = messages[1:] -%}{%- endif -%}"
            f"{{%- set condition = condition | default('', true) or {_quote(format.default_condition)} -%}}"
            f"{{%- set prefix = '' if condition in ('', '{NO_CONDITION}') else condition ~ ' ' -%}}"
            f"{{{{ {_quote(bos)} }}}}"
            "{%- for message in messages -%}"
            f"{{%- if not loop.first -%}}{{{{ {_quote(format.separator)} }}}}{{%- endif -%}}"
            f"{branches}"
            "{%- else -%}{{ raise_exception('Unsupported role or place: ' ~ message['role']) }}{%- endif -%}"
            f"{{%- if message['content'] and message['role'] != 'system' -%}}{{{{ {_quote(blank)} }}}}{{%- endif -%}}"
            f"{{{{ message['content'] ~ {_quote(format.end_of_turn)} }}}}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{ {_quote(format.separator)} ~ {_jinja_prefix(format, 'assistant')} }}}}{{%- endif -%}}"
        )


def _training_weight(item: Message) -> float:
    if item.weight is not None:
        return item.weight
    if item.role == "assistant":
        raise TemplateError("assistant message has no `weight`. Give 1.0 to learn from it, 0.0 to skip it.")
    return 0.0


def _quote(text: str) -> str:
    """A Jinja string literal."""
    return json.dumps(text)


def _jinja_prefix(format: TemplateFormat, role: str) -> str:
    """A Jinja expression for a role's prefix, the variable `prefix` standing for the condition and its blank."""
    before, found, after = {"user": format.user_prefix, "assistant": format.assistant_prefix}[role].partition("{condition} ")
    return f"{_quote(before)} ~ prefix ~ {_quote(after)}" if found else _quote(before)
