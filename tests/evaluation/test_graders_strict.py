"""The strict graders: right where a careful person says right."""

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ochat.evaluation.graders.by_task import check
from ochat.evaluation.graders.final_answer import boxed
from ochat.evaluation.graders.letter import grade_letter
from ochat.evaluation.graders.math_answer import grade_math, same_answer
from ochat.evaluation.graders.number import grade_number
from ochat.evaluation.graders.words import grade_words
from ochat.questions import Question


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path) as file:
        return [json.loads(line) for line in file]


JUDGED = ["fs_cothub_bbh", "fs_cothub_gsm8k", "fs_cothub_math", "fs_cothub_mmlu", "v3.5.1_zs_math"]
JUDGED += ["zs_agieval", "zs_bbh_mc_orca", "zs_gpqa", "zs_truthfulqa_orca"]


@pytest.mark.parametrize("name", JUDGED)
def test_a_person_agrees(name: str, test_file: Callable[[str], Path]) -> None:
    judged = [row for row in rows(test_file(f"grader_parity/{name}.jsonl.gz")) if row["human_correct"] is not None]
    wrong = [
        (row["case"], row["response"][-80:])
        for row in judged
        if check(row["task_type"], row["task_data"], row["response"], grader="strict").correct != row["human_correct"]
    ]
    assert len(judged) > 100
    assert not wrong


FORMS = ("The answer is {}.", "{}", "We reason.\n\n**So the answer is {}**\n\nQ: next\nThe answer is none of it.", "Answer: {}")
MATH_FORMS = (
    "The answer is ${}$.",
    "So \\boxed{{{}}}.",
    "the answer is:\n\\[{}\\]",
    "Final Answer: **{}**",
    "The answer is ${}$",
)
BENCHMARKS = [
    "zs/agieval",
    "zs/bbh_mc_orca",
    "zs/truthfulqa_orca",
    "fs_cothub/mmlu",
    "fs_cothub/bbh",
    "fs_cothub/gsm8k",
    "fs_cothub/math",
]


@pytest.mark.parametrize("task_type", BENCHMARKS)
def test_the_right_answer_is_right_to_every_question(task_type: str, test_file: Callable[[str], Path]) -> None:
    forms = MATH_FORMS if task_type.endswith("math") else FORMS
    n = 0
    for path in sorted(test_file(f"eval/eval_data/{task_type}").iterdir()):
        for task in rows(path):
            label = task["label"] if isinstance(task["label"], str) else task["label"][n % len(task["label"])]
            gold = boxed(task["_metadata"]["solution"]) or "2" if task_type.endswith("math") else label
            reply = forms[n % len(forms)].format(gold)
            assert check(task_type, task, reply, grader="strict").correct, (path.name, reply[-100:], label)
            n += 1
    assert n > 600


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("B", "B"),
        ("**B**", "B"),
        ("(b)", "B"),
        ("b", ""),
        ("the answer is b", ""),
        ("A", "A"),
        ("A or B", ""),
        ("The answer is either A or B.", ""),
        ("Answer: B", "B"),
        ("### Final Answer\n\nB", "B"),
        ('{"answer": "C", "why": "A is wrong"}', "C"),
        ("$\\boxed{\\text{(C)}}$", "C"),
        ("Ｃ。", "C"),
        ("答案是D。", "D"),
        ("I think it is A careful student's choice: D.", "D"),
        ("A careful reading suggests C.", "C"),
        ("B, because A is false.", "B"),
        ("A is wrong. B is wrong. C is right.", "C"),
        ("Not A. B.", "B"),
        ("'B'", "B"),
        ("A and C are wrong; B.", "B"),
        ("It cannot be B.", ""),
        ("Comparing A and B, B is better.", "B"),
        ("Hmm, A seems plausible but B fits better.", "B"),
        ("The answer is not (A) or (B), but (C).", "C"),
        ("The answer is (A), not (B).", "A"),
        ("The answer is (B). Wait, no. Answer: C", "C"),
        ("The answer is B. The other answers are wrong because A is too broad.", "B"),
        ("The best answer is option C: vitamin A deficiency", "C"),
        ("It can't be A, so it must be B or C. I choose C.", "C"),
        ("B. The answer is clear from the text.", "B"),
        ("I cannot decide between A and B; the answer is unknown.", ""),
        ("The answer is (E). B is not.", "E"),  # no option: an answer, and wrong
        ("The answer is A.\n\nQ: What?\nA: Among A through B, the answer is B", "A"),
        ("Based on this, Each is Cannot, I'm sure", ""),
        ("", ""),
    ],
)
def test_the_letter_that_a_reply_settles_on(reply: str, answer: str) -> None:
    grade = grade_letter("ABCD", ["B"], reply)
    assert (grade.answer, grade.found, grade.correct) == (answer, bool(answer), answer == "B")


