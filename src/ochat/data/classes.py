"""Quality classes: a table of what each is worth, and the rules that give rows theirs.

A class is a condition and a weight. The weight is given, or follows from a reward r as exp(r / beta), C-RLFT's own formula. The rules are
tried in their order, and the first that knows a row's class decides; which rule knows nothing of a row (its column is absent, its
answer can't be read) leaves it to the next. A row that no rule knows is given the class named as `fallback`, or none: never a guess.

Rules look at the conversation and at the row that it was made of, as its source wrote it, so they're applied where rows are imported."""

import fnmatch
import hashlib
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

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from ochat.conversation import MAX_WEIGHT, Conversation, Weight
from ochat.data.clean.heuristics import is_refusal, repeated_share
from ochat.data.formats import with_class
from ochat.data.problem import RowProblem, shown
from ochat.data.turns import value_of
from ochat.data.verify import agrees, is_short_answer, python_code, same_number
from ochat.data.yaml_file import Place, YamlFile, read_yaml, unknown
from ochat.registry import control_token_in
from ochat.sandbox import check_sandbox, run_tests
from ochat.template import MAX_CONDITION_LENGTH, is_condition

Source = Mapping[str, object]
Row = TypeVar("Row")
Result = TypeVar("Result")
EXAMPLE = "See examples/classes.yaml."
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


def _reply(row: Conversation) -> str | None:
    return next((item.content for item in reversed(row.items) if item.role == "assistant"), None)


ClassName = Annotated[str, Field(min_length=1)]
Classes = Annotated[dict[str, ClassName], BeforeValidator(_texts), Field(min_length=1)]
Cuts = Annotated[list[Annotated[float, Field(allow_inf_nan=False, strict=True)]], Field(min_length=1)]


class Rule(BaseModel):
    """What tells a row's class."""

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

    def learn(self, row: Conversation, source: Source) -> None:
        """Take in a row before any is classed; only rules that compare rows do."""

    def unlisted(self, source: Source) -> str | None:
        """The row's value that the rule doesn't list, where it gives such rows a class."""
        return None

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        """The row's class, or None where the rule doesn't know it. Raises RowProblem."""
        raise NotImplementedError


class _Named(Rule):
    classes: Classes

    def names(self) -> dict[str, str]:
        return dict.fromkeys(self.classes.values(), "classes")


class ByColumn(_Named):
    """The class of a column's value: of the value itself, or else of the first pattern that fits it."""

    by: Literal["column"]
    column: ClassName
    others: ClassName | None = None
    """of any other value, and of rows without one"""

    def names(self) -> dict[str, str]:
        return super().names() | ({} if self.others is None else {self.others: "others"})

    def reads(self) -> str:
        return self.column

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        value = _text(value_of(source, self.column))
        if value is None:
            return self.others
        if not isinstance(value, str):
            raise _unfit(self.column, value, "a rule by column needs a single value there")
        return self._listed(value) or self.others

    def unlisted(self, source: Source) -> str | None:
        value = _text(value_of(source, self.column))
        return None if self.others is None or (isinstance(value, str) and self._listed(value)) else str(value)

    def _listed(self, value: str) -> str | None:
        if value in self.classes:
            return self.classes[value]
        return next((name for pattern, name in self.classes.items() if fnmatch.fnmatchcase(value, pattern)), None)


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


class _Cut(Rule):
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
        value = value_of(source, self.column)
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


class _Verified(Rule):
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
        gold, reply = _text(value_of(source, self.gold)), _reply(row)
        if gold is None or reply is None:
            return None
        if not isinstance(gold, str):
            raise _unfit(self.gold, gold, "a rule by number needs a number or text there")
        same = same_number(reply, gold)
        return None if same is None else self.right if same else self.wrong


