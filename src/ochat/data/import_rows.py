"""`ochat data import`: turn rows of any known format into our conversations, all of one class, or of the classes that
a table gives them."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple, TextIO

import tyro
from tqdm import tqdm

from ochat.conversation import MAX_WEIGHT, Conversation, read_conversations
from ochat.data.classes import ClassTable, Factors, Match, apply_class, each_row, factor_table, match, read_classes
from ochat.data.columns import read_columns
from ochat.data.formats import FORMATS, RowFormat, detect_format, format_named, known_part, with_class
from ochat.data.problem import RowProblem, shown
from ochat.data.read import Unreadable, files_of, is_on_hub, read_all
from ochat.data.turns import Row
from ochat.errors import DataError, OchatError
from ochat.files import new_file

MAX_NAMES = 1000  # of fields that are counted apart: rows that use keys as values would fill the memory
SHOWN_NAMES = 20


@dataclass(frozen=True)
class Options:
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """files of rows (jsonl, a JSON array, CSV, parquet; .gz and .zst too), folders of them, or data sets on the hub by id"""
    output: Path
    """conversations to write, one a line"""
    condition: str | None = None
    """the class's condition, such as "GPT4 Correct"; replaces the rows' own"""
    weight: float = 1.0
    """the class's weight; multiplies a message's own weight, which is 1 where absent"""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """the class's name in reports; its condition when left out"""
    classes: Path | None = None
    """YAML file of classes and of the rules that give rows theirs, instead of one class for all (examples/classes.yaml)"""
    drop_unassigned: bool = False
    """leave out, and count, rows that no rule of --classes gives a class; otherwise they are an error"""
    skip_invalid: bool = False
    """leave out rows that can't be used, count them, and write them to OUTPUT.rejects.jsonl with what is wrong"""
    allow_extra_keys: bool = False
    """leave out fields that no format knows, and count them"""
    columns: Path | None = None
    """YAML file that names the columns of rows of no known format: prompt and answer, or messages with role, content and roles;
    system, condition, class, weight"""
    format: str | None = None
    """the rows' format, instead of the first that fits each"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise OchatError("No input given. Name at least one file, folder or data set.")
        if not 0 <= self.weight <= MAX_WEIGHT:
            raise OchatError(f"--weight is {self.weight}. Give 0 to {MAX_WEIGHT:g}: 1.0 for expert data, less for others.")
        for option, given in (("--condition", self.condition), ("--class", self.class_name)):
            if given and not given.isprintable():
                raise OchatError(f"{option} is {shown(given)}. Give plain words.")
        if self.output.suffix in (".gz", ".zst"):
            raise OchatError(f"{self.output}: rows are written as plain text. Leave out {self.output.suffix}.")
        if any(path.resolve() == self.output.resolve() for path in self.inputs):
            raise OchatError(f"{self.output} is an input too. Choose another --output.")
        if self.classes and (self.condition is not None or self.class_name is not None or self.weight != 1):
            raise OchatError(
                "--classes says what each row's condition, weight and class are. Leave out --condition, --weight, --class."
            )
        if self.drop_unassigned and not self.classes:
            raise OchatError("--drop-unassigned is about the rules of --classes. Name that file too.")
        if self.columns and self.format:
            raise OchatError("--columns and --format both say what the rows are. Give one.")

    @property
    def rejects(self) -> Path:
        """Where rows that can't be used are written."""
        return self.output.with_name(f"{self.output.name}.rejects.jsonl")


class Made(NamedTuple):
    given: Conversation
    row: Conversation | None
    """as one of its class; None where no rule of a table gives it one"""
    match: Match | None = None
    """the class that a table gave it"""


class Imported(NamedTuple):
    format: RowFormat
    conversations: list[Made]
    notes: tuple[str, ...]
    left_out: list[str]


@dataclass
class Counts:
    """What became of the rows."""

    n_read: int = 0
    n_written: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    first_problem: str = ""
    notes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    n_replaced: int = 0
    n_conditioned: int = 0
    n_unlearned: int = 0
    n_empty: int = 0
    factors: dict[str, Factors] = field(default_factory=dict)  # by class of a table
    rules: Counter[int] = field(default_factory=Counter)  # conversations that each gave a class
    n_final: int = 0
    n_unassigned: int = 0
    first_unassigned: str = ""

    def add(self, imported: Imported) -> None:
        self.formats[imported.format.name] += 1
        self.notes.update(imported.notes)
        for name in imported.left_out:
            self.left_out[name if name in self.left_out or len(self.left_out) < MAX_NAMES else "others"] += 1

    def reject(self, place: str, problem: RowProblem) -> None:
        self.rejected[problem.reason] += 1
        self.first_problem = self.first_problem or f"{place}: {problem}"

    def add_match(self, given: Conversation, match: Match | None) -> None:
        if match is None:
            self.n_final += 1
        else:
            self.rules[match.rule] += 1
            self.factors.setdefault(match.class_name, Factors()).add(given)

    def add_unassigned(self, place: str) -> None:
        self.n_unassigned += 1
        self.first_unassigned = self.first_unassigned or place

    def add_conversation(self, given: Conversation, row: Conversation) -> None:
        self.n_written += 1
        self.n_replaced += bool(given.condition) and given.condition != row.condition
        self.n_conditioned += bool(row.condition)
        self.n_unlearned += not any(item.weight for item in row.items)
        self.n_empty += any(item.role == "assistant" and not item.content.strip() for item in row.items)


