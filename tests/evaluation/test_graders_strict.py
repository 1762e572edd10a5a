"""The strict graders: right where a careful person says right."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from graders_benchmark import BENCHMARK

from ochat.evaluation.graders.by_task import check
from ochat.evaluation.graders.final_answer import boxed
from ochat.evaluation.graders.letter import grade_letter
from ochat.evaluation.graders.math_answer import grade_math, same_answer
from ochat.evaluation.graders.number import grade_number
from ochat.evaluation.graders.words import grade_words
from ochat.questions import Question


@pytest.mark.parametrize(
    "name", [name for name in BENCHMARK.CASES if "humaneval" not in name]
)  # programs are judged by running
def test_a_person_agrees(name: str, test_file: Callable[[str], Path]) -> None:
    judged = [row for row in BENCHMARK.rows(test_file(f"grader_parity/{name}.jsonl.gz")) if row["human_correct"] is not None]
    wrong = [
        (row["case"], row["response"][-80:])
        for row in judged
        if check(row["task_type"], row["task_data"], row["response"], grader="strict").correct != row["human_correct"]
    ]
    assert len(judged) > 100
    assert not wrong


MORE_PHRASES = "We reason.\n\n**So the answer is {}**\n\nQ: next\nThe answer is none of it.", "So the answer is:\n\n{}\n\nDone."
MORE_MATH = "the answer is:\n\\[{}\\]", "Therefore, the answer is $\\boxed{{{}}}$. I hope it is correct.", "So:\n$${}$$"


@pytest.mark.parametrize("task_type", BENCHMARK.PERFECT)
def test_the_right_answer_is_right_to_every_question(task_type: str, test_file: Callable[[str], Path]) -> None:
    math = task_type.endswith("math")
    forms = [*BENCHMARK.MATH_PHRASES, *MORE_MATH] if math else [*BENCHMARK.PHRASES, *MORE_PHRASES]
    n = 0
    for path in sorted(test_file(f"eval/eval_data/{task_type}").iterdir()):
        for task in BENCHMARK.rows(path):
            label = task["label"] if isinstance(task["label"], str) else task["label"][n % len(task["label"])]
            gold = boxed(task["_metadata"]["solution"]) or "2" if math else label
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
        ("The answer is B, C", ""),
        ("The answer is (B), (C) and (D).", ""),
        ("(A) (B)", ""),
        ("A+B", ""),
        ("The answer is A, B is wrong.", "A"),
        ("The answer is A, C is too vague.", "A"),
        ("The answer is (C), A and B being wrong", "C"),
        ("The answer is (A) B cells", "A"),
        ("All options except B are wrong", "B"),
        ("Every option but C can be ruled out.", "C"),
        ("None of the options except D makes sense.", "D"),
        ("None of A, B or C; it is D.", "D"),
        ("The answer is (B) False.", "B"),
        ("(B) False", "B"),
        ("B. No", "B"),
        ("(A) False (B) False (C) True (D) False", "C"),
        ("A? No. B? No. C? Yes.", "C"),
        ("A ✗\nB ✓\nC ✗\nD ✗", "B"),
        ("Among A through D, C is right.", "C"),
        ("The answer is A. No wait, it's B.", "B"),
        ("The answer is A... Actually B.", "B"),
        ("The answer is (C). There is no A.", "C"),
        ("The answer is B. Wait, is it A? No. B.", "B"),
        ("The answer is vitamin C.", ""),
        ("A's speed is 3 and B's is 4; hence (D).", "D"),
        ("(A) does not follow; (D) does.", "D"),
        ("A and B can be excluded. D.", "D"),
        ("D. Both A and B", "D"),
        ("Both A and C are correct, so the answer is D.", "D"),
        ("The answer is D (both A and B).", "D"),
        (
            "Option A is incorrect because it's broad. Option C is correct because it states the idea. Option D is incorrect.",
            "C",
        ),
        ("", ""),
    ],
)
def test_the_letter_that_a_reply_settles_on(reply: str, answer: str) -> None:
    grade = grade_letter("ABCD", ["B"], reply)
    assert (grade.answer, grade.found, grade.correct) == (answer, bool(answer), answer == "B")


@pytest.mark.parametrize(
    ("reply", "answer"), [("I would say (B).", "B"), ("I must say D", "D"), ("The answer is I.", "I"), ("(I) sector", "I")]
)
def test_a_pronoun_is_no_option(reply: str, answer: str) -> None:
    assert grade_letter("ABCDEFGHIJ", ["B"], reply).answer == answer


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
        ("The answer is 1 234.", "1234", "1234", True),
        ("The answer is 12 345 dollars", "12345", "12345", True),
        ("The answer is 1'234", "1234", "1234", True),
        ("She sold 3 120-page books. She has 5 left", "5", "5", True),
        ("He had 12 345-gram bags.", "12345", "345", False),
        ("The answer is 18 or 20", "18", "", False),
        ("The answer is between 18 and 20", "18", "", False),
        ("The answer is 18 eggs, or 9 pairs.", "18", "18", True),
        ("\\boxed{3 + 4 = 7}", "7", "7", True),
        ("\\boxed{2\\frac{1}{2}}", "2.5", "2 1/2", True),
        ("The answer is 2½ hours", "2.5", "2 1/2", True),
        ("The answer is minus 18", "-18", "-18", True),
        ("The answer is –18", "-18", "-18", True),
        ("The answer is 18–20", "18", "", False),
        ("The answer is $1.5 million.", "1500000", "$1.5 million", True),
        ("The answer is not 20, but 18.", "18", "18", True),
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
        ("ant bee cat", "The answer is:\n1. ant\n2. bee\n3. cat\n\nDone.", "ant bee cat", True),
        ("ant bee cat", 'The answer is ["ant", "bee", "cat"].', "ant bee cat", True),
        ("ant bee cat", "The answer is ant, bee, and cat.", "ant bee cat", True),
        ("ant it&t", "The answer is ant, it&t.", "ant it&t", True),
        ("] )", "So the answer is ], ).", "])", True),
        ("] )", "The closing brackets are ] ).", "])", True),
        ("True", "Z = A or B = False or True = True.", "true", True),
        ("False", "I can't say whether it is True or False.", "", False),
        ("valid", "Step 1.\nStep 2.\nThus the argument is valid.", "valid", True),
        ("invalid", "The argument isn't valid.", "invalid", True),
        ("Yes", "Yes, it's what no one denies.", "yes", True),
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
        ("1 234", "1234", True),
        ("12\\,345", "12{,}345", True),
        ("3 4", "34", False),
        ("1 1/2", "11/2", False),
        ("\\frac{1}{-2}", "-\\frac12", True),
        ("{1,2}", "2,1", True),
        ("±2", "-2,2", True),
        ("(2,+\\infty)", "(2,\\infty)", True),
        ("1011_{2}", "1011_2", True),
        ("5 = x", "5", True),
        ("f(2)=5", "5", True),
        ("\\angle ABC = 30^\\circ", "30", True),
        ("\\frac{2}{4}=\\frac{1}{2}", "\\frac12", True),
        ("\\frac{2}{4}=\\frac{1}{3}", "\\frac13", False),
        ("1/2, or 0.5", "\\frac12", True),
        ("1/2 or 0.6", "\\frac12", False),
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
        ("5", "**5**", "5", True),
        ("5", "Therefore, there are 5 ways.", "5", True),
        ("5", "Therefore, there are **5** ways.", "5", True),
        ("5", "Step 1: we choose.\nStep 2 of which there are 5", "Step 2 of which there are 5", False),
        ("5", "There are 3 cases.\nThe first has 5", "The first has 5", False),
        ("14", "So there are 21y+14 ways.", "So there are 21y+14 ways.", False),
        ("5", "So 4 of the 5 are good.", "So 4 of the 5 are good.", False),
        ("\\frac12", "The probability is 1/2.", "1/2", True),
        ("\\$36", "The total cost is \\$36.", "$36", True),
        ("5", "The value is\n\\[\n5\n\\]", "5", True),
        ("5", "\\begin{align*}\nx &= 2+3 \\\\\n&= 5\n\\end{align*}", "5", True),
        ("2,3", "The solutions are $x=2$ and $x=3$.", "x=2, x=3", True),
        ("2,3", "The roots are $\\boxed{2}$ and $\\boxed{3}$.", "2, 3", True),
        ("2,3", "\\boxed{2} \\text{ and } \\boxed{3}", "2, 3", True),
        ("5", "\\boxed{4}. Correction: \\boxed{5}.", "5", True),
        ("2", "The minimum value is $2$, attained at $x = 3$.", "2", True),
        ("2", "The minimum value is 2, attained at $x = 3$.", "2", True),
        ("2", "The answer is 2, attained at $x=3$.", "2", True),
        ("5", "The answer is not 4 but 5.", "5", True),
        ("(2,3)", "The answer is the point (2,3).", "(2,3)", True),
        ("\\frac12", "The answer is $\\frac{2}{4}$, which simplifies to $\\frac12$.", "\\frac12", True),
        ("\\frac12", "The answer is ½.", "1/2", True),
        ("-5", "The answer is negative 5.", "-5", True),
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
        "5" + "\t" * 50_000 + "x",
        "x" + "] " * 20_000 + "x",
        "\\boxed{5}, " * 5_000 + "\\boxed{5}",
        "The answer is A. " + "wait, " * 10_000,
        "A or " * 5_000,
        "True or " * 8_000,
        "\\begin{align}" * 3_000 + "\\\\" * 5_000,
    ],
)
def test_no_reply_takes_long(reply: str) -> None:
    start = time.process_time()
    grade_math("\\boxed{\\sqrt2}", reply)
    grade_letter("ABCD", ["A"], reply)
    for label in ("> ]", "True", "ant bee"):
        grade_words([label], reply)
    grade_number(Question(question="?", label=("5",)), reply)
    assert time.process_time() - start < 3
