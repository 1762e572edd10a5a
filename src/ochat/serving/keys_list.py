"""`ochat keys list`: whose keys there are, and what they may do."""

from dataclasses import dataclass
from pathlib import Path

from ochat.serving.keys import Key, read_keys


@dataclass(frozen=True)
class Options:
    """The keys of a file; the keys themselves aren't kept, and can't be shown."""

    file: Path
    """the keys' file"""


def describe(key: Key) -> str:
    """A key's name and limits, in a line."""
    told = {
        "created": key.created,
        "requests/min": key.requests_per_minute,
        "tokens/min": key.tokens_per_minute,
        "at once": key.concurrent,
        "conditions": ", ".join(key.conditions),
        "default": key.default_condition,
        "metrics": "yes" if key.metrics else "",
    }
    return "  ".join([key.name, *(f"{name}: {value}" for name, value in told.items() if value)])


def main(options: Options) -> None:
    """Print a line for each key."""
    keys = read_keys(options.file)
    print("\n".join(map(describe, keys)) if keys else f"{options.file} has no keys.")
