"""Rows of a data set on the hub, streamed by the library `datasets`, which only this module imports."""

import re
from collections.abc import Iterator
from pathlib import Path

from ochat.errors import DataError, require

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(path: Path) -> bool:
    """Whether the name can only be a data set's id: OWNER/NAME, with nothing of that name here, nor a folder OWNER."""
    return bool(_ID.fullmatch(str(path))) and not path.exists() and not path.parent.exists()


def hub_rows(name: str) -> Iterator[tuple[str, object]]:
    """Yield `(place, row)` for the data set's split `train`. Raises DataError where it can't be had."""
    require("datasets", "data", f"{name} is no file here, and reading it from the hub")
    from datasets import load_dataset

    row = 0
    try:
        for row, value in enumerate(load_dataset(name, split="train", streaming=True), start=1):
            yield f"{name}:row {row}", value
    except (OSError, ValueError, RuntimeError) as error:  # the network, the hub's answers, its files' contents
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}:row {row + 1}: no such file here, and the hub's data set of this name can't be read ({reason}). "
            "Check the spelling and the network, or download its files and name those."
        ) from error
