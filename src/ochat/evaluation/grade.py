"""`ochat eval grade`: grade replies from a file, without a model: strictly, or as a version of the original did."""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ochat.conversation import read_json_lines
from ochat.errors import DataError, OchatError
from ochat.evaluation.graders.by_task import TASK_TYPES, Grader, check
from ochat.evaluation.graders.program import NoTests
from ochat.evaluation.statistics import share

_KEYS = "task_type", "task_data", "response"
_CHUNK = 1024  # rows that are graded together
_METADATA = {"zs/math": ("solution",), "fs_cothub/math": ("solution",)} | dict.fromkeys(
    ("coding/humaneval", "coding/humaneval+"), ("task_id", "prompt", "entry_point")
)


@dataclass(frozen=True)
class Options:
    file: Annotated[Path, tyro.conf.Positional]
    """jsonl, or .jsonl.gz, of {"task_type", "task_data", "response"}; task_data is the question's line in the benchmark's file"""
    grader: Literal["strict", "compatible"] = "strict"
    """ours, or the original's with its faults"""
    compat: Literal["3.5.1", "3.6.1"] = "3.6.1"
    """the original's version whose graders are meant by compatible"""
    json: bool = False
    """print a line of JSON for each reply, in the file's order, instead of a table: is_matched, answer, is_correct"""
    plus: bool = False
    """run the programs of coding/humaneval on EvalPlus's inputs too: HumanEval+"""
    data_path: Path = Path("eval_data")
    """folder of the benchmarks' questions, for code whose task_data holds no inputs to run it on"""
    unsandboxed: bool = False
    """run code without the sandbox, as you; only for replies that you trust"""


@dataclass(frozen=True)
class Graded:
    """A reply's grade; `is_correct` is None where code couldn't be run for want of inputs."""

    task_type: str
    is_matched: bool
    answer: object
    is_correct: bool | None
    problem: str
    """the task of a program; "" for other replies"""


def main(options: Options) -> None:
    grader: Grader = "strict" if options.grader == "strict" else options.compat
    given = options.data_path != Options.data_path
    tests = _tests(options.data_path) if grader == "strict" and (given or options.data_path.is_dir()) else {}
    by_type: dict[str, list[Graded]] = {}
    for graded in grade_file(options.file, grader, tests, plus=options.plus, unsandboxed=options.unsandboxed):
        if options.json:
            print(json.dumps({"is_matched": graded.is_matched, "answer": graded.answer, "is_correct": graded.is_correct}))
        by_type.setdefault(graded.task_type, []).append(replace(graded, answer=""))
    if not by_type:
        raise DataError(f"{options.file} has no replies. A line is {{{', '.join(_KEYS)}}}.")
    if not options.json:
        print(table(by_type))
    if n_unknown := sum(graded.is_correct is None for some in by_type.values() for graded in some):
        print(
            f"{n_unknown} programs have no grade, since there are no inputs to run them on: name the questions' folder with --data-path.",
            file=sys.stderr,
        )


def table(by_type: dict[str, list[Graded]]) -> str:
    """A line a task type: replies, those that are right with their interval, and those in which no answer was found; where a
    problem has several programs, pass@k too, for as many as each has."""
    width = max(map(len, by_type))
    lines = [f"{'task type':<{width}}  replies   right  share [95 % interval]    no answer"]
    for task_type, graded in by_type.items():
        known = [one.is_correct for one in graded if one.is_correct is not None]
        accuracy = str(share(sum(known), len(known))) if known else "not run"
        lost = sum(not one.is_matched for one in graded) / len(graded)
        lines.append(f"{task_type:<{width}}  {len(graded):>7}  {sum(known):>6}  {accuracy:<23}  {lost:>9.1%}")
        problems: dict[str, list[bool]] = {}
        for one in graded:
            if one.problem and one.is_correct is not None:
                problems.setdefault(one.problem, []).append(one.is_correct)
        n_each = min(map(len, problems.values()), default=1)
        passed = [f"pass@{k} {mean_pass_at_k(problems.values(), k):.3f}" for k in (1, 10, 100) if k <= n_each > 1]
        lines += [f"{'':<{width}}  {', '.join(passed)}"] if passed else []
    return "\n".join(lines)


