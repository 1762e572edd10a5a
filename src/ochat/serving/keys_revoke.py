"""`ochat keys revoke`: take a key out of the file; a running server refuses it from the next second on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ochat.errors import OchatError
from ochat.serving.keys import Key, change_keys, read_keys


@dataclass(frozen=True)
class Options:
    """Its replies that are being streamed end too."""

    name: Annotated[str, tyro.conf.Positional]
    """whose key"""
    file: Path
    """the keys' file"""


def main(options: Options) -> None:
    """Write the file without the key."""
    left: list[str] = []

    def without_key(keys: tuple[Key, ...]) -> list[Key]:
        kept = [key for key in keys if key.name != options.name]
        if len(kept) == len(keys):
            names = ", ".join(key.name for key in keys) or "none"
            raise OchatError(f"{options.file} has no key named {options.name}. It has: {names}.")
        left.extend(key.name for key in kept)
        return kept

    read_keys(options.file)  # where there's none, that is told, and nothing made
    change_keys(options.file, without_key)
    print(f"{options.name} is revoked. Left: {', '.join(left) or 'no key, so nobody may ask'}.")
