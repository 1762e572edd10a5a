"""The keys that clients give: names, limits and hashes, never the keys themselves.

A key that we make has 256 random bits, so its plain SHA-256 can be kept: there's nothing to guess. What a request gives is hashed
too, and looked up by the hash, so the time that takes tells nothing of which keys there are."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ochat.conversation import first_problem
from ochat.errors import OchatError
from ochat.files import new_file
from ochat.serving.say import say

PREFIX = "sk-ochat-"
Limit = Annotated[int, Field(ge=1)]


class Key(BaseModel):
    """A client's key; a limit that is absent isn't set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: str = ""
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrent: Limit | None = None
    conditions: tuple[str, ...] = ()
    default_condition: str = ""
    metrics: bool = False  # /metrics tells every key's name and use

    @property
    def has_limits(self) -> bool:
        return (self.requests_per_minute, self.tokens_per_minute, self.concurrent) != (None, None, None)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: tuple[Key, ...]


def hashed(key: str) -> str:
    """The hash under which a key is kept."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def make_key() -> str:
    """A new key, which can't be guessed."""
    return PREFIX + secrets.token_urlsafe(32)


def is_given_name(name: str) -> bool:
    """Whether keys given as text have such names."""
    return re.fullmatch(r"key-\d+", name) is not None


def named_keys(keys: Iterable[str]) -> tuple[Key, ...]:
    """Keys given as text, by their place: key-1, key-2 … They have no owners but the server's."""
    return tuple(Key(name=f"key-{number}", sha256=hashed(key), metrics=True) for number, key in enumerate(keys, start=1))


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises OchatError where it can't be read, or has a name or a key twice."""
    keys = _parse(path)
    _check_apart(keys, path)
    return keys


def _parse(path: Path) -> tuple[Key, ...]:
    try:
        return _File.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise OchatError(
            f"{path} can't be read ({error.strerror}). Make it with: ochat keys create NAME --file FILE"
        ) from error
    except ValidationError as error:
        raise OchatError(f"{path}: {first_problem(error)}. `ochat keys create` writes such a file.") from error


def _check_apart(keys: Iterable[Key], path: Path) -> None:
    """Raise OchatError for a name that stands twice, since limits and logs go by names, or a key that has two."""
    by_name: dict[str, Key] = {}
    by_hash: dict[str, Key] = {}
    for key in keys:
        if key.name in by_name:
            raise OchatError(f"{path} has two keys named {key.name}. Give each a name of its own.")
        if key.sha256 in by_hash:
            raise OchatError(f"{path}: {by_hash[key.sha256].name} and {key.name} are the same key. Take one out.")
        by_name[key.name] = by_hash[key.sha256] = key


def write_keys(path: Path, keys: Iterable[Key]) -> None:
    """Replace the file in one step; only its owner may read it."""
    with new_file(path) as part:
        _write(part, keys)


def change_keys(path: Path, change: Callable[[tuple[Key, ...]], Iterable[Key]]) -> None:
    """Replace the file by what `change` makes of its keys, of none where it's absent.

    Of several processes each waits for the one before, since `new_file` lets one write a file; so none loses another's change."""
    with new_file(path) as part:
        _write(part, change(read_keys(path) if path.exists() else ()))


def _write(part: Path, keys: Iterable[Key]) -> None:
    rows = [key.model_dump(exclude_defaults=True) for key in keys]
    part.chmod(0o600)
    part.write_text(json.dumps({"keys": rows}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class KeyStore:
    """The keys of a running server, read again when their file changes."""

    def __init__(self, given: Iterable[Key] = (), path: Path | None = None, allows_limits: bool = True) -> None:
        self._given = tuple(given)
        self._path = path
        self._allows_limits = allows_limits
        self._stamp: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Key] = {}
        self._of_file: tuple[Key, ...] = ()
        self._check_given()
        keys = self._read()
        self._check(keys)
        self._set(keys)
        self.is_empty = not self._by_hash and path is None

    def _check_given(self) -> None:
        """Raise OchatError for a key that was given as text twice."""
        by_hash: dict[str, Key] = {}
        for key in self._given:
            if key.sha256 in by_hash:
                raise OchatError(
                    f"{by_hash[key.sha256].name} and {key.name} of the environment, --api-key and --api-keys are the same key. "
                    "Give it once."
                )
            by_hash[key.sha256] = key

    def _read(self) -> tuple[Key, ...]:
        if self._path is None:
            return ()
        self._stamp = _stamp(self._path)
        return _parse(self._path)

    def _check(self, keys: tuple[Key, ...]) -> None:
        """Raise OchatError for keys that can't stand together, or whose limits this server can't hold."""
        if self._path is None:
            return
        _check_apart(keys, self._path)
        for key in keys:
            for other in self._given:
                if key.name == other.name:
                    raise OchatError(
                        f"{self._path} has a key named {key.name}, as one of the environment, --api-key or --api-keys is. Give it "
                        "another name."
                    )
                if key.sha256 == other.sha256:
                    raise OchatError(
                        f"{self._path}: {key.name} is a key of the environment, --api-key or --api-keys too. Take it out of one."
                    )
        limited = [key.name for key in keys if key.has_limits]
        if limited and not self._allows_limits:
            raise OchatError(
                f"{self._path}: {limited[0]} has limits, which several API processes can't hold together. Leave the limits "
                "out, or serve with one: --api-server-count 1"
            )

    def _set(self, keys: Iterable[Key]) -> None:
        self._of_file = tuple(keys)
        self._by_hash = {key.sha256: key for key in (*self._given, *self._of_file)}

    def find(self, given: str) -> Key | None:
        """The key that was given, if it's one of ours."""
        return self._by_hash.get(hashed(given)) if given else None

    def is_valid(self, key: Key) -> bool:
        """Whether the key hasn't been revoked since it was found."""
        return key.sha256 in self._by_hash

    def reload(self) -> None:
        """Read the file again if it has changed. One that can't be used is told once: the keys stay as they are, but for those that a
        readable file no longer has, which are revoked all the same."""
        if self._path is None or _stamp(self._path) == self._stamp:
            return
        try:
            keys = self._read()
        except OchatError as error:
            say(f"{error} The keys stay as they were.")
            return
        try:
            self._check(keys)
        except OchatError as error:
            left = {key.sha256 for key in keys}
            kept = [key for key in self._of_file if key.sha256 in left]
            gone = ", ".join(key.name for key in self._of_file if key.sha256 not in left)
            self._set(kept)
            say(f"{error} {f'Revoked all the same: {gone}. The other' if gone else 'The'} keys stay as they were.")
        else:
            self._set(keys)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