def test_letters_are_found_with_and_without_parentheses_whatever_the_options_have() -> None:
    for reply in ("So the answer is (B).", "so the answer is B", "(B)"):
        assert grade_letter(["(A)", "(B)"], ["(B)"], reply).answer == "(B)"


@pytest.mark.parametrize("option", ["[", "\\", "]", "^", "_", "`", "a", "b"])
def test_options_after_z_are_found_where_they_are_announced(option: str) -> None:
    options = [chr(65 + at) for at in range(34)]
    for form in ("{}", "The answer is {}.", "({})", "the answer is ({})"):
        assert grade_letter(options, [option], form.format(option)).correct, form
    assert not grade_letter(options, ["["], "The answer is [K].").correct


@pytest.mark.parametrize(
    ("reply", "label", "answer", "correct"),
    [
        ("The answer is 18. (Used 2 steps)", "18", "18", True),
        ("The answer is -18", "18", "-18", False),
        ("The answer is $1,234.00, found at 10:45", "1234", "$1,234.00", True),
        ("The answer is 36/2", "18", "36/2", True),
        ("The answer is \\frac{36}{2}", "18", "36/2", True),
        ("The answer is 5km", "5", "5", True),
        ("So 3 + 4 = 7.\n#### 7\nI used 2 steps", "7", "7", True),
        ("\\boxed{7} and 8", "7", "7", True),
        ("The answer is 3 + 4 = 7", "7", "7", True),
        ("The answer is 3 + 4", "4", "", False),
        ("The answer is not 1235 but 1234.", "1234", "1234", True),
        ("The answer is ٣", "3", "3", True),
        ("The answer is 4\u202f400", "4400", "4400", True),
        ("The answer is 7\n\nQuestion: Tom has 5 apples.", "7", "7", True),
        ("The answer is twelve", "12", "", False),
        ("It is v1.2.3", "3", "", False),
        ("The answer is 1/0", "1", "1/0", False),
    ],
)
def test_the_number_that_a_reply_ends_in(reply: str, label: str, answer: str, correct: bool) -> None:
    grade = grade_number(Question(question="?", label=(label,)), reply)
    assert (grade.answer, grade.found, grade.correct) == (answer, bool(answer), correct)


@pytest.mark.parametrize(
    ("label", "reply", "answer", "correct"),
    [
        ("True", "So the answer is **True**.", "true", True),
        ("True", 'The answer is "False", since True is not.', "false", False),
        ("invalid", "The argument is deductive; the answer is not valid.", "invalid", True),
        ("Yes", "The answer is: YES!", "yes", True),
        ("Yes", "I cannot tell.", "", False),
        ("-50", "So the answer is -50.0.", "-50.0", True),
        ("> } ]", "So the answer is `>}]`.", ">}]", True),
        ("> } ]", "So the answer is > ] }.", ">]}", False),
        ("ant bee cat", "The answer is ant, bee, cat.", "ant bee cat", True),
        ("ant bee cat", "The answer is bee ant cat", "bee ant cat", False),
    ],
)
def test_words_and_signs(label: str, reply: str, answer: str, correct: bool) -> None:
    grade = grade_words([label], reply)
    assert (grade.answer, grade.found, grade.correct) == (answer, bool(answer), correct)


