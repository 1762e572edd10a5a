"""Quality classes: a table of what each is worth, and the rules that give rows theirs.

A class is a condition and a weight. The weight is given, or follows from a reward r as exp(r / beta), C-RLFT's own formula. The rules are
tried in their order, and the first that knows a row's class decides; which rule knows nothing of a row (its column is absent, its
answer can't be read) leaves it to the next. A row that no rule knows is given the class named as `fallback`, or none: never a guess.

Rules look at the conversation and at the row that it was made of, as its source wrote it, so they're applied where rows are imported."""

import difflib
import fnmatch
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Annotated, Literal, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ochat.conversation import MAX_WEIGHT, Conversation, Weight, first_problem
from ochat.data.formats import with_class
from ochat.data.problem import RowProblem, shown
from ochat.data.verify import is_refusal, is_repetitive, python_code, same_number
from ochat.errors import OchatError
from ochat.sandbox import check_sandbox, run_tests

Source = Mapping[str, object]
Row = TypeVar("Row")
Result = TypeVar("Result")
_PLACE = re.compile(r":(?:row )?\d+(?: \(row \d+\))?$")


def _unfit(column: str, value: object, wanted: str) -> RowProblem:
    return RowProblem(f"a value that no rule can use: {shown(column)}", f"`{column}` is {shown(value)}, and {wanted}.")


def _text(value: object) -> object:
    """A single value as the text that YAML, JSON and CSV all write it with; anything else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _texts(value: object) -> object:
    return {_text(key): item for key, item in value.items()} if isinstance(value, dict) else value


def _value(source: Source, column: str) -> object:
    """The column's value; `a.b` is b within a where there's no column of that name. None where it's absent."""
    if column in source or "." not in column:
        return source.get(column)
    outer, _, inner = column.partition(".")
    within = source.get(outer)
    return _value(within, inner) if isinstance(within, dict) else None


def _reply(row: Conversation) -> str | None:
    return next((item.content for item in reversed(row.items) if item.role == "assistant"), None)


ClassName = Annotated[str, Field(min_length=1)]
Classes = Annotated[dict[str, ClassName], BeforeValidator(_texts), Field(min_length=1)]
Cuts = Annotated[list[Annotated[float, Field(allow_inf_nan=False, strict=True)]], Field(min_length=1)]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str

    def names(self) -> dict[str, str]:
        """The classes that the rule can give, each with the field that says so."""
        raise NotImplementedError

    def reads(self) -> str | None:
        """The column that it looks at."""
        return None

    def problem(self) -> str | None:
        """What is wrong with the rule as a whole."""
        return None

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        """The row's class, or None where the rule doesn't know it. Raises RowProblem."""
        raise NotImplementedError


class _Named(_Rule):
    classes: Classes

    def names(self) -> dict[str, str]:
        return dict.fromkeys(self.classes.values(), "classes")


class ByColumn(_Named):
    """The class of a column's value."""

    by: Literal["column"]
    column: ClassName

    def reads(self) -> str:
        return self.column

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        value = _text(_value(source, self.column))
        if value is None:
            return None
        if not isinstance(value, str):
            raise _unfit(self.column, value, "a rule by column needs a single value there")
        return self.classes.get(value)


class ByFile(_Named):
    """The class of the row's file: the first pattern that fits the end of its path."""

    by: Literal["file"]

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        parts = PurePath(path).parts
        for pattern, name in self.classes.items():
            wanted = PurePath(pattern).parts
            end = parts[-len(wanted) :]
            if len(end) == len(wanted) and all(map(fnmatch.fnmatchcase, end, wanted)):
                return name
        return None


class ByClass(_Named):
    """The class of the class that the row has already: `chosen` and `rejected` of preference rows, or its own."""

    by: Literal["class"]

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        return self.classes.get(row.class_name)


class _Cut(_Rule):
    cuts: Cuts
    classes: list[ClassName | None]
    """one more than the cut points: below the first, from each to the next, from the last on; null gives none"""

    def names(self) -> dict[str, str]:
        return {name: "classes" for name in self.classes if name is not None}

    def problem(self) -> str | None:
        if self.cuts != sorted(set(self.cuts)):
            return "cuts must rise"
        if len(self.classes) != len(self.cuts) + 1:
            return f"{len(self.cuts)} cuts make {len(self.cuts) + 1} classes, and {len(self.classes)} are given"
        return None

    def cut(self, value: float) -> str | None:
        return self.classes[sum(value >= cut for cut in self.cuts)]