class ByAgreement(_Verified):
    """Whether the last reply agrees with another row's: of the same question, and with another value in the column than `judged`.
    Those other rows, and rows whose question nobody else answers shortly, the rule doesn't know."""

    by: Literal["agreement"]
    column: ClassName
    judged: ClassName
    _answers: dict[bytes, list[str]] = PrivateAttr(default_factory=dict)  # to each question, in some 200 bytes

    def reads(self) -> str:
        return self.column

    def learn(self, row: Conversation, source: Source) -> None:
        reply = _reply(row)
        if _text(value_of(source, self.column)) != self.judged and reply is not None and is_short_answer(reply):
            self._answers.setdefault(self._question(row), []).append(reply)

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        reply = _reply(row)
        if reply is None or _text(value_of(source, self.column)) != self.judged:
            return None
        verdicts = {agrees(reply, answer) for answer in self._answers.get(self._question(row), [])}
        return self.right if True in verdicts else self.wrong if False in verdicts else None

    @staticmethod
    def _question(row: Conversation) -> bytes:
        """All turns before the last; not the system prompt, which the other row may lack."""
        turns = "\0".join(item.content.strip() for item in row.items[:-1])
        return hashlib.blake2b(turns.encode(), digest_size=8).digest()


class ByCode(_Verified):
    """Whether the last reply's Python code passes the tests of a column (one text, or a list of them), in the sandbox."""

    by: Literal["code"]
    tests: ClassName
    seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    memory_mb: Annotated[int, Field(ge=64)] = 512

    def reads(self) -> str:
        return self.tests

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        tests, reply = value_of(source, self.tests), _reply(row)
        if isinstance(tests, list) and all(isinstance(test, str) for test in tests):
            tests = "\n".join(tests)
        if tests is not None and not isinstance(tests, str):
            raise _unfit(self.tests, tests, "a rule by code needs text or a list of texts there")
        code = python_code(reply) if reply is not None else None
        if code is None or not tests:
            return None
        return self.right if run_tests(code, tests, seconds=self.seconds, memory_mb=self.memory_mb).passed else self.wrong


class _Sign(Rule):
    class_name: ClassName = Field(alias="class")

    def names(self) -> dict[str, str]:
        return {self.class_name: "class"}


class ByRefusal(_Sign):
    """The class of replies that open as English refusals do."""

    by: Literal["refusal"]

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        return self.class_name if is_refusal(_reply(row) or "") else None


class ByRepetition(_Sign):
    """The class of replies of which more than `share` repeats itself."""

    by: Literal["repetition"]
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def class_of(self, row: Conversation, source: Source, path: str) -> str | None:
        return self.class_name if repeated_share(_reply(row) or "") > self.share else None


