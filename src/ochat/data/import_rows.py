"""`ochat data import`: turn rows of any known format into our conversations, all of one class."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ochat.conversation import MAX_WEIGHT, read_conversations, read_json_lines
from ochat.data.formats import detect_format, with_class
from ochat.errors import DataError, OchatError
from ochat.files import new_file


@dataclass(frozen=True)
class Options:
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """jsonl files (.gz too): our items, or OpenAI's messages"""
    output: Path
    """conversations to write, one a line"""
    condition: str | None = None
    """the class's condition, such as "GPT4 Correct"; replaces the rows' own"""
    weight: float = 1.0
    """the class's weight; multiplies a message's own weight, which is 1 where absent"""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """the class's name in reports; its condition when left out"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise OchatError("No input given. Name at least one jsonl file.")
        if not 0 <= self.weight <= MAX_WEIGHT:
            raise OchatError(f"--weight is {self.weight}. Give 0 to {MAX_WEIGHT:g}: 1.0 for expert data, less for others.")
        if self.output.suffix == ".gz":
            raise OchatError(f"{self.output}: rows are written as plain text. Leave out .gz.")
        if any(path.resolve() == self.output.resolve() for path in self.inputs):
            raise OchatError(f"{self.output} is an input too. Choose another --output.")


def refuse_other_file(path: Path) -> None:
    """Raise OchatError where the file exists and doesn't hold conversations: those may be imported anew."""
    if path.is_file() and path.stat().st_size:
        try:
            next(read_conversations(path))
        except DataError as error:
            raise OchatError(f"{path} exists and holds no conversations. Choose another --output.") from error


def main(options: Options) -> None:
    n_rows: Counter[str] = Counter()
    n_replaced = n_conditioned = n_unlearned = 0
    refuse_other_file(options.output)
    with new_file(options.output) as part, part.open("w", encoding="utf-8") as out:
        for path in options.inputs:
            for place, value in read_json_lines(path):
                format = detect_format(value, place)
                assert isinstance(value, dict)  # detect_format knows objects only
                given = format.convert(value, place)
                row = with_class(given, options.condition, options.weight, options.class_name)
                n_rows[format.name] += 1
                n_replaced += bool(given.condition) and given.condition != row.condition
                n_conditioned += bool(row.condition)
                n_unlearned += not any(item.weight for item in row.items)
                out.write(row.to_json() + "\n")
        if not n_rows:
            raise DataError(f"{', '.join(map(str, options.inputs))}: no rows. Check the files.")
    for name, count in n_rows.items():
        print(f"{count:>9,} rows of {name}")
    if not options.condition:
        print(f"{n_conditioned:>9,} of them have a condition; the others teach the bare prompt")
    if n_replaced:
        print(f"{n_replaced:>9,} of them had another condition, now {options.condition!r}")
    if n_unlearned:
        print(f"{n_unlearned:>9,} of them have no message with a weight above 0, so nothing is learned from them")
    print(f"Wrote {options.output}: condition {options.condition or 'as given'}, weight {options.weight:g} times the rows' own")
