"""`ochat keys create`: make a key, print it once, and keep its hash."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ochat.errors import OchatError
from ochat.serving.keys import Key, change_keys, hashed, is_given_name, make_key


@dataclass(frozen=True)
class Options:
    """A key for one client. A running server reads the file again by itself."""

    name: Annotated[str, tyro.conf.Positional]
    """whose key it is; the usage log and the metrics tell it"""
    file: Path
    """the keys' file, which is made if it's absent"""
    requests_per_minute: int | None = None
    """requests in any sixty seconds"""
    tokens_per_minute: int | None = None
    """tokens of prompts and replies in any sixty seconds"""
    concurrent: int | None = None
    """requests at once"""
    conditions: tuple[str, ...] = ()
    """the conditions that it may ask under, instead of the server's"""
    default_condition: str = ""
    """the condition of its requests that name none"""
    metrics: bool = False
    """let it read /metrics, which tells every key's name and use"""


def main(options: Options) -> None:
    """Add a key to the file, and print it."""
    if is_given_name(options.name):
        raise OchatError(
            f"The name {options.name!r} is one that keys of the environment and of --api-keys get. Choose another."
        )
    text = make_key()
    try:
        key = Key(
            name=options.name,
            sha256=hashed(text),
            created=time.strftime("%Y-%m-%d"),
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            concurrent=options.concurrent,
            conditions=options.conditions,
            default_condition=options.default_condition,
            metrics=options.metrics,
        )
    except ValueError as error:
        raise OchatError(
            f"The key {options.name!r} can't be made. A name has letters, digits and _.@-; a limit is 1 or more."
        ) from error

    def with_key(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(other.name == key.name for other in keys):
            raise OchatError(f"{options.file} has a key named {key.name}. Choose another name, or revoke it first.")
        return *keys, key

    change_keys(options.file, with_key)
    print(text)