def import_row(
    value: object, formats: tuple[RowFormat, ...], options: Options, place: str = "", table: ClassTable | None = None
) -> Imported:
    """One row as conversations of the class, or of those that a table gives them. Raises RowProblem where it can't be used."""
    if isinstance(value, Unreadable):
        raise value.problem
    format = detect_format(value, formats)
    assert isinstance(value, dict)  # detect_format knows objects only
    row, left_out = known_part(value, format, allow_extra_keys=options.allow_extra_keys)
    conversations, notes = format.convert(row)
    if format.has_classes and (options.condition is not None or options.class_name is not None):
        raise OchatError(
            f"Rows of {format.name} have classes of their own ({', '.join(sorted({c.class_name for c in conversations}))}), "
            "which one --condition or --class would make one. Leave those options out."
        )
    own = options.condition, options.weight, options.class_name
    made = [_classed(given, value, place, table) if table else Made(given, with_class(given, *own)) for given in conversations]
    return Imported(format, made, notes, left_out)


def _classed(given: Conversation, source: Row, place: str, table: ClassTable) -> Made:
    found = match(given, source, place, table)
    # A row in our format without a class is final: its weights are what its writer meant, and the fallback isn't for it.
    if "items" in source and not given.class_name and not (found and found.rule):
        return Made(given, with_class(given, None, 1.0, None))
    return Made(given, apply_class(given, table.classes[found.class_name]) if found else None, found)


def refuse_other_file(path: Path) -> None:
    """Raise OchatError where the file exists and doesn't hold conversations: those may be imported anew."""
    if path.is_file() and path.stat().st_size:
        try:
            next(read_conversations(path))
        except DataError as error:
            raise OchatError(f"{path} exists and holds no conversations. Choose another --output.") from error


def refuse_input(options: Options) -> None:
    """Raise where an input isn't there, or a folder of inputs holds a file that is to be written."""
    for path in options.inputs:
        for file in [] if is_on_hub(path) else files_of(path):
            if file.resolve() in (options.output.resolve(), options.rejects.resolve()):
                raise OchatError(f"{path} holds {file}, which import writes. Choose another --output.")


def formats_of(options: Options, columns: frozenset[str] = frozenset()) -> tuple[RowFormat, ...]:
    """The formats that the rows may have, and with them these columns, which classes are told by."""
    if options.columns:
        formats: tuple[RowFormat, ...] = (read_columns(options.columns),)
    else:
        formats = (format_named(options.format),) if options.format else FORMATS
    return tuple(replace(format, metadata=format.metadata | columns) for format in formats)


def reject(place: str, value: object, problem: RowProblem) -> str:
    """A line of the rejects file: the place, what is wrong, and the row, as text where it isn't JSON."""
    row = value.text if isinstance(value, Unreadable) else value
    said = {"place": place, "reason": problem.reason, "problem": str(problem)}
    try:
        return json.dumps({**said, "row": row}, default=str)
    except (RecursionError, ValueError):  # deeper than Python goes
        return json.dumps({**said, "row": shown(row)})


