"""A reply's grades, as a run files them."""

import pytest
from sandboxes import needs_sandbox

from ochat.evaluation.graders.grade import Grade
from ochat.evaluation.grading import Graded, grade
from ochat.evaluation.journal import Reply
from ochat.evaluation.results import make_rows
from ochat.evaluation.tasks import PRIVATE, Task

METADATA = {
    "task_id": "HumanEval/0",
    "prompt": "def double(x):\n",
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "base_input": [[1], [2]],
    "plus_input": [[-1]],
    "atol": 0,
}


@needs_sandbox
@pytest.mark.parametrize(
    ("body", "correct"),
    [("2 * x", [True, True]), ("2 * abs(x)", [True, False]), ("x", [False, False])],
    ids=["right", "base", "wrong"],
)
def test_a_program_counts_for_humaneval_and_for_humaneval_plus(body: str, correct: list[bool]) -> None:
    task = Task(
        "coding/humaneval", "coding/humaneval/humaneval", 0, ("?",), {"label": "", "options": [], "_metadata": METADATA}
    )
    reply = f"```python\ndef double(x):\n    return {body}\n```"
    rows = make_rows([task], [[Reply(reply)]], {0: grade(task, reply, "3.6.1")})
    assert [row.task_type for row in rows] == ["coding/humaneval", "coding/humaneval+"]
    assert [row.correct for row in rows] == correct
    assert [row.compatible for row in rows] == [None, None]


def test_of_gpqa_neither_question_nor_reply_is_filed_with_its_grade() -> None:
    data = {"question": "secret", "label": ["(A)"], "options": ["(A)", "(B)"]}
    task = Task(PRIVATE, "zs/gpqa/diamond", 0, ("secret",), data)
    reply = "The secret. The correct answer is (A)"
    (row,) = make_rows([task], [[Reply(reply)]], {0: grade(task, reply, "3.6.1")})
    assert row.correct
    assert "secret" not in repr(row)


def test_what_is_expected_of_a_reply_to_math_is_the_solutions_answer() -> None:
    task = Task("zs/math", "zs/math/file", 0, ("?",), {"label": [True], "_metadata": {"solution": "So $x=\\boxed{\\frac12}$."}})
    no_answer = Graded(Grade("", found=False, correct=False))
    assert [row.label for row in make_rows([task], [[Reply("")]], {0: no_answer})] == ["\\frac12"]
