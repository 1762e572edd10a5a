"""`ochat data import`: turn rows of any known format into our conversations, all of one class, or of the classes that
a table gives them. What is known of a public data set (`sets.py`) stands in for the options that are left out."""

import json
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ochat.conversation import Conversation, read_conversations
from ochat.data.classes import ClassTable, apply_class, each_row, match
from ochat.data.formats import detect_format, known_part, with_class
from ochat.data.import_plan import Exclusion, Options, Plan, plan_of
from ochat.data.import_report import Counts, Imported, Made, report
from ochat.data.problem import RowProblem, counted, shown
from ochat.data.read import Unreadable, files_of, is_on_hub, read_all
from ochat.data.sample import keep_sample, sample_key
from ochat.data.tool_text import AS_TEXT, tools_as_text
from ochat.data.turns import Row
from ochat.errors import DataError, OchatError
from ochat.files import new_file


def import_row(value: object, plan: Plan, place: str = "") -> Imported:
    """One row as conversations of the class, or of those that a table gives them. Raises RowProblem where it can't be used."""
    options, table = plan.options, plan.table
    if isinstance(value, Unreadable):
        raise value.problem
    written = tools_as_text(value) if options.tools_as_text and isinstance(value, dict) else value
    format = detect_format(written, plan.formats)
    assert isinstance(value, dict)  # detect_format knows objects only
    assert isinstance(written, dict)
    row, left_out = known_part(written, format, allow_extra_keys=options.allow_extra_keys)
    conversations, notes = format.convert(row)
    if format.has_classes and (options.condition is not None or options.class_name is not None):
        raise OchatError(
            f"Rows of {format.name} have classes of their own ({', '.join(sorted({c.class_name for c in conversations}))}), "
            "which one --condition or --class would make one. Leave those options out."
        )
    own = options.condition, 1.0 if options.weight is None else options.weight, options.class_name
    made = [_classed(given, value, place, table) if table else Made(given, with_class(given, *own)) for given in conversations]
    return Imported(format, made, notes if written is value else (AS_TEXT, *notes), left_out)


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


def refuse_input(options: Options, only: tuple[str, ...] = ()) -> None:
    """Raise where an input isn't there, or a folder of inputs holds a file that is to be written."""
    for path in options.inputs:
        for file in [] if is_on_hub(path) else files_of(path, only):
            if file.resolve() in (options.output.resolve(), options.rejects.resolve()):
                raise OchatError(f"{path} holds {file}, which import writes. Choose another --output.")


def reject(place: str, value: object, problem: RowProblem) -> str:
    """A line of the rejects file: the place, what is wrong, and the row, as text where it isn't JSON."""
    row = value.text if isinstance(value, Unreadable) else value
    said = {"place": place, "reason": problem.reason, "problem": str(problem)}
    try:
        return json.dumps({**said, "row": row}, default=str)
    except (RecursionError, ValueError):  # deeper than Python goes
        return json.dumps({**said, "row": shown(row)})


def main(options: Options) -> None:
    plan = plan_of(options)
    refuse_other_file(options.output)
    print(report(import_rows(plan), plan))


def import_rows(plan: Plan) -> Counts:
    """Write the conversations of the plan's inputs; what became of the rows. Raises OchatError where nothing is written."""
    options, table, counts = plan.options, plan.table, Counts()
    refuse_input(options, plan.only)
    if table and table.compares_rows:
        learn(plan, table)

    def step(row: tuple[str, object]) -> tuple[str, object, Imported | RowProblem | Exclusion]:
        place, value = row
        if excluded := excluding(value, plan):
            return place, value, excluded
        try:
            return place, value, import_row(value, plan, place)
        except RowProblem as problem:
            return place, value, problem

    keys = array("Q")
    rows = _progress(_rows(plan))
    with ExitStack() as stack:
        rejects: TextIO | None = None
        if options.skip_invalid:
            rejects = stack.enter_context(stack.enter_context(new_file(options.rejects)).open("w", encoding="utf-8"))
        part = stack.enter_context(new_file(options.output))
        with part.open("w", encoding="utf-8") as out:
            for place, value, found in each_row(step, rows, table) if table else map(step, rows):
                counts.n_read += 1
                if isinstance(found, Exclusion):
                    counts.excluded[found] += 1
                    continue
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
                    if row.class_name in options.drop_class:
                        counts.dropped[row.class_name] += 1
                        continue
                    if table:
                        counts.add_match(given, match)
                    counts.add_conversation(given, row)
                    out.write(row.to_json() + "\n")
                    if plan.cap:
                        keys.append(sample_key(row))
        assert counts.formats.total() + counts.excluded.total() + counts.rejected.total() == counts.n_read
        refuse_unwritten(counts, plan)
        if plan.cap and counts.n_written > plan.cap:
            counts.n_capped = counts.n_written - plan.cap
            keep_sample(part, keys, plan.cap)
    if not options.skip_invalid:
        options.rejects.unlink(missing_ok=True)  # of an earlier output, which has just gone
    return counts


def learn(plan: Plan, table: ClassTable) -> None:
    """Show the table all rows, where its rules compare them."""
    unclassed = replace(plan, table=None)
    for place, value in _progress(_rows(plan)):
        if excluding(value, plan):
            continue
        try:
            found = import_row(value, unclassed, place)
        except RowProblem:
            continue  # told when the row is read again
        assert isinstance(value, dict)
        for made in found.conversations:
            table.learn(made.given, value)


def excluding(value: object, plan: Plan) -> Exclusion | None:
    """What leaves the row out, if anything does."""
    return next((one for one in plan.exclude if one.fits(value)), None)


def refuse_unwritten(counts: Counts, plan: Plan) -> None:
    """Raise where rows have no class, or nothing was written."""
    n_more = counts.n_unassigned - 1
    if counts.n_unassigned and not plan.options.drop_unassigned:
        raise DataError(
            f"{counts.first_unassigned}: no rule of {plan.origin} gives this row a class"
            f"{', and ' + counted(n_more, 'other has', 'others have') + ' none' if n_more else ''}. Add a rule, name a `fallback`, or leave such rows out with --drop-unassigned."
        )
    if not counts.n_written and counts.n_unassigned:
        raise DataError(
            f"No rule of {plan.origin} gives any of {counted(counts.n_unassigned, 'row')} a class. Check the rules."
        )
    if not counts.n_written:
        left_out = counts.excluded.total() + counts.dropped.total()
        why = f"{left_out:,} were left out by --exclude or --drop-class. " if left_out else ""
        if counts.first_problem:
            n = counts.rejected.total()
            of_all = f"All {n:,} rows were rejected." if n > 1 else "It is the only row."
            why += f"{counts.first_problem} "
            why += of_all if n == counts.n_read else f"{counted(n, 'row was', 'rows were')} rejected, of {counts.n_read:,}."
        raise DataError(f"{', '.join(map(str, plan.options.inputs))}: no row that can be used. {why or 'Check the files.'}")


def _rows(plan: Plan) -> Iterator[tuple[str, object]]:
    for path in plan.options.inputs:
        yield from read_all(path, plan.only)


def _progress(rows: Iterator[tuple[str, object]]) -> "tqdm[tuple[str, object]]":
    return tqdm(rows, unit=" rows", unit_scale=True, mininterval=1, disable=None, leave=False)