def main(options: Options) -> None:
    refuse_input(options)
    refuse_other_file(options.output)
    table = read_classes(options.classes) if options.classes else None
    formats, counts = formats_of(options, table.columns if table else frozenset()), Counts()

    def step(row: tuple[str, object]) -> tuple[str, object, Imported | RowProblem]:
        place, value = row
        try:
            return place, value, import_row(value, formats, options, place, table)
        except RowProblem as problem:
            return place, value, problem

    rows = tqdm(_rows(options), unit=" rows", unit_scale=True, mininterval=1, disable=None, leave=False)
    with ExitStack() as stack:
        rejects: TextIO | None = None
        if options.skip_invalid:
            rejects = stack.enter_context(stack.enter_context(new_file(options.rejects)).open("w", encoding="utf-8"))
        out = stack.enter_context(stack.enter_context(new_file(options.output)).open("w", encoding="utf-8"))
        for place, value, found in each_row(step, rows, table) if table else map(step, rows):
            counts.n_read += 1
            if isinstance(found, RowProblem):
                if rejects is None:
                    raise DataError(f"{place}: {found} Or leave out such rows, counted, with --skip-invalid.") from found
                counts.reject(place, found)
                rejects.write(reject(place, value, found) + "\n")
                continue
            counts.add(found)
            for given, row, match in found.conversations:
                if row is None:
                    counts.add_unassigned(place)
                    continue
                if table:
                    counts.add_match(given, match)
                counts.add_conversation(given, row)
                out.write(row.to_json() + "\n")
        assert counts.formats.total() + counts.rejected.total() == counts.n_read
        if counts.n_unassigned and not options.drop_unassigned:
            raise DataError(
                f"{counts.first_unassigned}: no rule of {options.classes} gives this row a class, and {counts.n_unassigned - 1:,} more "
                "have none. Add a rule, name a `fallback`, or leave such rows out with --drop-unassigned."
            )
        if not counts.n_written and counts.n_unassigned:
            raise DataError(f"No rule of {options.classes} gives any of {counts.n_unassigned:,} rows a class. Check the rules.")
        if not counts.n_written:
            why = f"{counts.first_problem} All {counts.n_read:,} rows were rejected." if counts.n_read else "Check the files."
            raise DataError(f"{', '.join(map(str, options.inputs))}: no row that can be used. {why}")
    print(report(counts, options, table))


def _rows(options: Options) -> Iterator[tuple[str, object]]:
    for path in options.inputs:
        yield from read_all(path)


def class_lines(counts: Counts, table: ClassTable) -> list[str]:
    """The classes with both factors of their weights, and what each rule did."""
    lines = [f"{'class':<16} {'condition':<16} {'rows':>9} {'message weight':>14} x {'class weight':>12} = {'effective':>9}"]
    for name, condition, rows, message, weight, effective in factor_table(counts.factors, table):
        reason = f"   {table.classes[name].reason}" if table.classes[name].reason else ""
        lines.append(f"{name:<16} {condition:<16} {rows:>9,} {message:>14.4g} x {weight:>12.4g} = {effective:>9.4g}{reason}")
    for number, rule in enumerate(table.rules, start=1):
        column = rule.reads()
        hint = "" if counts.rules[number] or column is None else f"; is there a column {column!r}?"
        about = f"column {column!r}" if column else "the conversation"
        lines.append(f"{counts.rules[number]:>9,} by rule {number} ({rule.by}, {about}){hint}")
    if table.fallback is not None:
        lines.append(f"{counts.rules[0]:>9,} by no rule, so of the fallback {table.fallback!r}")
    if counts.n_final:
        lines.append(f"{counts.n_final:>9,} in our format without a class, taken as they are")
    if counts.n_unassigned:
        lines.append(
            f"{counts.n_unassigned:>9,} left out, since no rule gives them a class; the first is {counts.first_unassigned}"
        )
    return lines


def report(counts: Counts, options: Options, table: ClassTable | None = None) -> str:
    """What was read, and what became of it."""
    lines = [f"{count:>9,} rows of {name}" for name, count in counts.formats.most_common()]
    if table:
        lines += class_lines(counts, table)
    if counts.n_written != counts.formats.total():
        lines.append(f"{counts.n_written:>9,} conversations made of them")
    if not options.condition:
        lines.append(f"{counts.n_conditioned:>9,} of them have a condition; the others teach the bare prompt")
    if counts.n_replaced:
        now = "their class's" if table else repr(options.condition)
        lines.append(f"{counts.n_replaced:>9,} of them had another condition, now {now}")
    if counts.n_unlearned:
        lines.append(f"{counts.n_unlearned:>9,} of them have no message with a weight above 0, so nothing is learned from them")
    if counts.n_empty:
        lines.append(f"{counts.n_empty:>9,} of them have an empty answer, which teaches to say nothing")
    lines += [f"{count:>9,} times: {note}" for note, count in counts.notes.most_common()]
    if counts.left_out:
        names = [f"{shown(name)[1:-1]} ({count:,})" for name, count in counts.left_out.most_common(SHOWN_NAMES)]
        more = f" and {len(counts.left_out) - SHOWN_NAMES:,} more" if len(counts.left_out) > SHOWN_NAMES else ""
        lines.append(f"Fields left out: {', '.join(names)}{more}")
    if options.skip_invalid:
        lines.append(f"{counts.n_read:>9,} rows read = {counts.formats.total():,} kept + {counts.rejected.total():,} rejected")
        lines += [f"{count:>9,} rejected: {reason}" for reason, count in counts.rejected.most_common()]
        lines.append(f"Wrote {options.rejects}: each rejected row, its place and its problem")
    condition = options.condition or "as given"
    if table:
        lines.append(f"Wrote {options.output}: {counts.n_written:,} conversations of the classes of {options.classes}")
        return "\n".join(lines)
    lines.append(f"Wrote {options.output}: condition {condition}, weight {options.weight:g} times the rows' own")
    return "\n".join(lines)