def mean_pass_at_k(problems: Iterable[Sequence[bool]], k: int) -> float:
    """The mean over problems of the chance that one of k of its programs is right, without bias (Chen et al. 2021, 2107.03374)."""
    chances = [1 - math.comb(len(programs) - sum(programs), k) / math.comb(len(programs), k) for programs in problems]
    return sum(chances) / len(chances)


def grade_file(
    path: Path, grader: Grader, tests: dict[str, dict[str, Any]], *, plus: bool = False, unsandboxed: bool = False
) -> Iterator[Graded]:
    """The grade of each line, in order. Raises DataError at the first line that is no reply."""

    def grade(task_type: str, task: dict[str, Any], reply: str | None) -> Graded:
        problem = ""
        if task_type.startswith("coding/"):
            problem = str(task["_metadata"]["task_id"])
            task = task | {"_metadata": tests.get(problem, {}) | task["_metadata"]}
            task_type += "+" if plus and not task_type.endswith("+") else ""
        try:
            given = check(task_type, task, reply, grader=grader, unsandboxed=unsandboxed)
        except NoTests as missing:
            return Graded(task_type, bool(missing.program), missing.program, None, problem)
        return Graded(task_type, given.found, given.answer, given.correct, problem)

    rows = (_row(place, value) for place, value in read_json_lines(path))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # they wait for the sandbox
        while chunk := list(islice(rows, _CHUNK)):
            codes = {at: pool.submit(grade, *row) for at, row in enumerate(chunk) if row[0].startswith("coding/")}
            for at, row in enumerate(chunk):
                yield codes[at].result() if at in codes else grade(*row)


def _row(place: str, value: object) -> tuple[str, dict[str, Any], str | None]:
    """A line's task type, data and reply, as far as the graders rely on them."""
    match value:
        case {"task_type": str(task_type), "task_data": dict(task), "response": str() | None as reply}:
            pass
        case dict():
            wrong = next((key for key in _KEYS if key not in value), None)
            problem = f"no `{wrong}`" if wrong else "task_type is no text, task_data no object, or response no text"
            raise DataError(f"{place}: {problem}. A line is {{{', '.join(_KEYS)}}}.")
        case _:
            raise DataError(f"{place}: not an object. A line is {{{', '.join(_KEYS)}}}.")
    if task_type not in TASK_TYPES:
        raise DataError(f"{place}: unknown task_type {task_type!r}. Known: {', '.join(TASK_TYPES)}.")
    # what is right of MATH and of code stands in _metadata
    unlabelled = "" if task_type.startswith("coding/") else [True] if task_type.endswith("/math") else None
    metadata, label, options = task.get("_metadata"), task.get("label", unlabelled), task.get("options")
    lacking = [name for name in _METADATA.get(task_type, ()) if not isinstance(metadata, dict) or name not in metadata]
    if lacking:
        raise DataError(f"{place}: task_data has no _metadata.{lacking[0]}. Give the question's line of the benchmark's file.")
    labelled = isinstance(label, str) or (
        isinstance(label, list) and label and all(isinstance(one, str | bool) for one in label)
    )
    listed = options is None or (isinstance(options, list) and all(isinstance(one, str) for one in options))
    if not labelled or not listed or (task_type.startswith("zs/") and task_type != "zs/math" and not options):
        raise DataError(
            f"{place}: task_data has no label, or options that are no texts. Give the question's line of the benchmark's file."
        )
    return task_type, task | {"options": options, "label": label}, reply


def _tests(data_path: Path) -> dict[str, dict[str, Any]]:
    """The inputs of HumanEval's tasks in a folder of questions, by task."""
    found = sorted(data_path.rglob("humaneval.jsonl*"))
    if not found:
        raise OchatError(f"{data_path} has no coding/humaneval. Name a folder of questions in the original's layout.")
    tests: dict[str, dict[str, Any]] = {}
    for place, value in read_json_lines(found[0]):
        match value:
            case {"_metadata": {"task_id": str(name), **data}}:
                tests[name] = {str(key): one for key, one in data.items()}
            case _:
                raise DataError(f"{place}: not a question of HumanEval. Fetch the file again.")
    return tests
