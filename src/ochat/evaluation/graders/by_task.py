"""Grade a reply to a question of a benchmark: our own way, or as the original did.

Task types are the original's names. `strict` says right where a careful person would; the versions' graders keep their faults, so
that reported scores can be compared with."""

from collections.abc import Mapping
from typing import Any, Literal  # task data is what the benchmarks' files hold

from ochat.evaluation.graders.choice import grade_choice
from ochat.evaluation.graders.compatible.matchers import match
from ochat.evaluation.graders.grade import Grade
from ochat.evaluation.graders.number import grade_number
from ochat.questions import Question

Grader = Literal["strict", "3.5.1", "3.6.1"]

TASK_TYPES = (
    "zs/agieval",
    "zs/bbh_mc_orca",
    "zs/truthfulqa_orca",
    "zs/gpqa",
    "zs/math",
    "fs_cothub/mmlu",
    "fs_cothub/bbh",
    "fs_cothub/gsm8k",
    "fs_cothub/math",
    "coding/humaneval",
)


def check(task_type: str, task_data: Mapping[str, Any], reply: str | None, *, grader: Grader) -> Grade:
    """The grade of a reply to one question. `task_data` is the question's line in the benchmark's file (`options`, `label`,
    `_metadata`); a reply of None is empty."""
    text = reply or ""
    if grader != "strict":
        found, answer = match(grader, task_type, task_data, text)
        return Grade(answer, found, correct=_in_label(answer, task_data["label"]))
    label = task_data["label"]
    question = Question.model_construct(
        question="", options=tuple(task_data.get("options") or ()), label=(label,) if isinstance(label, str) else tuple(label)
    )
    return grade_choice(question, text) if question.options else grade_number(question, text)


def _in_label(answer: object, label: Any) -> bool:
    """As the original: in a list, or a part of a text."""
    try:
        return answer in label
    except TypeError:
        return False