_KINDS: dict[str, type[Rule]] = {
    "column": ByColumn,
    "file": ByFile,
    "class": ByClass,
    "score": ByScore,
    "number": ByNumber,
    "agreement": ByAgreement,
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
    classes: Annotated[list[dict[str, object]], Field(min_length=1)]
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
    rules: tuple[Rule, ...] = ()
    fallback: str | None = None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that rules look at, and for `a.b` a too."""
        read = [column for rule in self.rules if (column := rule.reads()) is not None]
        return frozenset(read) | {column.partition(".")[0] for column in read}

    @property
    def runs_code(self) -> bool:
        return any(isinstance(rule, ByCode) for rule in self.rules)

    def learn(self, row: Conversation, source: Source) -> None:
        """Take in a row, where rules compare rows."""
        for rule in self.rules:
            rule.learn(row, source)

    @property
    def compares_rows(self) -> bool:
        """Whether all rows must be learned before the first is classed."""
        return any(isinstance(rule, ByAgreement) for rule in self.rules)


class Match(NamedTuple):
    """A row's class, and the number of the rule that gave it, from 1 on; 0 is the fallback."""

    class_name: str
    rule: int
    other: str | None = None
    """the value that a rule by column doesn't list"""


def match(row: Conversation, source: Source, place: str, table: ClassTable) -> Match | None:
    """The first rule that knows the row's class. `source` is the row as its file has it, `place` its `file:line`. Raises
    RowProblem where the row has a value that a rule can't use."""
    path = _PLACE.sub("", place)
    for number, rule in enumerate(table.rules, start=1):
        name = rule.class_of(row, source, path)
        if name is not None:
            return Match(name, number, rule.unlisted(source))
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
    file = read_yaml(path, "a YAML file of classes", EXAMPLE)
    return class_table(file, file.values, ())


def known_classes(values: Mapping[str, object]) -> ClassTable:
    """The table that values of our own give, as a file's would."""
    given = _GivenTable.model_validate(values)
    classes = [_GivenClass.model_validate(one) for one in given.classes]
    assert all(one.weight is not None for one in classes)
    return ClassTable(
        {one.name: QualityClass(one.name, one.condition, one.weight or 0.0) for one in classes},
        tuple(_KINDS[str(rule["by"])].model_validate(rule) for rule in given.rules),
        given.fallback,
    )


def class_table(file: YamlFile, values: Mapping[str, object], where: Place) -> ClassTable:
    """The table that a part of a file gives; `where` is the way to that part."""
    given = file.checked(_GivenTable, values, where)
    classes: dict[str, QualityClass] = {}
    for at, value in enumerate(given.classes):
        place = (*where, "classes", at)
        one = file.checked(_GivenClass, value, place)
        if one.name in classes:
            raise file.wrong((*place, "name"), f"the class {one.name!r} is given twice. Keep one.")
        if not one.name.isprintable():
            raise file.wrong((*place, "name"), f"the name {shown(one.name)} has control characters. Give plain words.")
        if not is_condition(one.condition):
            limits = f"one line of at most {MAX_CONDITION_LENGTH} characters without outer blanks"
            raise file.wrong((*place, "condition"), f"the condition is {shown(one.condition)}. Give {limits}.")
        if token := control_token_in(one.condition):
            raise file.wrong((*place, "condition"), f"the condition holds the control token {token}. Give plain words.")
        classes[one.name] = _quality(file, one, given.beta, place)
    if given.beta is not None and all(one.reason == "" for one in classes.values()):
        raise file.wrong((*where, "beta"), "no class has a `reward`, so `beta` does nothing. Give rewards, or leave it out.")
    rules = tuple(_rule(file, value, classes, (*where, "rules", at)) for at, value in enumerate(given.rules))
    if given.fallback is not None and given.fallback not in classes:
        raise file.wrong((*where, "fallback"), unknown("class", given.fallback, classes))
    return ClassTable(classes, rules, given.fallback)


def _quality(file: YamlFile, one: _GivenClass, beta: float | None, where: Place) -> QualityClass:
    if (one.weight is None) == (one.reward is None):
        found = "neither `weight` nor `reward`" if one.weight is None else "both `weight` and `reward`"
        raise file.wrong(where, f"the class {one.name!r} has {found}. Give one of them.")
    if one.reward is None:
        assert one.weight is not None
        return QualityClass(one.name, one.condition, one.weight)
    if beta is None:
        message = f"the class {one.name!r} has a `reward`, and the file no `beta`. Give `beta`: a weight is exp(reward / beta)."
        raise file.wrong((*where, "reward"), message)
    exponent, reason = one.reward / beta, f"exp({one.reward:g} / {beta:g})"
    if exponent > math.log(MAX_WEIGHT):
        message = f"the weight of {one.name!r} is {reason}, over {MAX_WEIGHT:g}. Lower the reward, or raise `beta`."
        raise file.wrong((*where, "reward"), message)
    return QualityClass(one.name, one.condition, math.exp(exponent), reason)


def _rule(file: YamlFile, value: Mapping[str, object], classes: Mapping[str, QualityClass], where: Place) -> Rule:
    kind = value.get("by")
    if not isinstance(kind, str) or kind not in _KINDS:
        message = "a rule has no `by`" if kind is None else f"unknown rule `by: {kind}`"
        raise file.wrong((*where, "by"), f"{message}. Give one of: {', '.join(_KINDS)}.")
    rule = file.checked(_KINDS[kind], value, where)
    if problem := rule.problem():
        raise file.wrong(where, f"rule by {kind}: {problem}.")
    for name, field in rule.names().items():
        if name not in classes:
            raise file.wrong((*where, field), unknown("class", name, classes))
    return rule
