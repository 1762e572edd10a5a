"""`ochat eval view`: the results of evaluations as tables like the model card's, as a page, and for other tools.

Rows that others reported stand in the tables too, marked as such: they were measured with other settings than any of these."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ochat.evaluation.card import CARD, GROK, MT_BENCH, Table
from ochat.evaluation.judge import read_score
from ochat.evaluation.results import Count, Run, count, find_runs
from ochat.evaluation.tasks import BENCHMARKS
from ochat.files import write_text


@dataclass(frozen=True)
class Options:
    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """folders of `ochat eval run`, or folders that hold several; --result-path when left out"""
    result_path: Path = Path("runs/eval")
    """the folder whose results are shown when none is named"""
    tasks: bool = False
    """show every file's figures too"""
    html: Path | None = None
    """write a page with intervals, every file's figures and questions with their replies"""
    examples: int = 20
    """questions of each file on the page, at most; 0 for all"""
    csv: Path | None = None
    """write every file's figures as a table for other programs"""
    inspect: Path | None = None
    """write a folder of logs for inspect's viewer"""


def main(options: Options) -> None:
    runs = find_runs(options.results or [options.result_path])
    print("\n\n".join(tables(runs) + (task_tables(runs) if options.tasks else [])))
    if options.html:
        from ochat.evaluation.results_page import results_page

        write_text(options.html, results_page(runs, options.examples))
        print(f"\nwrote {options.html}")
    if options.csv:
        write_text(options.csv, as_csv(runs))
        print(f"\nwrote {options.csv}")
    if options.inspect:
        from ochat.evaluation.inspect_log import write_logs

        for path in write_logs(runs, options.inspect):
            print(f"\nwrote {path}")


def scores(run: Run, *, original: bool = False) -> dict[str, float | None]:
    """A run's score in percent by benchmark, in our grader's eyes or the original's."""
    found: dict[str, float | None] = {}
    for task_type, rows in run.by(lambda row: row.task_type).items():
        of = count(rows)
        share = of.compatible if original else of.accuracy.value
        found[task_type] = None if share is None else 100 * share
    judged = read_score(run.folder, MT_BENCH)
    return found | ({MT_BENCH: judged[0]} if judged and (found or not original) else {})


def subsets(run: Run) -> dict[str, str]:
    """The benchmarks of which a run has a part, and how many of how many."""
    groups = run.by(lambda row: row.task_type)
    parts = {folder: BENCHMARKS[folder].counted(len(rows)) for folder, rows in groups.items()}
    judged, n_turns = read_score(run.folder, MT_BENCH), 2 * BENCHMARKS[MT_BENCH].n_questions
    if judged and judged[1] < n_turns:
        parts[MT_BENCH] = f"{judged[1]} of {n_turns} turns"
    return {folder: part for folder, part in parts.items() if " of " in part}


@dataclass(frozen=True)
class CardRow:
    """A row of a card's table, its cells as the card writes them; those of a subset have a dagger."""

    name: str
    reported: bool  # by others
    cells: list[str]  # the average and the columns


def card_rows(table: Table, runs: Sequence[Run]) -> list[CardRow]:
    """The rows of a card's table. Runs that have no column of it are left out."""
    measured = [(run.name, scores(run), subsets(run)) for run in runs]
    measured += [(f"{run.name}, original's grader", scores(run, original=True), subsets(run)) for run in runs]
    rows = []
    for name, row, parts in measured:
        if any(row.get(folder) is not None for folder in table.columns):
            rows.append(CardRow(name, False, _cells(table, row, parts)))
    for name, row in table.reported_scores().items():
        rows.append(CardRow(name, True, _cells(table, row, {})))
    return rows


def _cells(table: Table, row: Mapping[str, float | None], parts: Mapping[str, str]) -> list[str]:
    values = {"": table.average(row)} | {folder: row.get(folder) for folder in table.columns}
    parts = {"": "", **parts} if any(folder in parts for folder in table.columns) else {}
    return [
        "-" if value is None else (f"{value:.2f}" if folder == MT_BENCH else f"{value:.1f}") + "†" * (folder in parts)
        for folder, value in values.items()
    ]


