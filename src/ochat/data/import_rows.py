"""`ochat data import`: turn rows of any known format into our conversations, all of one class."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple, TextIO

import tyro
from tqdm import tqdm

from ochat.conversation import MAX_WEIGHT, Conversation, read_conversations
from ochat.data.columns import read_columns
from ochat.data.formats import FORMATS, RowFormat, detect_format, format_named, known_part, with_class
from ochat.data.problem import RowProblem, shown
from ochat.data.read import Unreadable, files_of, is_on_hub, read_all
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
        if self.columns and self.format:
            raise OchatError("--columns and --format both say what the rows are. Give one.")

    @property
    def rejects(self) -> Path:
        """Where rows that can't be used are written."""
        return self.output.with_name(f"{self.output.name}.rejects.jsonl")


class Imported(NamedTuple):
    format: RowFormat
    conversations: list[tuple[Conversation, Conversation]]
    """as given, and as one of the class"""
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

    def add(self, imported: Imported) -> None:
        self.formats[imported.format.name] += 1
        self.notes.update(imported.notes)
        for name in imported.left_out:
            self.left_out[name if name in self.left_out or len(self.left_out) < MAX_NAMES else "others"] += 1

    def reject(self, place: str, problem: RowProblem) -> None:
        self.rejected[problem.reason] += 1
        self.first_problem = self.first_problem or f"{place}: {problem}"

    def add_conversation(self, given: Conversation, row: Conversation) -> None:
        self.n_written += 1
        self.n_replaced += bool(given.condition) and given.condition != row.condition
        self.n_conditioned += bool(row.condition)
        self.n_unlearned += not any(item.weight for item in row.items)
        self.n_empty += any(item.role == "assistant" and not item.content.strip() for item in row.items)


def import_row(value: object, formats: tuple[RowFormat, ...], options: Options) -> Imported:
    """One row as conversations of the class. Raises RowProblem where it can't be used."""
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
    return Imported(format, [(given, with_class(given, *own)) for given in conversations], notes, left_out)


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


def formats_of(options: Options) -> tuple[RowFormat, ...]:
    """The formats that the rows may have."""
    if options.columns:
        return (read_columns(options.columns),)
    return (format_named(options.format),) if options.format else FORMATS


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
    formats, counts = formats_of(options), Counts()
    with ExitStack() as stack:
        rejects: TextIO | None = None
        if options.skip_invalid:
            rejects = stack.enter_context(stack.enter_context(new_file(options.rejects)).open("w", encoding="utf-8"))
        out = stack.enter_context(stack.enter_context(new_file(options.output)).open("w", encoding="utf-8"))
        for place, value in tqdm(_rows(options), unit=" rows", unit_scale=True, mininterval=1, disable=None, leave=False):
            counts.n_read += 1
            try:
                found = import_row(value, formats, options)
            except RowProblem as problem:
                if rejects is None:
                    raise DataError(f"{place}: {problem} Or leave out such rows, counted, with --skip-invalid.") from problem
                counts.reject(place, problem)
                rejects.write(reject(place, value, problem) + "\n")
                continue
            counts.add(found)
            for given, row in found.conversations:
                counts.add_conversation(given, row)
                out.write(row.to_json() + "\n")
        assert counts.formats.total() + counts.rejected.total() == counts.n_read
        if not counts.n_written:
            why = f"{counts.first_problem} All {counts.n_read:,} rows were rejected." if counts.n_read else "Check the files."
            raise DataError(f"{', '.join(map(str, options.inputs))}: no row that can be used. {why}")
    print(report(counts, options))


def _rows(options: Options) -> Iterator[tuple[str, object]]:
    for path in options.inputs:
        yield from read_all(path)


def report(counts: Counts, options: Options) -> str:
    """What was read, and what became of it."""
    lines = [f"{count:>9,} rows of {name}" for name, count in counts.formats.most_common()]
    if counts.n_written != counts.formats.total():
        lines.append(f"{counts.n_written:>9,} conversations made of them")
    if not options.condition:
        lines.append(f"{counts.n_conditioned:>9,} of them have a condition; the others teach the bare prompt")
    if counts.n_replaced:
        lines.append(f"{counts.n_replaced:>9,} of them had another condition, now {options.condition!r}")
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
    lines.append(f"Wrote {options.output}: condition {condition}, weight {options.weight:g} times the rows' own")
    return "\n".join(lines)