@pytest.mark.parametrize(
    ("given", "gold", "same"),
    [
        ("649+1", "650", False),
        ("10/6", "\\frac{5}{3}", False),
        ("1.6666666666666667", "\\frac{5}{3}", False),
        ("0.5", "\\frac12", True),
        ("1\\frac12", "\\frac{3}{2}", True),
        ("7 3/4", "7.75", True),
        ("2^{1/2}", "\\sqrt{2}", True),
        ("sqrt(8)/2", "\\sqrt2", True),
        ("2**0.5", "\\sqrt{2}", True),
        ("1.41421356237", "\\sqrt2", False),
        ("(x+1)^2", "x^2+2x+1", True),
        ("x^2+2x+2", "x^2+2x+1", False),
        ("x^{-2}", "\\frac{1}{x^2}", True),
        ("3x", "3y", False),
        ("\\sqrt[3]{-8}x", "-2x", True),
        ("\\frac{2\\sqrt3}{3}", "\\frac{2}{\\sqrt{3}}", True),
        ("1+2i", "2i+1", True),
        ("3,1", "1,3", True),
        ("1 \\text{ and } 3", "1,3", True),
        ("2+\\sqrt3, 2-\\sqrt3", "2\\pm\\sqrt{3}", True),
        ("(3,1)", "(1,3)", False),
        ("\\{3,1\\}", "\\{1,3\\}", True),
        ("[1, 3)", "[1,3)", True),
        ("[1,3)", "[1,3]", False),
        ("(3,\\infty)\\cup(-\\infty,2)", "(-\\infty, 2) \\cup (3, \\infty)", True),
        ("-\\infty", "\\infty", False),
        ("\\begin{pmatrix}1/2\\\\3\\end{pmatrix}", "\\begin{pmatrix} \\frac12 \\\\ 3 \\end{pmatrix}", True),
        ("\\begin{pmatrix}3\\\\1/2\\end{pmatrix}", "\\begin{pmatrix} \\frac12 \\\\ 3 \\end{pmatrix}", False),
        ("3+2x=y", "y=2x+3", True),
        ("x = 5", "5", True),
        ("x \\in [1,2]", "[1,2]", True),
        ("10{,}000", "10,000", True),
        ("(1,234)", "(1234)", False),
        ("36 dollars", "\\$36", True),
        ("12 \\text{ cm}^2", "12", True),
        ("90^\\circ", "90", True),
        ("50%", "50\\%", True),
        ("tuesday", "\\text{Tuesday}", True),
        ("B", "\\text{(B)}", True),
        ("2516", "2516_8", False),
        ("9**9**9", "\\sqrt{2}", False),
        ("9999999!", "\\sqrt2", False),
        ("(1).__class__", "\\sqrt2", False),
        ("", "5", False),
    ],
)
def test_answers_to_math_that_are_the_same(given: str, gold: str, same: bool) -> None:
    assert same_answer(given, gold) is same


@pytest.mark.parametrize(
    ("gold", "reply", "answer", "correct"),
    [
        ("5", "We get $x=5$.", "x=5", True),
        ("5", "The answer is 5, since $5>4$.", "5", True),
        ("5", "So \\boxed{4}; no: \\boxed{5}", "5", True),
        ("1,3", "The answer is $1$ and $3$.", "1, 3", True),
        ("3", "The answer is $3$ or $4$.", "3, 4", False),
        ("5", "We get it.\n#### 5", "5", True),
        ("5", "The answer is $2+3=5$.", "2+3=5", True),
        ("5", "The answer is $2+2=5$.", "2+2=5", False),
        ("5", "The answer is $x+2=5$.", "x+2=5", False),
        ("(1,2)", "The answer is $(x,y)=(1,2)$.", "(x,y)=(1,2)", True),
        ("1,3", "The answer is $\\{1,3\\}$.", "\\{1,3\\}", True),
        ("36", "The answer is \\$36.", "\\$36", True),
        ("5", "The answer is $5$.\n\nQuestion: What?\nThe answer is $6$.", "5", True),
        ("5", "The answer is", "", False),
        ("5", "I don't know.", "", False),
    ],
)
def test_the_answer_that_a_reply_gives_to_math(gold: str, reply: str, answer: str, correct: bool) -> None:
    grade = grade_math(f"so \\boxed{{{gold}}}.", reply)
    assert (grade.answer, grade.found, grade.correct) == (answer, bool(answer), correct)


@pytest.mark.parametrize(
    "reply",
    [
        "(" * 50_000,
        "The answer is " + "9^" * 5_000,
        "The answer is 9^9^9^9^9^9",
        "The answer is " + "(x+y+1)^9*" * 25 + "1",
        "The answer is " + "-" * 20_000 + "1",
        "the answer is " * 5_000,
        "\n" * 50_000,
        "5" + " " * 50_000 + "x",
        "(A)" + "," * 30_000 + "word B",
        "\\boxed{" + "\\pm 1," * 140 + "}",
    ],
)
def test_no_reply_takes_long(reply: str) -> None:
    start = time.process_time()
    grade_math("\\boxed{\\sqrt2}", reply)
    grade_letter("ABCD", ["A"], reply)
    grade_words(["> ]"], reply)
    grade_number(Question(question="?", label=("5",)), reply)
    assert time.process_time() - start < 3
