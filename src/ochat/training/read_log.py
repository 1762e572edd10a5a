"""Read a run's log, also while the run goes on: its last line may be half written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ochat.errors import OchatError


def read_log(path: Path) -> list[dict[str, Any]]:
    """The log's lines by step, step 0 first: the evaluation before training. A last line that isn't whole is left out.

    Raises OchatError where another line can't be read."""
    lines: dict[int, dict[str, Any]] = {}
    text = path.read_bytes().decode("utf-8", errors="replace")
    rows = text.split("\n")
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            line = json.loads(row)
            lines[int(line["step"])] = line  # a step that was repeated after a kill counts once
        except (ValueError, KeyError, TypeError) as error:
            if number == len(rows):  # no newline after it
                continue
            raise OchatError(f"{path}:{number}: not a line of a training log ({error!r}). Remove the line.") from error
    return [lines[step] for step in sorted(lines)]


def last_evaluation(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last line with losses of held-out rows; {} for none."""
    return next((line for line in reversed(lines) if line.get("heldout")), {})
