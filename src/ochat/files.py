"""Write files and folders so that a killed process leaves the old one or the new one, never half of one."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ochat.errors import DataError, OchatError

_RESUME_FILE = ".resume.json"
_PATIENCE = 0.5  # seconds: others may only look, or write a line
_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_HAS_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def write_text(path: Path, text: str) -> None:
    """Replace the file by one with this text, in one step."""
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Replace the file by this value as JSON, in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the block ends without an error; where `path` is a link, the place
    of what it names. Raises OchatError where it can't be written, where the disk is full, and where another process writes it."""
    if not path.name or (path.exists() and not path.is_file()):
        raise OchatError(f"{path} is a folder or device. Name a file to write.")
    target = path.resolve()
    make_folder(target.parent)
    part = target.with_name(f".{target.name}.part")
    with told_if_full(path):
        lock = _open_locked(part, path)
        try:
            yield part
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(lock)


def _open_locked(part: Path, path: Path) -> int:
    """The part, empty and open, which no other process writes."""
    while True:
        try:
            file = os.open(part, os.O_WRONLY | os.O_CREAT, 0o666)
        except OSError as error:
            raise OchatError(f"{path} can't be written ({error.strerror}). Choose another output.") from error
        try:
            _lock(file, fcntl.LOCK_EX, path)
            if part.exists() and os.path.samestat(os.fstat(file), part.stat()):
                os.ftruncate(file, 0)  # of a killed process
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the one that held it has put it in its place


@contextmanager
def told_if_full(path: Path) -> Iterator[None]:
    """Raise OchatError, naming the path, where the block finds its disk full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _IS_FULL:
            raise
        raise OchatError(f"{path} can't be written: its disk is full. Make room, or choose another output.") from error


@contextmanager
def new_folder(path: Path, *, resume: object = None, shared: bool = False) -> Iterator[Path]:
    """A fresh folder beside `path`, which takes its place (an older one goes) when the block ends without an error.

    With `resume`, a value that JSON can hold, the folder isn't fresh where an earlier block with the same value was stopped or killed:
    what that wrote is still there. With `shared` several processes may be in the block, and none of them puts the folder in its
    place: one that comes after does. Raises OchatError where another process is writing the same one."""
    path = path.resolve()
    part, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("part", "old"))
    make_folder(part)
    text = json.dumps(resume, sort_keys=True)

    def is_begun() -> bool:
        mark = part / _RESUME_FILE
        return resume is not None and mark.is_file() and mark.read_text(encoding="utf-8") == text

    if shared:
        _begin_together(part, is_begun, text)
    with hold(part, shared=shared), told_if_full(path):
        if old.exists() and not path.exists():  # killed between the two renames below
            old.rename(path)
        if not is_begun():
            if shared:
                raise OchatError(f"{part}: another process has begun something else there. Choose another output.")
            _clear(part, text if resume is not None else None)
            shutil.rmtree(old, ignore_errors=True)
        try:
            yield part
            if shared:
                return
            (part / _RESUME_FILE).unlink(missing_ok=True)
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


def _clear(folder: Path, mark: str | None) -> None:
    """Empty the folder, and mark what will be in it."""
    for rest in folder.iterdir():
        shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
    if mark is not None:
        write_text(folder / _RESUME_FILE, mark)


def _begin_together(folder: Path, is_begun: Callable[[], bool], mark: str) -> None:
    """Have one of the processes that share the folder clear and mark it. Raises OchatError where others work there on something else:
    what they write mustn't be taken for ours."""
    while not is_begun():
        try:
            with hold(folder):
                if not is_begun():
                    _clear(folder, mark)
        except OchatError:
            if not is_begun():  # nor did the one that holds it begin just this
                raise


@contextmanager
def hold(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes out of the folder while the block runs, or, `shared`, those that want it alone; raises OchatError
    where one is in it."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        _lock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, folder)
        yield
    finally:
        os.close(lock)


def _lock(file: int, kind: int, path: Path) -> None:
    """Lock the file until it's closed, or the process ends, however it ends."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise OchatError(f"{path}: another process is writing there. Wait for it, or choose another output.") from error
            time.sleep(0.02)
        except OSError as error:
            if error.errno not in _HAS_NO_LOCKS:
                raise
            return  # some network file systems: nobody is kept out there


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


def remove_if_empty(path: Path) -> None:
    """Remove the folder, unless there is something in it."""
    with suppress(OSError):
        path.rmdir()


def refuse_existing(path: Path) -> None:
    """Raise OchatError where the folder exists with something in it: it may be anybody's."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OchatError(f"{path} exists. Remove it, or choose another --output.")


def refuse_twice(paths: Iterable[Path]) -> None:
    """Raise OchatError where a file or folder is named twice: its rows would count twice, which nobody sees later."""
    known = set()
    for path in paths:
        if path.resolve() in known:
            raise OchatError(f"{path} is named twice, and its rows would count twice. Name it once.")
        known.add(path.resolve())
