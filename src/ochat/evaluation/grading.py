"""Grade replies while others are still awaited: by our own grader and as the original did.

What may take long, mathematics that sympy simplifies and code that runs in the sandbox, is done in threads that wait for processes
with limits of their own; the rest is faster than a thread's start."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from ochat.evaluation.graders.by_task import check
from ochat.evaluation.graders.choice import grade_choice
from ochat.evaluation.graders.grade import Grade
from ochat.evaluation.graders.number import grade_number
from ochat.evaluation.journal import Reply
from ochat.evaluation.tasks import CHATS, OWN, PLUS, Task
from ochat.questions import Question

Compat = Literal["3.5.1", "3.6.1"]

_SLOW = ("coding", "zs/math", "fs_cothub/math")


@dataclass(frozen=True)
class Graded:
    """The grades of one reply. `compatible` is None where the original has no grade: our own questions, and code, which it ran
    elsewhere."""

    strict: Grade
    compatible: Grade | None = None
    plus: Grade | None = None  # HumanEval+'s


def grade(task: Task, reply: str, compat: Compat) -> Graded:
    """Both grades of a reply."""
    if task.task_type == OWN:
        question = Question.model_validate(task.data)
        return Graded(grade_choice(question, reply) if question.options else grade_number(question, reply))
    if task.task_type == "coding/humaneval":
        plus = check(PLUS, task.data, reply, grader="strict")
        return Graded(plus if plus.correct else check(task.task_type, task.data, reply, grader="strict"), plus=plus)
    strict = check(task.task_type, task.data, reply, grader="strict")
    return Graded(strict, check(task.task_type, task.data, reply, grader=version(task, compat)))


def version(task: Task, compat: Compat) -> Compat:
    """The original's version that grades a task: 3.6.1 had no zero-shot MATH."""
    return "3.5.1" if task.task_type == "zs/math" else compat


class Grading:
    """The grades of tasks' replies by the tasks' index; those of a chat have none here, since a judge gives them."""

    def __init__(self, tasks: Sequence[Task], compat: Compat) -> None:
        self.tasks, self.compat = tasks, compat
        self.grades: dict[int, Graded] = {}
        self._waiting: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._n_correct = 0

    def __enter__(self) -> "Grading":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, index: int, replies: Sequence[Reply]) -> str:
        """Grade the replies to a task, now or soon; returns the score so far in words."""
        task = self.tasks[index]
        if task.task_type.startswith(_SLOW):
            self._waiting.append(self._pool.submit(self._grade, index, replies[-1].text))
        elif task.task_type not in CHATS:
            self._grade(index, replies[-1].text)
        n = len(self.grades)
        return f"right {self._n_correct / n:.1%} of {n}" if n else ""

    def _grade(self, index: int, text: str) -> None:
        graded = grade(self.tasks[index], text, self.compat)
        self.grades[index] = graded
        self._n_correct += graded.strict.correct

    def finish(self) -> dict[int, Graded]:
        """All grades; waits for those that take long, and raises what went wrong with one."""
        for future in self._waiting:
            future.result()
        return self.grades
