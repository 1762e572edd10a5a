"""`ochat eval grade`: replies from a file, a grade a line."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sandboxes import needs_sandbox

from ochat.cli import main as cli
from ochat.evaluation.grade import mean_pass_at_k

LETTER = {"task_type": "zs/agieval", "task_data": {"options": ["A", "B", "C"], "label": ["B"]}}
NUMBER = {"task_type": "fs_cothub/gsm8k", "task_data": {"options": None, "label": ["1,234"]}}
CODE = {
    "task_type": "coding/humaneval",
    "task_data": {"label": "", "_metadata": {"task_id": "Toy/0", "prompt": "def f(x):\n", "entry_point": "f"}},
}
INPUTS = {"canonical_solution": "    return x\n", "base_input": [[1]], "plus_input": [[-1]], "atol": 0}


def file_of(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def graded(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    cli(["eval", "grade", *map(str, words), "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("name", ["replies.jsonl", "replies.jsonl.gz"])
def test_each_reply_has_its_line_in_the_files_order(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [LETTER | {"response": "Answer: B"}, NUMBER | {"response": "It's 1234."}, LETTER | {"response": None}]
    path = file_of(tmp_path / name, *rows)
    assert graded(capsys, path, "--grader", "strict") == [
        {"is_matched": True, "answer": "B", "is_correct": True},
        {"is_matched": True, "answer": "1234", "is_correct": True},
        {"is_matched": False, "answer": "", "is_correct": False},
    ]
    assert graded(capsys, path, "--grader", "compatible") == [
        {"is_matched": True, "answer": "A", "is_correct": False},
        {"is_matched": True, "answer": "1234", "is_correct": False},
        {"is_matched": False, "answer": "", "is_correct": False},
    ]


def test_the_originals_version_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"task_type": "fs_cothub/bbh", "task_data": {"options": None, "label": ["True"]}, "response": "the answer is "}
    path = file_of(tmp_path / "replies.jsonl", row)
    for version, matched in (("3.5.1", False), ("3.6.1", True)):  # 3.5.1 raised
        assert graded(capsys, path, "--grader", "compatible", "--compat", version)[0]["is_matched"] is matched


def test_math_and_code_need_no_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    math = {"task_type": "zs/math", "task_data": {"_metadata": {"solution": "\\boxed{5}"}}, "response": "The answer is 5"}
    code = CODE | {"task_data": {"_metadata": CODE["task_data"]["_metadata"]}, "response": "def f(x): pass"}  # type: ignore[index]
    path = file_of(tmp_path / "replies.jsonl", math, code)
    assert [line["is_correct"] for line in graded(capsys, path, "--grader", "compatible")] == [True, False]


def test_without_json_a_table_counts_by_task_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [LETTER | {"response": reply} for reply in ("B", "A", "B", "?")]
    cli(["eval", "grade", str(file_of(tmp_path / "replies.jsonl", *rows))])
    assert capsys.readouterr().out.splitlines()[1].split() == "zs/agieval 4 2 0.500 [0.150, 0.850] 25.0%".split()


@needs_sandbox
def test_programs_run_on_the_inputs_of_the_questions_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replies = ("def f(x): return x", "def f(x): return abs(x)", "def f(x): return 0")
    path = file_of(tmp_path / "replies.jsonl", *(CODE | {"response": reply} for reply in replies))
    (tmp_path / "coding").mkdir()
    file_of(tmp_path / "coding/humaneval.jsonl", {"_metadata": CODE["task_data"]["_metadata"] | INPUTS})  # type: ignore[index]
    words = (path, "--data-path", tmp_path)
    assert [line["is_correct"] for line in graded(capsys, *words)] == [True, True, False]
    assert [line["is_correct"] for line in graded(capsys, *words, "--plus")] == [True, False, False]
    cli(["eval", "grade", *map(str, words)])
    assert "pass@1 0.667" in capsys.readouterr().out


def test_programs_without_inputs_have_no_grade_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file_of(tmp_path / "replies.jsonl", CODE | {"response": "def f(x): return x"})
    cli(["eval", "grade", str(path), "--json"])
    said = capsys.readouterr()
    assert json.loads(said.out) == {"is_matched": True, "answer": "\n\ndef f(x):\n    return x", "is_correct": None}
    assert "1 programs have no grade" in said.err
    assert "--data-path" in said.err


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "not an object"),
        ("{}", "no `task_type`"),
        (json.dumps(LETTER), "no `response`"),
        (json.dumps(LETTER | {"response": 5}), "response no text"),
        (
            json.dumps(LETTER | {"response": "B", "task_type": "zs/unknown"}),
            "unknown task_type 'zs/unknown'. Known: zs/agieval",
        ),
        (json.dumps(LETTER | {"response": "B", "task_data": {"options": ["A"]}}), "no label"),
        (json.dumps(LETTER | {"response": "B", "task_data": {"label": ["A"]}}), "options that are no texts"),
        (json.dumps(CODE | {"response": "", "task_data": {"label": ""}}), "no _metadata.task_id"),
        ("{", "not JSON"),
        ("", "the line is empty"),
    ],
)
def test_a_bad_line_is_named(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps(LETTER | {"response": "B"}) + f"\n{line}\n")
    with pytest.raises(SystemExit) as ended:
        cli(["eval", "grade", str(path)])
    assert f"{path}:2: " in str(ended.value)
    assert problem in str(ended.value)


def test_a_file_without_replies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no replies"):
        cli(["eval", "grade", str(file_of(tmp_path / "replies.jsonl"))])


def test_the_command_loads_nothing_heavy(tmp_path: Path) -> None:
    path = file_of(tmp_path / "replies.jsonl", LETTER | {"response": "B"})
    code = (
        f"import sys; from ochat.cli import main; main(['eval', 'grade', {str(path)!r}])\n"
        "assert not {'torch', 'vllm', 'transformers', 'sympy', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_pass_at_k_is_the_chance_that_one_of_k_is_right() -> None:
    programs = [[True, False, False, False], [False] * 4]
    assert mean_pass_at_k(programs, 1) == pytest.approx((1 / 4 + 0) / 2)
    assert mean_pass_at_k(programs, 2) == pytest.approx((1 - 3 / 6) / 2)
    assert mean_pass_at_k(programs, 4) == pytest.approx(1 / 2)
