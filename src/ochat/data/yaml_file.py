"""A YAML file that a person writes, checked so that what is wrong is told at its line.

YAML itself keeps the last of a key that is given twice, and knows nothing of our fields."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ochat.conversation import first_problem, found_instead
from ochat.errors import OchatError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[int | str, ...]
"""the way to a value: keys and positions"""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message about a name that isn't known, with the near ones."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5) or list(known)
    return f"unknown {what} {name!r}. Did you mean: {', '.join(near)}?"


class YamlFile(NamedTuple):
    """A file's fields, and where each stands."""

    path: Path
    values: Mapping[str, object]
    node: yaml.Node
    example: str
    """where the reader finds how it's written"""

    def wrong(self, where: Place, message: str) -> OchatError:
        """The error that a message about a value becomes; `where` is the way to it, as far as there is one."""
        node = self.node
        line = node.start_mark.line
        for step in where:
            if isinstance(node, yaml.MappingNode):
                found = [(key, value) for key, value in node.value if key.value == str(step)]
                if found:
                    line, node = found[0][0].start_mark.line, found[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line
        return OchatError(f"{self.path}:{line + 1}: {message}")

    def checked(self, model: type[Model], value: object, where: Place) -> Model:
        """The value as the model's. Raises, at its line, for what the model doesn't know or take."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            # a mistyped field is why another one is missing
            first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
            within = (*where, *first["loc"])
            if first["type"] == "extra_forbidden":
                known = [field.alias or name for name, field in model.model_fields.items()]
                raise self.wrong(within, unknown("field", str(first["loc"][-1]), known)) from error
            raise self.wrong(within, f"{first_problem(error)}.{found_instead(error)} {self.example}") from error


def read_yaml(path: Path, what: str, example: str) -> YamlFile:
    """The file's fields. Raises OchatError where it can't be read, isn't YAML, holds no fields or one of them twice; `what` is
    what the file should be, `example` a sentence that says where to see one."""
    try:
        text = path.read_text(encoding="utf-8")
        node, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
        if node is not None:
            _refuse_twice(path, node)
    except OSError as error:
        raise OchatError(f"{path} can't be read ({error.strerror}). Name {what}.") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise OchatError(f"{path} can't be read as YAML ({' '.join(str(error).split())}). {example}") from error
    if not isinstance(values, dict) or node is None:
        raise OchatError(f"{path} holds no fields. {example}")
    return YamlFile(path, values, node, example)


def _refuse_twice(path: Path, node: yaml.Node) -> None:
    """Raise where a mapping has a key twice, of which YAML would keep the last."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise OchatError(f"{path}:{key.start_mark.line + 1}: {key.value!r} is given twice. Keep one.")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            _refuse_twice(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(path, value)
