"""What an evaluation leaves in its folder, and how its parts are counted.

`grades.jsonl` has a line a question with the reply and both grades; everything else, the summary, tables and pages, is counted from
it. So results of different days and models can be read together."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ochat.conversation import read_json_lines
from ochat.errors import DataError, OchatError
from ochat.evaluation.graders.final_answer import boxed
from ochat.evaluation.grading import Graded
from ochat.evaluation.journal import TOO_LONG, Reply
from ochat.evaluation.statistics import Estimate, share
from ochat.evaluation.tasks import BENCHMARKS, OWN, PLUS, PRIVATE, Task, shown
from ochat.files import write_json, write_text

CONFIG_FILE, JOURNAL_FILE, GRADES_FILE, SUMMARY_FILE = "config.json", "replies.jsonl", "grades.jsonl", "summary.json"
CONTROL = "control"  # the folder of a sweep's control


@dataclass(frozen=True)
class Row:
    """A question's reply and how it was graded."""

    question: str
    reply: str
    answer: object  # what the reply was taken to say
    found: bool
    correct: bool
    task_type: str = OWN
    task_name: str = OWN
    row: int = 0
    label: object = None
    finish: str = "stop"
    n_tokens: int = 0
    compatible: bool | None = None  # right in the original's eyes; None where it has none

    @property
    def place(self) -> tuple[str, int]:
        return self.task_name, self.row

    @property
    def cut(self) -> bool:
        return self.finish in ("length", TOO_LONG)


@dataclass(frozen=True)
class Count:
    """How some questions went."""

    n: int
    n_correct: int
    n_found: int
    n_cut: int  # replies cut by their length, and questions too long to ask
    n_compatible: int | None  # right in the original's eyes
    n_tokens: int

    @property
    def accuracy(self) -> Estimate:
        return share(self.n_correct, self.n)

    @property
    def compatible(self) -> float | None:
        return None if self.n_compatible is None else self.n_compatible / self.n

    def as_json(self) -> dict[str, object]:
        """With the accuracy and its interval beside what was counted."""
        return asdict(self) | {"accuracy": asdict(self.accuracy)}


@dataclass(frozen=True)
class Run:
    """A folder of results."""

    folder: Path
    model: str
    condition: str
    rows: list[Row]
    place: str = ""  # its folder, where another run in the same table has the same model and condition

    @property
    def name(self) -> str:
        """The model and the condition, as a table's row is headed."""
        control = " (control)" if self.folder.name == CONTROL else ""
        place = f" [{self.place}]" if self.place else ""
        return (f"{self.model}, {self.condition}{control}" if self.condition else self.model) + place

    def by(self, key: Callable[[Row], str]) -> dict[str, list[Row]]:
        """The rows by a name; the benchmarks' order is the table's."""
        order = list(BENCHMARKS)
        groups: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: (order.index(row.task_type), row.task_name, row.row)):
            groups.setdefault(key(row), []).append(row)
        return groups


def count(rows: Sequence[Row]) -> Count:
    """How these questions went."""
    known = [row.compatible for row in rows if row.compatible is not None]
    return Count(
        n=len(rows),
        n_correct=sum(row.correct for row in rows),
        n_found=sum(row.found for row in rows),
        n_cut=sum(row.cut for row in rows),
        n_compatible=sum(known) if len(known) == len(rows) else None,
        n_tokens=sum(row.n_tokens for row in rows),
    )


def make_rows(tasks: Sequence[Task], replies: Sequence[Sequence[Reply]], grades: dict[int, Graded]) -> list[Row]:
    """A row for each graded task, in the tasks' order; HumanEval has two. Of GPQA it holds neither question nor reply, which may repeat it."""
    rows = []
    for index, (task, question) in enumerate(zip(tasks, shown(tasks), strict=True)):
        if index in grades:
            reply, graded = replies[index][-1], grades[index]
            private = task.task_type == PRIVATE
            row = Row(
                question=question,
                reply="" if private else reply.text,
                answer="" if graded.plus else graded.strict.answer,
                found=graded.strict.found,
                correct=graded.strict.correct,
                task_type=task.task_type,
                task_name=task.task_name,
                row=task.row,
                label="" if private else _target(task),
                finish=reply.finish,
                n_tokens=reply.n_tokens,
                compatible=graded.compatible.correct if graded.compatible else None,
            )
            rows.append(row)
            if graded.plus:
                rows.append(replace(row, task_type=PLUS, task_name=_plus_name(task), correct=graded.plus.correct, n_tokens=0))
    return rows


