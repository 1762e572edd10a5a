"""The gateway's options: each is a flag of `ochat serve`, and under plain vLLM, which lacks the flags, has its default."""

import argparse
from argparse import Namespace
from dataclasses import dataclass, field, fields
from typing import Any


def _flag(default: Any, help: str, **more: Any) -> Any:  # Any: dataclasses.field claims its default's type
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class GatewayOptions:
    conditions: tuple[str, ...] = _flag(
        (), "the conditions that requests may name, instead of the model type's own", nargs="+", metavar="NAME"
    )
    default_condition: str = _flag("", "the condition of a request that names none, instead of the type's", metavar="NAME")
    allow_any_condition: bool = _flag(False, "let requests name conditions that aren't known")
    max_body_mb: float = _flag(4.0, "refuse longer bodies", type=float, metavar="MB")
    max_choices: int = _flag(16, "replies that one request may ask for", type=int, metavar="N")
    max_reply_tokens: int | None = _flag(None, "tokens that a reply may have, also where a request names none", type=int)

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1_000_000)


def add_flags(group: argparse._ArgumentGroup) -> None:
    """One flag an option."""
    for option in fields(GatewayOptions):
        given = dict(option.metadata)
        if option.default is False:
            given["action"] = "store_true"
        group.add_argument(f"--{option.name.replace('_', '-')}", default=option.default, **given)


def options_of(args: Namespace) -> GatewayOptions:
    """The options in a server's arguments."""
    given: dict[str, Any] = {}
    for option in fields(GatewayOptions):
        value = getattr(args, option.name, option.default)
        given[option.name] = tuple(value) if isinstance(value, list) else value
    return GatewayOptions(**given)
