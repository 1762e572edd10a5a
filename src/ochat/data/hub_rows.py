"""Rows of a data set on the hub, streamed by the library `datasets`, which only this module imports."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from ochat.errors import DataError, require

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SECONDS_TO_REACH = 10


class AbsentError(DataError):
    """Data that is neither here nor can be had from here."""


def is_hub_id(path: Path) -> bool:
    """Whether the name can only be a data set's id: OWNER/NAME, with nothing of that name here, nor a folder OWNER."""
    return bool(_ID.fullmatch(str(path))) and not path.exists() and not path.parent.exists()


def hub_rows(name: str, files: Sequence[str] = ()) -> Iterator[tuple[str, object]]:
    """Yield `(place, row)` for the data set's split `train`, or for these of its files. Raises AbsentError where it can't be
    had."""
    require("datasets", "data", f"{name} is no file here, and reading it from the hub")
    remedy = f"Check the spelling and the network, or name a local copy, made where there is network: {copy_command(name)}."
    if reason := _unreachable():
        raise AbsentError(f"{name}: no such file here, and the hub can't be reached ({reason}). {remedy}")
    from datasets import load_dataset

    for file in files or (None,):
        row, whole = 0, f"{name}/{file}" if file else name
        try:
            for row, value in enumerate(load_dataset(name, data_files=file, split="train", streaming=True), start=1):
                yield f"{whole}:row {row}", value
        except (OSError, ValueError, RuntimeError) as error:  # the network, the hub's answers, its files' contents
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise AbsentError(
                f"{whole}:row {row + 1}: no such file here, and the hub's data set of this name can't be read ({reason}). {remedy}"
            ) from error


def copy_command(name: str) -> str:
    """What makes a local copy, where there is network."""
    return f"hf download {name} --repo-type dataset --local-dir DIR/{name}"


@cache
def _unreachable() -> str:
    """Why the hub can't be reached, or nothing where it can. Asked once: the library itself tries for half a minute a data set."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_REACH)
    except (
        Exception
    ) as error:  # of whichever client the library uses at the time; also its own, where it is told to stay offline
        return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ""
