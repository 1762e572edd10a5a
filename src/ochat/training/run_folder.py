"""The saved states in a run's folder, by their names: what can be told without torch."""

import re
import shutil
from pathlib import Path

from ochat.training.config import FINAL_FOLDER


def states(folder: Path) -> list[Path]:
    """The states of a run folder, the newest first."""
    named = (path for path in folder.glob("state-*") if re.fullmatch(r"state-\d{8,}", path.name))
    return sorted((path for path in named if path.is_dir()), reverse=True)


def n_done(state: Path) -> int:
    """The number of steps after which a state was saved."""
    return int(state.name.removeprefix("state-"))


def remove_states(folder: Path, after: int = -1) -> None:
    """Drop the states after a step, all when it's left out, and what is half written."""
    newer = [path for path in states(folder) if n_done(path) > after]
    for path in (*newer, *folder.glob(".state-*.part"), folder / f".{FINAL_FOLDER}.part"):
        shutil.rmtree(path, ignore_errors=True)
