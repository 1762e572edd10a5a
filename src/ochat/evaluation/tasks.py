"""The benchmarks as a table, and their questions from a folder of the original's layout.

Nothing here knows of servers or of graders: a benchmark says which files hold its questions, under which condition the model
card asked them, and how long a reply may get."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ochat.conversation import read_json_lines
from ochat.errors import DataError, OchatError
from ochat.evaluation.graders.number import value as number
from ochat.evaluation.graders.program import NEEDED
from ochat.questions import read_questions

GENERAL, MATHEMATICS = "GPT4 Correct", "Math Correct"
PLUS = "coding/humaneval+"  # HumanEval's replies on EvalPlus's inputs too: graded, not asked again
OWN = "questions"  # the task type of a user's own questions
CHATS = ("mt_bench", "vicuna_bench")  # judged, not graded; FastChat's form
PRIVATE = "zs/gpqa"  # its authors ask that no question stands anywhere in plain text
# FastChat's temperatures by category (fastchat/llm_judge/common.py); any other category has 0.7.
_TEMPERATURES = {"stem": 0.1, "humanities": 0.1, **dict.fromkeys(("extraction", "math", "coding", "reasoning"), 0.0)}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its folder, which is the original's `task_type`, and the card's way to ask it."""

    folder: str
    name: str
    condition: str  # of the model card's run
    max_tokens: int  # enough for a reply that answers; the share that was cut is reported
    n_questions: int  # of the card's run: fewer are a subset
    stop: tuple[str, ...] = ()  # where a model that goes on with the examples begins the next one

    def counted(self, n: int) -> str:
        """How many of its questions these are."""
        return f"{n:,} of {self.n_questions:,}" if n < self.n_questions else f"{n:,}"


_NEXT_QUESTION = ("\n\nQ:", "\nQuestion:")

BENCHMARKS = {
    benchmark.folder: benchmark
    for benchmark in (
        Benchmark("mt_bench", "MT-Bench", GENERAL, 1024, 80),
        Benchmark("vicuna_bench", "Vicuna bench", GENERAL, 1024, 80),
        Benchmark("zs/math", "MATH", MATHEMATICS, 1024, 5000),
        Benchmark("fs_cothub/math", "MATH, 4-shot", MATHEMATICS, 1024, 5000, _NEXT_QUESTION),
        Benchmark("coding/humaneval", "HumanEval", GENERAL, 1024, 164),
        Benchmark(PLUS, "HumanEval+", GENERAL, 1024, 164),
        Benchmark(PRIVATE, "GPQA", GENERAL, 1024, 198),
        Benchmark("fs_cothub/bbh", "BBH CoT", GENERAL, 512, 6511, _NEXT_QUESTION),
        Benchmark("fs_cothub/gsm8k", "GSM8K", MATHEMATICS, 512, 1319, _NEXT_QUESTION),
        Benchmark("fs_cothub/mmlu", "MMLU", GENERAL, 512, 13985, _NEXT_QUESTION),
        Benchmark(OWN, "questions", "", 256, 0),
        Benchmark("zs/agieval", "AGIEval", GENERAL, 32, 2546),
        Benchmark("zs/bbh_mc_orca", "BBH MC", GENERAL, 32, 5517),
        Benchmark("zs/truthfulqa_orca", "TruthfulQA", GENERAL, 32, 684),
    )
}
CARD_CHAT_TOKENS = 4096  # what the card's MT-Bench run allowed


@dataclass(frozen=True)
class Task:
    """One question of a benchmark."""

    task_type: str
    task_name: str  # the file, without its ending
    row: int  # 0-based, in the file
    turns: tuple[str, ...]  # what the user says; each after the first once the one before is answered
    data: dict[str, Any]  # the row as it is: what a grader reads
    temperature: float = 0.0

    @property
    def benchmark(self) -> Benchmark:
        return BENCHMARKS[self.task_type]

    @property
    def place(self) -> tuple[str, int]:
        """What it is known by in results."""
        return self.task_name, self.row


