"""What an import is asked to do: its options, and what is known of a public data set (`sets.py`) where they say nothing."""

import fnmatch
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from ochat.conversation import MAX_WEIGHT
from ochat.data.classes import ClassTable, QualityClass, known_classes, read_classes
from ochat.data.columns import read_columns
from ochat.data.formats import FORMATS, RowFormat, format_named
from ochat.data.problem import shown
from ochat.data.sets import DataSet, set_named, set_of
from ochat.data.turns import value_of
from ochat.errors import OchatError
from ochat.files import refuse_twice
from ochat.registry import control_token_in
from ochat.template import MAX_CONDITION_LENGTH, is_condition


@dataclass(frozen=True)
class Options:
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """files of rows (jsonl, a JSON array, CSV, parquet; .gz and .zst too), folders of them, or data sets on the hub by id"""
    output: Path
    """conversations to write, one a line"""
    condition: str | None = None
    """the class's condition, such as "GPT4 Correct"; replaces the rows' own"""
    weight: float | None = None
    """the class's weight, 1 when left out; multiplies a message's own weight, which is 1 where absent"""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """the class's name in reports; its condition when left out"""
    classes: Path | None = None
    """YAML file of classes and of the rules that give rows theirs, instead of one class for all (examples/classes.yaml)"""
    drop_unassigned: bool = False
    """leave out, and count, rows that no rule of --classes gives a class; otherwise they are an error"""
    drop_class: tuple[str, ...] = ()
    """leave out, and count, conversations of these classes"""
    exclude: tuple[str, ...] | None = None
    """COLUMN=PATTERN: leave out, and count, rows whose column fits (* is anything, and nothing means an empty one)"""
    cap: int | None = None
    """the most conversations to write, drawn by prompt; 0 for all"""
    set: str | None = None
    """the public data set that the input is a copy of, by id, such as tiedong/goat: its format, classes, exclusions and cap are
    known, and each option given takes its place. Found without this where the input's path holds the id"""
    math_condition: bool = False
    """the set's checked mathematics is learned under "Math Correct", as in OpenChat 3.5-1210 and later"""
    skip_invalid: bool = False
    """leave out rows that can't be used, count them, and write them to OUTPUT.rejects.jsonl with what is wrong"""
    allow_extra_keys: bool = False
    """leave out fields that no format knows, and count them"""
    tools_as_text: bool = False
    """take calls of tools as text of the assistant, their results as the user's; otherwise rows with tools can't be used"""
    columns: Path | None = None
    """YAML file that names the columns of rows of no known format: prompt and answer, or messages with role, content and roles;
    system, condition, class, weight"""
    format: str | None = None
    """the rows' format, instead of the first that fits each"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise OchatError("No input given. Name at least one file, folder or data set.")
        if self.weight is not None and not 0 <= self.weight <= MAX_WEIGHT:
            raise OchatError(f"--weight is {self.weight}. Give 0 to {MAX_WEIGHT:g}: 1.0 for expert data, less for others.")
        if self.condition and not is_condition(self.condition):
            limits = f"one line of at most {MAX_CONDITION_LENGTH} characters without outer blanks"
            raise OchatError(f"--condition is {shown(self.condition)}. Give {limits}.")
        if self.condition and (token := control_token_in(self.condition)):
            raise OchatError(
                f"--condition is {shown(self.condition)}, which holds the control token {token}. Give plain words."
            )
        if self.class_name and not self.class_name.isprintable():
            raise OchatError(f"--class is {shown(self.class_name)}. Give plain words.")
        if not self.output.name:
            raise OchatError(f"--output is {str(self.output)!r}. Name a file to write.")
        refuse_twice(self.inputs)
        if self.output.suffix in (".gz", ".zst"):
            raise OchatError(f"{self.output}: rows are written as plain text. Leave out {self.output.suffix}.")
        if any(path.resolve() == self.output.resolve() for path in self.inputs):
            raise OchatError(f"{self.output} is an input too. Choose another --output.")
        if self.classes and (self.condition is not None or self.class_name is not None or self.weight is not None):
            raise OchatError(
                "--classes says what each row's condition, weight and class are. Leave out --condition, --weight, --class."
            )
        if self.drop_unassigned and not self.classes:
            raise OchatError("--drop-unassigned is about the rules of --classes. Name that file too.")
        if self.columns and self.format:
            raise OchatError("--columns and --format both say what the rows are. Give one.")
        if self.cap is not None and self.cap < 0:
            raise OchatError(f"--cap is {self.cap}. Give the most conversations to write, or 0 for all.")
        for given in self.exclude or ():
            if not given.partition("=")[0].strip() or "=" not in given:
                raise OchatError(f"--exclude is {given!r}. Give COLUMN=PATTERN, such as 'source=*camel*'.")

    @property
    def rejects(self) -> Path:
        """Where rows that can't be used are written."""
        return self.output.with_name(f"{self.output.name}.rejects.jsonl")