def subset_notes(table: Table, runs: Sequence[Run]) -> list[str]:
    """What the daggers of a card's table mean, a line a run."""
    notes = []
    for run in runs:
        parts = [f"{table.columns[folder]} {part}" for folder, part in subsets(run).items() if folder in table.columns]
        notes += [f"† {run.name}: a subset of the questions: {', '.join(parts)}"] if parts else []
    return notes


def tables(runs: Sequence[Run]) -> list[str]:
    """The card's tables, and how sure each figure of them is."""
    told = []
    for table in (CARD, GROK):
        rows = card_rows(table, runs)
        if all(row.reported for row in rows):
            continue
        lines = [["", "Average", *table.columns.values()]]
        lines += [[f"{row.name} *" if row.reported else row.name, *row.cells] for row in rows]
        note = "; MT-Bench from 1 to 10" if MT_BENCH in table.columns else ""
        notes = ["* as reported by others, not measured here", *subset_notes(table, runs)]
        told.append("\n".join([f"{table.title}, in percent{note}", aligned(lines), *notes]))
    lines = [["", "questions", "right [95 %]", "original's", "no answer", "cut"]]
    for run in runs:
        for task_type, some in run.by(lambda row: row.task_type).items():
            benchmark = BENCHMARKS[task_type]
            lines.append([f"{run.name}: {benchmark.name}", benchmark.counted(len(some)), *cells_of(count(some))])
    return [*told, f"How sure, and how it was answered\n{aligned(lines)}"]


def cells_of(of: Count) -> list[str]:
    """How they were answered, as a table's cells."""
    interval = of.accuracy
    original = "-" if of.compatible is None else f"{of.compatible:.1%}"
    right = f"{interval.value:.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return [right, original, f"{1 - of.n_found / of.n:.1%}", f"{of.n_cut / of.n:.1%}"]


def task_tables(runs: Sequence[Run]) -> list[str]:
    """A table a benchmark: the share that is right in each file."""
    told = []
    for task_type, files in by_file(runs).items():
        lines = [["", *(run.name for run in runs)]]
        for name, counts in files.items():
            lines.append([name, *(f"{counts[i].accuracy.value:.1%}" if i in counts else "-" for i in range(len(runs)))])
        told.append(f"{BENCHMARKS[task_type].name}\n{aligned(lines)}")
    return told


def by_file(runs: Sequence[Run]) -> dict[str, dict[str, Mapping[int, Count]]]:
    """The counts by benchmark, by file, by the run's index."""
    found: dict[str, dict[str, dict[int, Count]]] = {}
    for index, run in enumerate(runs):
        for name, rows in run.by(lambda row: row.task_name).items():
            found.setdefault(rows[0].task_type, {}).setdefault(name, {})[index] = count(rows)
    return {task_type: dict(found[task_type]) for task_type in BENCHMARKS if task_type in found}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text in columns, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))] for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def as_csv(runs: Sequence[Run]) -> str:
    """A line for each file of each run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["n", "n_correct", "n_found", "n_cut", "n_compatible", "n_tokens"]
    writer.writerow(["folder", "model", "condition", "benchmark", "task", *names, "accuracy", "low", "high"])
    for run in runs:
        for name, rows in run.by(lambda row: row.task_name).items():
            of = count(rows)
            counts = ["" if getattr(of, field) is None else getattr(of, field) for field in names]
            interval = of.accuracy
            estimate = [f"{value:.6f}" for value in (interval.value, interval.low, interval.high)]
            writer.writerow(
                [run.folder, run.model, run.condition, BENCHMARKS[rows[0].task_type].name, name, *counts, *estimate]
            )
    return out.getvalue()


if __name__ == "__main__":
    from ochat.cli import main as cli

    cli(["eval", "view", *sys.argv[1:]])