class ByScore(_Cut):
    """The class of a number in a column."""

    by: Literal["score"]
    column: ClassName

    def reads(self) -> str:
        return self.column

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        value = _value(source, self.column)
        if value is None or value == "":
            return None
        try:
            score = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # that's the question
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if math.isnan(score):
            raise _unfit(self.column, value, "a rule by score needs a number there")
        return self.cut(score)


class ByLength(_Cut):
    """The class of the last reply's length in characters."""

    by: Literal["length"]

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        reply = _reply(row)
        return None if reply is None else self.cut(len(reply))


class _Verified(_Rule):
    right: ClassName | None = None
    wrong: ClassName | None = None

    def names(self) -> dict[str, str]:
        return {name: field for field, name in (("right", self.right), ("wrong", self.wrong)) if name is not None}

    def problem(self) -> str | None:
        return None if self.names() else "give a class as `right`, `wrong` or both"


class ByNumber(_Verified):
    """Whether the last reply ends in the number of the column `gold`. Where one of them ends in none, the rule doesn't know."""

    by: Literal["number"]
    gold: ClassName

    def reads(self) -> str:
        return self.gold

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        gold, reply = _text(_value(source, self.gold)), _reply(row)
        if gold is None or reply is None:
            return None
        if not isinstance(gold, str):
            raise _unfit(self.gold, gold, "a rule by number needs a number or text there")
        same = same_number(reply, gold)
        return None if same is None else self.right if same else self.wrong


class ByCode(_Verified):
    """Whether the last reply's Python code passes the tests of a column (one text, or a list of them), in the sandbox."""

    by: Literal["code"]
    tests: ClassName
    seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    memory_mb: Annotated[int, Field(ge=64)] = 512

    def reads(self) -> str:
        return self.tests

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        tests, reply = _value(source, self.tests), _reply(row)
        if isinstance(tests, list) and all(isinstance(test, str) for test in tests):
            tests = "\n".join(tests)
        if tests is not None and not isinstance(tests, str):
            raise _unfit(self.tests, tests, "a rule by code needs text or a list of texts there")
        code = python_code(reply) if reply is not None else None
        if code is None or not tests:
            return None
        return self.right if run_tests(code, tests, seconds=self.seconds, memory_mb=self.memory_mb).passed else self.wrong


class _Sign(_Rule):
    class_name: ClassName = Field(alias="class")

    def names(self) -> dict[str, str]:
        return {self.class_name: "class"}


class ByRefusal(_Sign):
    """The class of replies that open as English refusals do."""

    by: Literal["refusal"]

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        return self.class_name if is_refusal(_reply(row) or "") else None


class ByRepetition(_Sign):
    """The class of replies that repeat themselves."""

    by: Literal["repetition"]

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        return self.class_name if is_repetitive(_reply(row) or "") else None


_KINDS: dict[str, type[_Rule]] = {
    "column": ByColumn,
    "file": ByFile,
    "class": ByClass,
    "score": ByScore,
    "number": ByNumber,
    "code": ByCode,
    "length": ByLength,
    "refusal": ByRefusal,
    "repetition": ByRepetition,
}


