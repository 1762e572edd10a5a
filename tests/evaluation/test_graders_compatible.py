"""The original's graders: every verdict of its own, wherever it gave one."""

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graders_benchmark import BENCHMARK

from ochat.evaluation.graders.by_task import Grader, check
from ochat.evaluation.graders.compatible import symbolic
from ochat.evaluation.graders.compatible.matchers import MATCHERS, _blocks


@pytest.mark.parametrize("name", BENCHMARK.CASES)
def test_every_verdict_of_the_original_is_given(name: str, test_file: Callable[[str], Path]) -> None:
    version: Grader = "3.5.1" if name.startswith("v3.5.1") else "3.6.1"
    with gzip.open(test_file(f"grader_parity/{name}.jsonl.gz")) as file:
        rows: list[dict[str, Any]] = [row for row in map(json.loads, file) if row["exception"] is None]
    assert len(rows) > 100
    for row in rows:
        grade = check(row["task_type"], row["task_data"], row["response"], grader=version)
        wanted = row["is_matched"], row["answer"], row["is_correct"]
        assert (grade.found, grade.answer, grade.correct) == wanted, row["case"]


MATH = {"label": [True], "_metadata": {"solution": "so $\\boxed{\\sqrt{2}}$"}}
BBH = {"options": None, "label": ["True"]}


@pytest.mark.parametrize(
    ("version", "task_type", "task", "reply", "found", "answer", "correct"),
    [
        ("3.5.1", "fs_cothub/bbh", BBH, "So the answer is ", False, "", False),  # it raised there
        ("3.6.1", "fs_cothub/bbh", BBH, "So the answer is ", True, "", False),
        ("3.6.1", "fs_cothub/math", {"label": [True], "_metadata": {"solution": "no box"}}, "1", False, "", False),
        ("3.6.1", "fs_cothub/math", MATH, "The answer is sqrt(8)/2", True, True, True),
        ("3.6.1", "fs_cothub/math", MATH, "The answer is (1).__class__.mro", True, False, False),
        ("3.5.1", "zs/math", MATH, "The ANSWER IS: $\\sqrt2$.", True, True, True),
        ("3.6.1", "fs_cothub/gsm8k", {"label": ["3"]}, "It costs -1,003.50 or ٣", True, "٣", False),
    ],
)
def test_what_the_original_made_of_a_reply(
    version: Grader, task_type: str, task: dict[str, Any], reply: str, found: bool, answer: object, correct: bool
) -> None:
    grade = check(task_type, task, reply, grader=version)
    assert (grade.found, grade.answer, grade.correct) == (found, answer, correct)


def test_an_absent_reply_is_graded_as_an_empty_one() -> None:
    code = {"label": "", "_metadata": {"task_id": "t/0", "prompt": "def f():\n", "entry_point": "f", "solution": "\\boxed{1}"}}
    for version in MATCHERS:
        for task_type in MATCHERS[version]:
            task = {"options": ["A"], "label": ["A"]} | (code if task_type.endswith(("math", "humaneval")) else {})
            assert check(task_type, task, None, grader=version) == check(task_type, task, "", grader=version)  # type: ignore[arg-type]


def test_an_expression_without_end_is_cut_and_the_next_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "LIMIT_SECONDS", 1)
    assert not check("fs_cothub/math", MATH, "The answer is 9**9**9", grader="3.6.1").correct
    assert check("fs_cothub/math", MATH, "The answer is sqrt(8)/2", grader="3.6.1").correct


def test_blocks_of_code_are_those_of_the_originals_pattern() -> None:
    pattern = re.compile(r"(\`{3}.*?\n+)([\s\S]*?)(\n+\`{3})")
    draw = random.Random(0)
    for _ in range(5000):
        reply = "".join(draw.choice(["```", "`", "\n", "\n\n", "x", "py", " ", "\r\n"]) for _ in range(draw.randrange(14)))
        assert _blocks(reply) == [found[1] for found in pattern.findall(reply)] + [reply], repr(reply)


def test_a_reply_that_loops_on_empty_lines_is_graded_at_once() -> None:
    assert _blocks("```python\n" + "\n" * 100_000 + "x")[:-1] == []