def _target(task: Task) -> object:
    """The right answer for a reader."""
    metadata = task.data.get("_metadata")
    if not isinstance(metadata, dict):
        return task.data["label"]
    solution = metadata.get("solution")
    return metadata.get("task_id") if solution is None else boxed(solution) or solution


def write_results(output: Path, config: dict[str, object], rows: Sequence[Row]) -> None:
    """Write the grades and their summary."""
    # In ASCII: a reply may hold half of a character.
    write_text(output / GRADES_FILE, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    run = Run(output, str(config["id"]), str(config["condition"]), list(rows))
    write_json(output / SUMMARY_FILE, config | {"n_questions": len(rows)} | summary(run))


def rows_of_others(output: Path, tasks: Sequence[Task]) -> list[Row]:
    """What a folder holds of other files than these tasks': benchmarks may be asked into it one after another."""
    if not (output / GRADES_FILE).is_file():
        return []
    names = {task.task_name for task in tasks} | {_plus_name(task) for task in tasks}
    return [row for row in read_run(output).rows if row.task_name not in names]


def _plus_name(task: Task) -> str:
    return task.task_name.replace(task.task_type, PLUS)


def summary(run: Run) -> dict[str, object]:
    """The counts of all, of each benchmark and of each of its files."""
    if not run.rows:
        return {}
    benchmarks = {
        task_type: count(rows).as_json()
        | {"tasks": {name: count(some).as_json() for name, some in Run(run.folder, "", "", rows).by(_name).items()}}
        for task_type, rows in run.by(lambda row: row.task_type).items()
    }
    return count(run.rows).as_json() | {"benchmarks": benchmarks}


def _name(row: Row) -> str:
    return row.task_name


def read_run(folder: Path) -> Run:
    """The results in a folder; raises OchatError where there are none, DataError at a line that is no grade."""
    path = folder / GRADES_FILE
    if not path.is_file():
        raise OchatError(f"{folder} holds no {GRADES_FILE}. Finish its evaluation: repeat its `ochat eval run`.")
    rows = []
    for place, value in read_json_lines(path):
        try:
            rows.append(Row(**value))  # type: ignore[arg-type]  # checked by the next line
            if rows[-1].task_type not in BENCHMARKS:
                raise TypeError(f"task type {rows[-1].task_type}")
        except TypeError as error:
            raise DataError(
                f"{place}: not a grade of this version ({error}). Remove the file and repeat its `ochat eval run`, which asks nothing again."
            ) from error
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        model = os.path.basename(str(config["root"]).rstrip("/")) or str(config["id"])
        condition = str(config["condition"])
    except (OSError, ValueError, KeyError, TypeError):
        model, condition = folder.name, ""
    return Run(folder, model, condition, rows)


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """The results in these folders and below, those of one sweep in its order; raises OchatError where there are none."""
    paths = list(paths)
    folders = [found.parent for path in paths for found in _sorted(path.rglob(GRADES_FILE))]
    if not folders:
        raise OchatError(f"No results in {', '.join(map(str, paths))}. `ochat eval run` writes them to its --output.")
    runs = [read_run(folder) for folder in dict.fromkeys(folders)]
    names = [run.name for run in runs]
    return [replace(run, place=str(run.folder)) if names.count(run.name) > 1 else run for run in runs]


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        paths,
        key=lambda path: (
            path.parent.parent,
            (path.parent / CONFIG_FILE).stat().st_mtime if (path.parent / CONFIG_FILE).is_file() else 0.0,
        ),
    )


def read_correct(output: Path) -> list[bool]:
    """Whether each reply of a finished evaluation was right, in the questions' order."""
    with (output / GRADES_FILE).open(encoding="utf-8") as file:
        return [bool(json.loads(line)["correct"]) for line in file]
