"""`ochat keys revoke`: take a key out of the file; a running server refuses it from the next second on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ochat.errors import OchatError
from ochat.serving.keys import read_keys, write_keys


@dataclass(frozen=True)
class Options:
    """Its replies that are being streamed end too."""

    name: Annotated[str, tyro.conf.Positional]
    """whose key"""
    file: Path
    """the keys' file"""


def main(options: Options) -> None:
    """Write the file without the key."""
    keys = read_keys(options.file)
    left = [key for key in keys if key.name != options.name]
    if len(left) == len(keys):
        names = ", ".join(key.name for key in keys) or "none"
        raise OchatError(f"{options.file} has no key named {options.name}. It has: {names}.")
    write_keys(options.file, left)
    print(f"{options.name} is revoked. Left: {', '.join(key.name for key in left) or 'no key, so nobody may ask'}.")
