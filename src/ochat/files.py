"""Write files and folders so that a crash leaves the old one or the new one, never half of one."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ochat.errors import OchatError


def write_text(path: Path, text: str) -> None:
    """Replace the file by one with this text, in one step."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: object) -> None:
    """Replace the file by this value as JSON, in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the block ends without an error."""
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A fresh folder beside `path`, which takes its place (an older one goes) when the block ends without an error."""
    make_folder(path.parent)
    part, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("part", "old"))
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    for rest in (part, old):
        shutil.rmtree(rest, ignore_errors=True)
    make_folder(part)
    try:
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def make_folder(path: Path) -> None:
    """The folder, made if it's missing. Raises OchatError where it can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OchatError(f"{path}: the folder can't be made ({error.strerror}). Choose another output.") from error


def refuse_existing(path: Path, marker: str) -> None:
    """Refuse to write over a folder that isn't one of ours: an existing, non-empty one without the file `marker`."""
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / marker).exists())):
        raise OchatError(f"{path} exists and is not an earlier output of this command. Choose another --output.")
