"""Decontamination: a row that holds a benchmark's question goes, and the question is named; what prompts share doesn't count."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ochat.conversation import Conversation, Message, read_json_lines
from ochat.data.clean.contamination import Benchmarks, Match, drop_contaminated, question_files, read_benchmark, without_closing
from ochat.data.clean.tally import Tally
from ochat.errors import DataError

QUESTION = "A farmer has 17 sheep, and all but nine of them run away in the night: how many are left?"


def row(*texts: str, system: str = "") -> Conversation:
    items = [Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)]
    return Conversation(items=tuple(items), system=system)


def written(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def benchmarks(*paths: Path, n_words: int = 13) -> Benchmarks:
    return Benchmarks.of([read_benchmark(name, file) for path in paths for name, file in question_files(path)], n_words)


def found(known: Benchmarks, rows: Sequence[Conversation]) -> list[str]:
    return [f"{hit[0].benchmark}:{hit[0].place.rpartition(':')[2]}" if hit else "" for hit in known.find(rows)]


def test_a_question_is_found_wherever_it_stands(tmp_path: Path) -> None:
    known = benchmarks(written(tmp_path / "riddles.jsonl", {"question": "What?"}, {"question": QUESTION}))
    thirteen = " ".join(QUESTION.split()[:13])
    rows = [
        row(QUESTION, "9"),
        row(f"Solve it.\n\n{QUESTION.upper().replace(',', '')}\n", "9"),
        row("Give me a riddle", f"Sure: {QUESTION}"),
        row("Hi", "Oh", system=thirteen),
        row(" ".join(QUESTION.split()[:12]), "9"),  # a word short
        row(thirteen.replace("sheep", "goats"), "9"),
        row("A farmer has 17 sheep", "and all but nine of them run away in the night"),  # over two messages
    ]
    assert found(known, rows) == ["riddles:2"] * 4 + [""] * 3
    assert found(benchmarks(tmp_path, n_words=12), rows[4:6]) == ["riddles:2", ""]


def test_a_short_question_is_found_where_a_user_asks_just_that(tmp_path: Path) -> None:
    known = benchmarks(written(tmp_path / "short.jsonl", {"question": "What is 2 + 2?"}))
    rows = [row("what is 2+2", "4"), row("What is 2 + 2? And 3?", "4"), row("Ask me", "What is 2 + 2?")]
    assert found(known, rows) == ["short:1", "", ""]


def test_words_that_prompts_share_are_no_question(tmp_path: Path) -> None:
    """Few-shot examples before, an instruction after, and one in the middle of every question."""
    example = "Question: " + " ".join(f"word{number}" for number in range(40)) + "\nAnswer: 1\n\n"
    middle = "Now think about it with great care and tell me all the steps that you took to get there. "
    own = [" ".join(f"item{question}x{number}" for number in range(20)) for question in range(11)]
    lines = [{"question": f"{example}Question: {text}. {middle}{text[::-1]}\nLet's think step by step."} for text in own]
    known = benchmarks(written(tmp_path / "few.jsonl", *lines))
    rows = [row(example, "1"), row(middle, "ok"), row(f"{own[3]}", "1")]
    assert found(known, rows) == ["", "", "few:4"]
    few = benchmarks(written(tmp_path / "ten.jsonl", *lines[:10]))  # of so few, all may be asked alike
    assert found(few, rows) == ["ten:1", "ten:1", "ten:4"]


def test_only_whole_words_are_taken_for_shared() -> None:
    assert without_closing(["a cat. Why?", "a bat. Why?"]) == ["a cat.", "a bat."]
    assert without_closing(["the same", "the same"]) == ["the", "the"]  # the first word has no blank before it


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ({"question": "a b", "label": ["x"], "options": []}, [["a", "b"]]),
        ({"prompt": "a b"}, [["a", "b"]]),
        ({"question_id": 1, "turns": ["a", "b"]}, [["a"], ["b"]]),
    ],
)
def test_questions_are_read_from_these_fields(tmp_path: Path, line: object, texts: list[list[str]]) -> None:
    path = written(tmp_path / "q.jsonl", line)
    assert [question.text for question in read_benchmark("q", path)] == texts


def test_a_folder_is_read_with_its_folders_and_gz(tmp_path: Path) -> None:
    (tmp_path / "math").mkdir()
    with gzip.open(tmp_path / "math" / "b.jsonl.gz", "wt") as file:
        file.write('{"question": "x"}\n')
    written(tmp_path / "a.jsonl", {"question": "y"})
    assert [name for name, _ in question_files(tmp_path)] == ["a", "math/b"]


@pytest.mark.parametrize("line", [{"text": "x"}, {"question": 3}, ["x"], {"turns": []}])
def test_a_line_without_a_question_is_named(tmp_path: Path, line: object) -> None:
    with pytest.raises(DataError, match=r"q\.jsonl:1: no question"):
        read_benchmark("q", written(tmp_path / "q.jsonl", line))


def test_no_questions_at_all_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no questions"):
        read_benchmark("q", written(tmp_path / "q.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no \.jsonl"):
        question_files(tmp_path / "empty")


def test_a_planted_gsm8k_question_is_found_and_its_few_shot_examples_are_not(test_file: Callable[[str], Path]) -> None:
    known = benchmarks(test_file("eval/eval_data/fs_cothub/gsm8k"))
    tests = [value["question"] for _, value in read_json_lines(test_file("eval/raw_sources/gsm8k_test.jsonl.gz"))]  # type: ignore[index]
    train = [value["question"] for _, value in read_json_lines(test_file("train/gsm8k_train.jsonl.gz"))]  # type: ignore[index]
    planted = {100: tests[0], 2000: f"Please help me. {tests[700].lower()} Explain.", 7000: tests[1318]}
    rows = [(str(number), row(planted.get(number, question), "42")) for number, question in enumerate(train)]
    tally, matches = Tally(), list[Match]()
    kept = list(drop_contaminated(iter(rows), tally, known, matches))
    lines = {int(match.row): int(match.question.rpartition(":")[2]) for match in matches}
    # Besides, four of GSM8K's own training questions share 13 words with three of its test.
    assert lines == {100: 1, 2000: 701, 7000: 1319, 20: 633, 406: 582, 1314: 603, 5162: 603}
    assert tally.drops == {"question of gsm8k": 7}
    assert len(kept) == len(rows) - 7
    (shot,) = [question for question in train if question.startswith("Angelo and Melanie")]
    assert shot in {kept_row.items[0].content for _, kept_row in kept}
