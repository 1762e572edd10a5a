"""`--config FILE`: a command's options from a YAML file of the same names.

The file's values become the defaults from which the command line is parsed, so that whatever is typed wins: a list is replaced,
a switch can be turned off. They are checked here, where the file and the field can be named."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

from ochat.errors import OchatError

Options = TypeVar("Options")

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path", NoneType: "null"}


def take_config(argv: list[str]) -> tuple[Path | None, list[str]]:
    """The file that `--config FILE` or `--config=FILE` names, and the other arguments."""
    found: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            found.append(next(words, ""))
        elif word.startswith("--config="):
            found.append(word.removeprefix("--config="))
        else:
            rest.append(word)
    if found and (len(found) > 1 or not found[0] or found[0].startswith("-")):
        raise OchatError("--config takes one YAML file. Name it after --config.")
    return (Path(found[0]) if found else None), rest


def defaults(options: type[Options], path: Path) -> Options:
    """An unchecked value of the command's options: the file's fields, else the defaults, else a mark of tyro's for a field
    that is still required. Raises OchatError for a file or field that can't be used."""
    fields = {_name(hint, name): (name, hint) for name, hint in get_type_hints(options, include_extras=True).items()}
    given = _read(path, list(fields))
    made = object.__new__(options)  # not its __init__, whose checks want every field
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # every command's Options is a dataclass
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        object.__setattr__(made, field.name, tyro.MISSING if default is dataclasses.MISSING else default)
    for key, value in given.items():
        name, hint = fields[key]
        try:
            object.__setattr__(made, name, _converted(value, hint))
        except ValueError as error:
            raise OchatError(f"{path}: {key} is {value!r}. {error}") from error
    return made


def options_of(
    options: type[Options], given: Mapping[str, object], wrong: Callable[[str, str], OchatError], **own: object
) -> Options:
    """The command's options from fields of a part of a file, and from `own`, which that part may not name. `wrong` makes the error of
    a field and a message; it is raised for a field that can't be used or is missing, and for what the options refuse."""
    hints = {_name(hint, name): (name, hint) for name, hint in get_type_hints(options, include_extras=True).items()}
    known = [key for key, (name, _) in hints.items() if name not in own]
    values = dict(own)
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)
            raise wrong(key, f"unknown field {key!r}. Did you mean: {', '.join(near)}?")
        try:
            values[hints[name][0]] = _converted(value, hints[name][1])
        except ValueError as error:
            raise wrong(key, f"{key} is {value!r}. {error}") from error
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # every command's Options is a dataclass
        if field.name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise wrong("", f"{field.name} is missing.")
    try:
        return options(**values)
    except OchatError as error:
        raise wrong("", str(error)) from error


def _name(hint: Any, name: str) -> str:  # Any: a type as typing writes it
    """The field's name as a flag has it, with _ for -."""
    marks = getattr(hint, "__metadata__", ())
    return next((mark.name for mark in marks if getattr(mark, "name", None)), name)


def _read(path: Path, known: list[str]) -> dict[str, object]:
    """The fields of a file by name. Raises OchatError where it is no YAML of the known fields, each once."""
    try:
        text = path.read_text(encoding="utf-8")
        node, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except OSError as error:
        raise OchatError(f"{path} can't be read ({error.strerror}). Name a YAML file after --config.") from error
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise OchatError(f"{path} can't be read as YAML ({reason}). Write one `name: value` a line.") from error
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise OchatError(f"{path} holds no fields. Write one `name: value` a line.")
    given: dict[str, object] = {}
    for key, _ in node.value:  # safe_load would keep the last of a field given twice
        name = str(key.value).replace("-", "_")
        place = f"{path}:{key.start_mark.line + 1}"
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)
            raise OchatError(f"{place}: unknown field {key.value!r}. Did you mean: {', '.join(near)}?")
        if name in given:
            raise OchatError(f"{place}: {key.value} is given twice. Keep one.")
        given[name] = values[key.value]
    return given


def _converted(value: object, hint: Any) -> object:
    """The value as the field's type has it; raises ValueError, saying what is wanted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _converted(value, arguments[0])
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (hint,) = (one for one in arguments if one is not NoneType)
        return _converted(value, hint)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"Give one of: {', '.join(map(str, arguments))}.")
        return value
    if origin in (tuple, list):
        return origin(_converted(one, arguments[0]) for one in (value if isinstance(value, list) else [value]))
    if origin is dict and isinstance(value, dict):
        return {_converted(key, arguments[0]): _converted(one, arguments[1]) for key, one in value.items()}
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()  # no shell has done it
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-4 for text
        except ValueError:
            pass
    elif type(value) is hint:
        return value
    quotes = " Put it in quotes." if hint in (str, Path) and value is not None else ""
    raise ValueError(f"Give {_WORDS.get(hint, '`name: value` pairs')}.{quotes}")