class _GivenClass(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ClassName
    condition: str
    weight: Weight | None = None
    reward: Annotated[float, Field(allow_inf_nan=False, strict=True)] | None = None


class _GivenTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    beta: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = None
    classes: Annotated[list[_GivenClass], Field(min_length=1)]
    rules: list[dict[str, object]] = []
    fallback: str | None = None


@dataclass(frozen=True)
class QualityClass:
    """What rows of one class are learned under, and how much they count."""

    name: str
    condition: str
    weight: float
    reason: str = ""
    """how the weight follows from a reward"""


@dataclass(frozen=True)
class ClassTable:
    classes: Mapping[str, QualityClass]
    rules: tuple[_Rule, ...] = ()
    fallback: str | None = None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that rules look at, and for `a.b` a too."""
        read = [column for rule in self.rules if (column := rule.reads()) is not None]
        return frozenset(read) | {column.partition(".")[0] for column in read}

    @property
    def runs_code(self) -> bool:
        return any(isinstance(rule, ByCode) for rule in self.rules)


class Match(NamedTuple):
    """A row's class, and the number of the rule that gave it, from 1 on; 0 is the fallback."""

    class_name: str
    rule: int


def match(row: Conversation, source: Source, place: str, table: ClassTable) -> Match | None:
    """The first rule that knows the row's class. `source` is the row as its file has it, `place` its `file:line`. Raises
    RowProblem where the row has a value that a rule can't use."""
    path = _PLACE.sub("", place)
    for number, rule in enumerate(table.rules, start=1):
        name = rule.class_of(row, source, path)
        if name is not None:
            return Match(name, number)
    return None if table.fallback is None else Match(table.fallback, 0)


def classify(row: Conversation, source: Source, place: str, table: ClassTable) -> str | None:
    """The name of the row's class, or None where the table doesn't say."""
    found = match(row, source, place, table)
    return None if found is None else found.class_name


def each_row(function: Callable[[Row], Result], rows: Iterable[Row], table: ClassTable) -> Iterator[Result]:
    """The function's results for the rows, in their order and as they're asked for; where the table has code tested, on all cores
    at once."""
    if not table.runs_code:
        yield from map(function, rows)
        return
    check_sandbox()  # before anything is read
    n_at_once = len(os.sched_getaffinity(0))
    given = iter(rows)
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(n_at_once)  # each waits for a sandbox, a process of its own
    try:
        while True:
            waiting.extend(pool.submit(function, row) for row in islice(given, 4 * n_at_once - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def apply_class(row: Conversation, quality: QualityClass) -> Conversation:
    """The row as one of the class: its name and condition, and its messages' weights times the class's. An assistant's message
    without a weight has 1, a user's 0."""
    return with_class(row, quality.condition, quality.weight, quality.name)


@dataclass
class Factors:
    """What makes the weights of a class's rows, as rows are added one by one."""

    rows: int = 0
    messages: int = 0
    weight_sum: float = 0.0

    def add(self, row: Conversation) -> None:
        """Add a row as it is before its class's weight comes to it."""
        replies = [1.0 if item.weight is None else item.weight for item in row.items if item.role == "assistant"]
        self.rows, self.messages, self.weight_sum = self.rows + 1, self.messages + len(replies), self.weight_sum + sum(replies)

    @property
    def message_weight(self) -> float:
        """The mean over the assistant's messages."""
        return self.weight_sum / self.messages if self.messages else 0.0


def factor_table(factors: Mapping[str, Factors], table: ClassTable) -> list[tuple[str, str, int, float, float, float]]:
    """For each class of the table: name, condition, rows, mean message weight, class weight, and their product."""
    rows = []
    for name, quality in table.classes.items():
        found = factors.get(name, Factors())
        effective = found.message_weight * quality.weight
        rows.append((name, quality.condition, found.rows, found.message_weight, quality.weight, effective))
    return rows


def read_classes(path: Path) -> ClassTable:
    """The table of a YAML file. Raises OchatError, naming the line and near names, where it can't be used."""
    try:
        text = path.read_text(encoding="utf-8")
        node, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
        reader = _Reader(path, node)
    except OSError as error:
        raise OchatError(f"{path} can't be read ({error.strerror}). Name a YAML file of classes.") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise OchatError(
            f"{path} can't be read as YAML ({' '.join(str(error).split())}). See examples/classes.yaml."
        ) from error
    if not isinstance(values, dict):
        raise OchatError(f"{path} holds no fields. Give `classes:` and `rules:`; see examples/classes.yaml.")
    return reader.table(values)


class _Reader:
    """Checks a file's values, and knows the line of each."""

    def __init__(self, path: Path, node: yaml.Node) -> None:
        self.path, self.node = path, node
        self._refuse_twice(node)

    def _refuse_twice(self, node: yaml.Node) -> None:
        """Raise where a mapping has a key twice, of which YAML would keep the last."""
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise OchatError(f"{self.path}:{key.start_mark.line + 1}: {key.value!r} is given twice. Keep one.")
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
                self._refuse_twice(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                self._refuse_twice(value)

    def wrong(self, where: tuple[int | str, ...], message: str) -> OchatError:
        """The error that a message about a value becomes; `where` is the way to it, as far as there is one."""
        node: yaml.Node = self.node
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

    def checked(self, model: type[BaseModel], value: object, where: tuple[int | str, ...]) -> BaseModel:
        """The value as the model's. Raises, at its line, for what the model doesn't know or take."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            # a mistyped field is why another one is missing
            first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
            within = (*where, *first["loc"])
            if first["type"] == "extra_forbidden":
                inner = _GivenClass if model is _GivenTable and first["loc"][0] == "classes" else model
                known = [field.alias or name for name, field in inner.model_fields.items()]
                raise self.wrong(within, _unknown("field", str(first["loc"][-1]), known)) from error
            raise self.wrong(within, f"{first_problem(error)}. See examples/classes.yaml.") from error

    def table(self, values: object) -> ClassTable:
        given = self.checked(_GivenTable, values, ())
        assert isinstance(given, _GivenTable)
        classes: dict[str, QualityClass] = {}
        for at, one in enumerate(given.classes):
            if one.name in classes:
                raise self.wrong(("classes", at, "name"), f"the class {one.name!r} is given twice. Keep one.")
            if not (one.name.isprintable() and one.condition.isprintable()):
                raise self.wrong(("classes", at), "a name or condition has control characters. Give plain words.")
            classes[one.name] = self._quality(one, given.beta, ("classes", at))
        if given.beta is not None and all(one.reward is None for one in given.classes):
            raise self.wrong(("beta",), "no class has a `reward`, so `beta` does nothing. Give rewards, or leave it out.")
        rules = tuple(self._rule(value, classes, ("rules", at)) for at, value in enumerate(given.rules))
        if given.fallback is not None and given.fallback not in classes:
            raise self.wrong(("fallback",), _unknown("class", given.fallback, list(classes)))
        return ClassTable(classes, rules, given.fallback)

    def _quality(self, one: _GivenClass, beta: float | None, where: tuple[int | str, ...]) -> QualityClass:
        if (one.weight is None) == (one.reward is None):
            found = "neither `weight` nor `reward`" if one.weight is None else "both `weight` and `reward`"
            raise self.wrong(where, f"the class {one.name!r} has {found}. Give one of them.")
        if one.reward is None:
            assert one.weight is not None
            return QualityClass(one.name, one.condition, one.weight)
        if beta is None:
            message = (
                f"the class {one.name!r} has a `reward`, and the file no `beta`. Give `beta`: a weight is exp(reward / beta)."
            )
            raise self.wrong((*where, "reward"), message)
        exponent, reason = one.reward / beta, f"exp({one.reward:g} / {beta:g})"
        if exponent > math.log(MAX_WEIGHT):
            message = f"the weight of {one.name!r} is {reason}, over {MAX_WEIGHT:g}. Lower the reward, or raise `beta`."
            raise self.wrong((*where, "reward"), message)
        return QualityClass(one.name, one.condition, math.exp(exponent), reason)

    def _rule(self, value: Mapping[str, object], classes: Mapping[str, QualityClass], where: tuple[int | str, ...]) -> _Rule:
        kind = value.get("by")
        if not isinstance(kind, str) or kind not in _KINDS:
            message = "a rule has no `by`" if kind is None else f"unknown rule `by: {kind}`"
            raise self.wrong((*where, "by"), f"{message}. Give one of: {', '.join(_KINDS)}.")
        rule = self.checked(_KINDS[kind], value, where)
        assert isinstance(rule, _Rule)
        if problem := rule.problem():
            raise self.wrong(where, f"rule by {kind}: {problem}.")
        for name, field in rule.names().items():
            if name not in classes:
                raise self.wrong((*where, field), _unknown("class", name, list(classes)))
        return rule


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    return f"unknown {what} {name!r}. Did you mean: {', '.join(near)}?"