def read_tasks(data_path: Path, eval_sets: Sequence[str]) -> list[Task]:
    """The tasks whose name opens with one of the sets' names, or all, in the order of BENCHMARKS, files and rows.

    A set is a folder or a file of the layout: `zs/agieval`, `coding`, `fs_cothub/mmlu/anatomy`. Raises OchatError where one names
    nothing, or a file is of no known benchmark."""
    folder = data_path / "eval_data" if (data_path / "eval_data").is_dir() else data_path
    if not folder.is_dir():
        raise OchatError(f"{data_path} is not a folder. Fetch the questions: ochat eval fetch --output {data_path}")
    files = {}  # by task name; MT-Bench may lie beside eval_data
    for root in dict.fromkeys((data_path, folder)):
        for path in sorted(root.rglob("*.jsonl*")):
            name = path.relative_to(root).as_posix().partition(".jsonl")[0]
            if name.startswith(CHATS) and not name.endswith("/question"):
                continue  # reference answers
            if path.suffix in (".jsonl", ".gz") and os.path.dirname(name) in BENCHMARKS:
                files[name] = path
    unknown = [given for given in eval_sets if not any(name.startswith(given.strip("/")) for name in files)]
    if unknown or not files:
        known = ", ".join(dict.fromkeys(os.path.dirname(name) for name in sorted(files))) or "nothing"
        named = f"--eval-sets {unknown[0]}: no such" if unknown else "No"
        raise OchatError(f"{named} questions in {data_path}, which holds {known}. `ochat eval fetch` gets what is public.")
    order = list(BENCHMARKS)
    chosen = [name for name in files if not eval_sets or name.startswith(tuple(given.strip("/") for given in eval_sets))]
    chosen.sort(key=lambda name: (order.index(os.path.dirname(name)), name))
    return [task for name in chosen for task in _read(files[name], name)]


def _read(path: Path, name: str) -> list[Task]:
    task_type, tasks = os.path.dirname(name), []
    for row, (place, value) in enumerate(read_json_lines(path)):
        try:
            if not isinstance(value, dict):
                raise TypeError("not an object")
            if task_type in CHATS:
                turns, temperature = tuple(map(str, value["turns"])), _TEMPERATURES.get(value["category"], 0.7)
            else:
                turns, temperature = (str(value["question"]),), 0.0
                value["label"]
                for key in NEEDED if task_type.startswith("coding/") else ("solution",) if task_type.endswith("/math") else ():
                    value["_metadata"][key]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{place}: not a question of {task_type} ({error!r}). Fetch the file again: ochat eval fetch."
            ) from error
        tasks.append(Task(task_type, name, row, turns, value, temperature))
    return tasks


def own_tasks(path: Path) -> list[Task]:
    """A user's own questions as tasks of one file. Raises OchatError at one that can't be graded."""
    tasks = []
    for row, question in enumerate(read_questions(path)):
        if not question.options and not all(number(label) is not None for label in question.label):
            raise OchatError(f"{path}:{row + 1}: the question has no options and its label is no number. Give one of the two.")
        tasks.append(Task(OWN, path.name.partition(".")[0], row, (question.question,), question.model_dump()))
    return tasks


def subset(tasks: Sequence[Task], share: float, seed: int) -> list[Task]:
    """That share of each file's tasks, at least one, the same ones for the same seed; in the tasks' order."""
    kept = set()
    for name, places in by_file(tasks).items():
        n_kept = max(1, round(share * len(places)))
        kept |= {task.place for task in random.Random(f"{seed} {name}").sample(places, n_kept)}
    return [task for task in tasks if task.place in kept]


def in_asking_order(tasks: Sequence[Task]) -> list[int]:
    """Indices: benchmarks of long replies first, so that none of them is the tail; a file's questions together and sorted by
    their text, so that those which share a prefix, few-shot examples or a passage, follow each other in the server's cache."""
    order = {folder: number for number, folder in enumerate(BENCHMARKS)}
    return sorted(range(len(tasks)), key=lambda i: (order[tasks[i].task_type], tasks[i].task_name, tasks[i].turns))


def by_file(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """The tasks of each file."""
    files: dict[str, list[Task]] = {}
    for task in tasks:
        files.setdefault(task.task_name, []).append(task)
    return files


def shown(tasks: Sequence[Task]) -> list[str]:
    """Each question for a reader: without the few-shot examples that open every question of its file, and nothing of GPQA."""
    n_shared = {}
    for name, group in by_file(tasks).items():
        first, last = min(task.turns[0] for task in group), max(task.turns[0] for task in group)  # the least alike
        n_alike = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
        n_shared[name] = first.rfind("\n", 0, n_alike) + 1 if n_alike > 500 else 0
    texts = ("\n\n".join((task.turns[0][n_shared[task.task_name] :], *task.turns[1:])) for task in tasks)
    return ["" if task.task_type == PRIVATE else text for task, text in zip(tasks, texts, strict=True)]