class Exclusion(NamedTuple):
    """Rows to leave out: those whose column fits a pattern."""

    column: str
    pattern: str
    reason: str = ""

    def fits(self, row: object) -> bool:
        value = value_of(row, self.column) if isinstance(row, dict) else None
        return value is not None and fnmatch.fnmatchcase(str(value).strip(), self.pattern)

    def __str__(self) -> str:
        return f"{self.column}={self.pattern}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class Plan:
    """What the options come to, with what is known of the data set where they say nothing."""

    options: Options
    known: DataSet | None
    formats: tuple[RowFormat, ...]
    table: ClassTable | None
    origin: str
    """of the table, for messages"""
    exclude: tuple[Exclusion, ...]
    cap: int

    @property
    def only(self) -> tuple[str, ...]:
        """The files to read of a folder or of a data set on the hub."""
        return self.known.files if self.known else ()


def known_set(options: Options) -> DataSet | None:
    """The data set that all inputs are of, by --set or by their paths."""
    if options.set:
        return set_named(options.set)
    sets = {set_of(path) for path in options.inputs}
    if len(sets) > 1:
        named = ", ".join(sorted(one.id for one in sets if one))
        raise OchatError(
            f"Not all inputs are of one data set, and what is known of {named} is for its rows alone. Import each apart."
        )
    return sets.pop()


def formats_of(options: Options, known: DataSet | None, columns: frozenset[str]) -> tuple[RowFormat, ...]:
    """The formats that the rows may have, and with them these columns, which classes are told by."""
    if options.columns:
        formats: tuple[RowFormat, ...] = (read_columns(options.columns),)
    elif options.format:
        formats = (format_named(options.format),)
    else:
        formats = (known.row_format(),) if known else FORMATS
    return tuple(replace(format, metadata=format.metadata | columns) for format in formats)


def table_of(options: Options, known: DataSet | None) -> tuple[ClassTable | None, str]:
    """The table that gives rows their classes, and where it's from: the file's, or the set's unless one class is given for all."""
    if options.classes:
        return read_classes(options.classes), str(options.classes)
    if known is None or (len(known.classes) > 1 and options.condition is not None):
        return None, ""
    table = known_classes(known.table(math_condition=options.math_condition))
    if options.class_name is None and options.condition is None and options.weight is None:
        return table, known.id
    if len(known.classes) > 1:
        names = ", ".join(one.name for one in known.classes)
        raise OchatError(f"{known.id} has the classes {names}. Make it one with --condition, or give a table with --classes.")
    (own,) = table.classes.values()
    name = options.class_name or own.name
    condition = own.condition if options.condition is None else options.condition
    weight = own.weight if options.weight is None else options.weight
    return ClassTable({name: QualityClass(name, condition, weight)}, fallback=name), known.id


def plan_of(options: Options, table: ClassTable | None = None, origin: str = "") -> Plan:
    """The options' plan. A table given here (with where it's from, for messages) is the one that gives rows their classes."""
    known = known_set(options)
    if options.math_condition and not (known and any(one.is_math for one in known.classes)):
        raise OchatError(
            "--math-condition is for data sets that are known, and have mathematics. Leave it out, or name one with --set."
        )
    if table is None:
        table, origin = table_of(options, known)
    if unknown := [name for name in options.drop_class if table and name not in table.classes]:
        raise OchatError(f"--drop-class {unknown[0]}: no such class. Known: {', '.join(table.classes if table else ())}.")
    given = ((one, "") for one in options.exclude) if options.exclude is not None else known.exclude if known else ()
    exclude = [Exclusion(column, pattern, why) for one, why in given for column, _, pattern in [one.partition("=")]]
    columns = (table.columns if table else frozenset()) | {
        name for one in exclude for name in (one.column, one.column.partition(".")[0])
    }
    cap = (known.cap if known else None) if options.cap is None else options.cap
    return Plan(options, known, formats_of(options, known, columns), table, origin, tuple(exclude), cap or 0)
