"""Write files and folders so that a killed process leaves the old one or the new one, never half of one."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ochat.errors import DataError, OchatError

_RESUME_FILE = ".resume.json"


def write_text(path: Path, text: str) -> None:
    """Replace the file by one with this text, in one step."""
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Replace the file by this value as JSON, in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the block ends without an error."""
    if path.exists() and not path.is_file():
        raise OchatError(f"{path} is a folder or device. Name a file to write.")
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, resume: object = None, shared: bool = False) -> Iterator[Path]:
    """A fresh folder beside `path`, which takes its place (an older one goes) when the block ends without an error.

    With `resume`, a value that JSON can hold, the folder isn't fresh where an earlier block with the same value was stopped or killed:
    what that wrote is still there. With `shared` several processes may be in the block, and none of them puts the folder in its
    place: one that comes after does. Raises OchatError where another process is writing the same one."""
    path = path.resolve()
    part, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("part", "old"))
    make_folder(part)
    with hold(part, shared=shared):
        if old.exists() and not path.exists():  # killed between the two renames below
            old.rename(path)
        mark = part / _RESUME_FILE
        text = json.dumps(resume, sort_keys=True)
        if resume is None or not mark.is_file() or mark.read_text(encoding="utf-8") != text:
            for rest in (*part.iterdir(), *([old] if old.exists() else [])):
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
            if resume is not None:
                write_text(mark, text)
        try:
            yield part
            if shared:
                return
            mark.unlink(missing_ok=True)
            if path.exists():
                path.rename(old)
            part.rename(path)
        except BaseException as error:
            if resume is None or isinstance(error, DataError):  # with other data there's nothing to go on with
                shutil.rmtree(part, ignore_errors=True)
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def hold(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes out of the folder while the block runs, or, `shared`, those that want it alone; raises OchatError
    where one is in it."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            # ends with the process, however it ends
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OchatError(f"{folder}: another process is writing there. Wait for it, or choose another output.") from error
        yield
    finally:
        os.close(lock)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> None:
    """The folder, made if it's missing. Raises OchatError where it can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OchatError(f"{path}: the folder can't be made ({error.strerror}). Choose another output.") from error


def refuse_existing(path: Path) -> None:
    """Raise OchatError where the folder exists with something in it: it may be anybody's."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OchatError(f"{path} exists. Remove it, or choose another --output.")
