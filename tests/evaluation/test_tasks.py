"""The questions of a folder: which are asked, how many, and in which order."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.errors import DataError, OchatError
from ochat.evaluation.tasks import BENCHMARKS, PRIVATE, Task, in_asking_order, read_tasks, shown, subset


def test_all_questions_of_a_folder_are_read_and_a_set_names_some_of_them(data_path: Path) -> None:
    assert Counter(task.task_type for task in read_tasks(data_path, [])) == {
        "mt_bench": 2,
        "fs_cothub/gsm8k": 4,
        "zs/agieval": 12,
    }
    assert {task.task_name for task in read_tasks(data_path / "eval_data", ["zs/agieval/sec", "fs_cothub/"])} == {
        "zs/agieval/second",
        "fs_cothub/gsm8k/gsm8k",
    }
    first, *_ = read_tasks(data_path, ["mt_bench"])
    assert (first.turns, first.temperature) == (("Tell 0.", "Shorter."), 0.7)
    assert read_tasks(data_path, ["mt_bench"])[1].temperature == 0


@pytest.mark.parametrize(
    ("sets", "told"), [(["zs/mmlu"], "--eval-sets zs/mmlu: no such questions in .*fs_cothub/gsm8k"), ([], "No")]
)
def test_a_set_that_is_not_there_is_named(sets: list[str], told: str, data_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OchatError, match=told):
        read_tasks(data_path if sets else tmp_path / "empty", sets)


def test_a_line_that_is_no_question_is_named(data_path: Path) -> None:
    (data_path / "eval_data/zs/agieval/second.jsonl").write_text('{"question": "?", "label": []}\n{"label": []}\n')
    with pytest.raises(DataError, match=r"second.jsonl:2: not a question of zs/agieval"):
        read_tasks(data_path, [])


@pytest.mark.parametrize(("folder", "lacks"), [("coding/humaneval", "base_input"), ("zs/math", "solution")])
def test_a_question_that_could_not_be_graded_is_named_before_it_is_asked(folder: str, lacks: str, data_path: Path) -> None:
    file = data_path / "eval_data" / folder / "own.jsonl"
    file.parent.mkdir(parents=True)
    known = {"prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n", "task_id": "Own/0"}
    whole = known | {"base_input": [], "plus_input": [], "atol": 0, "solution": "\\boxed{5}"}
    file.write_text(json.dumps({"question": "?", "label": "", "_metadata": whole}) + "\n")
    assert [task.task_name for task in read_tasks(data_path, [folder])] == [f"{folder}/own"]
    file.write_text(json.dumps({"question": "?", "label": "", "_metadata": known}) + "\n")
    with pytest.raises(DataError, match=f"own.jsonl:1: not a question of {folder} .*{lacks}"):
        read_tasks(data_path, [folder])


def test_a_subset_takes_its_share_of_each_file_and_the_same_one_again(data_path: Path) -> None:
    tasks = read_tasks(data_path, [])
    half = subset(tasks, 0.5, seed=0)
    assert Counter(task.task_name for task in half) == {
        "mt_bench/question": 1,
        "fs_cothub/gsm8k/gsm8k": 2,
        "zs/agieval/first": 5,
        "zs/agieval/second": 1,
    }
    assert subset(tasks, 0.5, seed=0) == half
    assert subset(tasks, 0.5, seed=1) != half
    assert len(subset(tasks, 0.01, seed=0)) == 4  # none is left out whole


def test_long_replies_are_asked_for_first_and_what_shares_a_prefix_follows_each_other() -> None:
    texts = {"zs/agieval": ["passage one, 1", "passage two, 1", "passage one, 2"], "fs_cothub/bbh": ["x"], "zs/math": ["y"]}
    tasks = [Task(kind, f"{kind}/a", row, (text,), {}) for kind, all in texts.items() for row, text in enumerate(all)]
    assert [tasks[index].turns[0] for index in in_asking_order(tasks)] == [
        "y",
        "x",
        "passage one, 1",
        "passage one, 2",
        "passage two, 1",
    ]


def test_a_reader_sees_the_question_without_the_examples_and_nothing_of_gpqa() -> None:
    examples = "An example.\n" * 60
    tasks = [Task("fs_cothub/mmlu", "fs_cothub/mmlu/a", row, (f"{examples}And {row}?",), {}) for row in range(3)]
    assert shown(tasks) == ["And 0?", "And 1?", "And 2?"]
    assert shown([Task(PRIVATE, "zs/gpqa/diamond", 0, ("secret",), {})]) == [""]


def test_every_question_of_the_original_is_read(test_file: Callable[[str], Path]) -> None:
    tasks = read_tasks(test_file("eval/eval_data").parent, [])
    counts = Counter(task.task_type for task in tasks)
    assert counts == {
        "zs/agieval": 2546,
        "zs/bbh_mc_orca": 5517,
        "zs/truthfulqa_orca": 684,
        "zs/math": 5000,
        "fs_cothub/mmlu": 13985,
        "fs_cothub/bbh": 6511,
        "fs_cothub/gsm8k": 1319,
        "fs_cothub/math": 5000,
        "coding/humaneval": 164,
        "mt_bench": 80,
        "vicuna_bench": 80,
    }
    assert counts == {folder: BENCHMARKS[folder].n_questions for folder in counts}
    assert max(map(len, shown([task for task in tasks if task.task_type == "fs_cothub/gsm8k"]))) < 1500
