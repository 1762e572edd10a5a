"""The gateway's options: each is a flag of `ochat serve`, and under plain vLLM, which lacks the flags, has its default."""

import argparse
from argparse import Namespace
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ochat.errors import OchatError

# What the launcher leaves in vLLM's arguments for the gateway: keys by their hashes, and a secret for all API processes.
KEYS_ARGUMENT = "ochat_keys"
SECRET_ARGUMENT = "ochat_secret"
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


# Any, since dataclasses.field claims its default's type. Where an annotation isn't a plain type, ruff takes the call for a mutable
# default: hence `noqa: RUF009` below.
def _flag(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class GatewayOptions:
    """What the gateway is told. Raises OchatError for a number that isn't above 0."""

    conditions: tuple[str, ...] = _flag(
        (), "the conditions that requests may name, instead of the model type's own", nargs="+", metavar="NAME"
    )
    default_condition: str = _flag("", "the condition of a request that names none, instead of the type's", metavar="NAME")
    allow_any_condition: bool = _flag(False, "let requests name conditions that aren't known")
    max_body_mb: float = _flag(4.0, "refuse longer bodies", type=float, metavar="MB")
    max_choices: int = _flag(16, "replies that one request may ask for", type=int, metavar="N")
    max_reply_tokens: int | None = _flag(None, "tokens that a reply may have, also where a request names none", type=int)
    max_in_flight: int | None = _flag(
        None, "replies in flight, above which requests get 429; the engine's --max-num-seqs if left out", type=int
    )
    request_timeout: float = _flag(600.0, "seconds after which a reply is cut off", type=float, metavar="SECONDS")
    share_prefix_cache: bool = _flag(False, "let keys share cached prompts, by whose speed one can tell what another has asked")
    api_key_file: Path | None = _flag(None, "keys that `ochat keys create` wrote; read again when they change", type=Path)  # noqa: RUF009
    usage_log: Path | None = _flag(None, "a line of JSON for each request: key, condition, tokens, status", type=Path)  # noqa: RUF009
    request_log: Path | None = _flag(None, "prompts and replies, for its owner's eyes alone", type=Path)  # noqa: RUF009
    log_max_mb: float = _flag(100.0, "size at which --log-file and --request-log are rotated", type=float, metavar="MB")
    log_max_count: int = _flag(5, "old files of theirs that are kept", type=int, metavar="N")
    i_know_this_is_open: bool = _flag(False, "listen beyond this machine though no key is asked for")

    def __post_init__(self) -> None:
        for option in fields(self):
            number = getattr(self, option.name)
            if isinstance(number, int | float) and number is not False and number <= 0:
                raise OchatError(f"--{option.name.replace('_', '-')} is {number:g}. Give more than 0.")

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
