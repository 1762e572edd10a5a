"""Grade a reply to a question of a benchmark: our own way, or as the original did.

Task types are the original's names. `strict` says right where a careful person would; the versions' graders keep their faults, so
that reported scores can be compared with."""

from collections.abc import Mapping
from typing import Any, Literal  # task data is what the benchmarks' files hold

from ochat.evaluation.graders.compatible.matchers import match
from ochat.evaluation.graders.grade import Grade
from ochat.evaluation.graders.letter import grade_letter
from ochat.evaluation.graders.math_answer import grade_math
from ochat.evaluation.graders.number import grade_number
from ochat.evaluation.graders.program import find_program, grade_program
from ochat.evaluation.graders.words import grade_words
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
    "coding/humaneval+",
)


def check(
    task_type: str, task_data: Mapping[str, Any], reply: str | None, *, grader: Grader, unsandboxed: bool = False
) -> Grade:
    """The grade of a reply to one question. `task_data` is the question's line in the benchmark's file (`options`, `label`,
    `_metadata`); a reply of None is empty.

    Strict, code is run, in the sandbox unless `unsandboxed`: for `coding/humaneval` on the function's own inputs, for
    `coding/humaneval+` on EvalPlus's too. Raises NoTests where the question has none. The original never ran code: by its graders no
    program is right."""
    text = reply or ""
    if grader != "strict":
        found, answer = match(grader, task_type.removesuffix("+"), task_data, text)
        return Grade(answer, found, correct=_in_label(answer, task_data["label"]))
    options, label = task_data.get("options") or (), task_data["label"]
    labels = (label,) if isinstance(label, str) else tuple(label)
    if task_type == "fs_cothub/gsm8k":
        return grade_number(Question.model_construct(question="", label=labels), text)
    if task_type in ("zs/math", "fs_cothub/math"):
        return grade_math(task_data["_metadata"]["solution"], text)
    if task_type in ("coding/humaneval", "coding/humaneval+"):
        return _grade_code(task_data["_metadata"], text, plus=task_type.endswith("+"), unsandboxed=unsandboxed)
    return grade_letter(options, labels, text) if options else grade_words(labels, text)


def _grade_code(task: Mapping[str, Any], reply: str, *, plus: bool, unsandboxed: bool) -> Grade:
    program = find_program(task["prompt"], task["entry_point"], reply)
    runs = grade_program(task, program, plus=plus, unsandboxed=unsandboxed)
    return Grade(program, found=bool(program), correct=runs.base and runs.plus is not False)


def _in_label(answer: object, label: Any) -> bool:
    """As the original: in a list, or a part of a text."""
    try:
        return answer in label
    except TypeError:
        return False
