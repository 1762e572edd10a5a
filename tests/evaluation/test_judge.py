"""The judge: what it is asked, which score its words give, and what is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import Server

from ochat.cli import main as cli
from ochat.errors import DataError, OchatError
from ochat.evaluation.judge import Options, answer_files, main, read_matches, read_score, score
from ochat.evaluation.results import Run
from ochat.evaluation.view_results import scores

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write a line.", "Shorter."]},
    {"question_id": 111, "category": "math", "turns": ["1 + 1?", "And {twice} that?"]},
]
PROMPTS = {
    "single-v1": "Q {question} A {answer}",
    "single-v1-multi-turn": "Q {question_1} A {answer_1} Q {question_2} A {answer_2}",
    "single-math-v1": "Q {question} R {ref_answer_1} A {answer}",
    "single-math-v1-multi-turn": "Q {question_2} R {ref_answer_2} A {answer_2} after {ref_answer_1}",
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answer(question_id: int, *turns: str, model: str = "toy") -> dict[str, Any]:
    return {"question_id": question_id, "model_id": model, "choices": [{"index": 0, "turns": list(turns)}]}


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_rows(folder / "mt_bench/question.jsonl", QUESTIONS)
    prompts = [
        {"name": name, "system_prompt": f"You judge by {name}.", "prompt_template": text} for name, text in PROMPTS.items()
    ]
    write_rows(folder / "mt_bench/judge_prompts.jsonl", prompts)
    write_rows(folder / "mt_bench/reference_answer/gpt-4.jsonl", [answer(111, "2", "4", model="gpt-4")])
    return folder


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return write_rows(
        tmp_path / "run/mt_bench-answers.jsonl", [answer(81, "A rose.", "Rose."), answer(111, "It's {2}", "5")]
    ).parent


@pytest.mark.parametrize(
    ("judgment", "given"),
    [
        ("Good work. Rating: [[8]]", 8.0),
        ("Rating: [[7.5]]\n\nOn reflection: [[3]]", 7.5),  # the first one
        ("I would say [6], but see [1]. Rating: [[9]]", 9.0),  # two brackets before one
        ("Rating: [6]", 6.0),
        ("[[10]]", 10.0),
        ("[[8.]]", 8.0),
        ("Rating: 8/10", -1.0),
        ("Rating: [[eight]]", -1.0),
        ("Rating: [[8/10]]", -1.0),
        ("**Rating: [[ 8 ]]**", -1.0),  # as FastChat reads it
        ("", -1.0),
    ],
)
def test_the_score_of_a_judgment(judgment: str, given: float) -> None:
    assert score(judgment) == given


def test_each_turn_is_judged_by_fastchats_prompt_of_its_category(questions: Path, answers: Path) -> None:
    matches = read_matches("mt_bench", questions, answers / "mt_bench-answers.jsonl")
    assert [(match.question_id, match.turn, match.prompt) for match in matches] == [
        (81, 1, "Q Write a line. A A rose."),
        (111, 1, "Q 1 + 1? R 2 A It's {2}"),
        (81, 2, "Q Write a line. A A rose. Q Shorter. A Rose."),
        (111, 2, "Q And {twice} that? R 4 A 5 after 2"),
    ]
    assert [match.system for match in matches][-1] == "You judge by single-math-v1-multi-turn."


def test_scores_are_kept_with_their_judge_and_what_has_none_is_counted(
    questions: Path, answers: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda body: (
        "Rating: [[4]]" if "A rose" in str(body["messages"]) else "no idea" if "after" in str(body) else "[7]"
    )
    main(Options(answers, data_path=questions, base_url=server.url, parallel=1))
    told = capsys.readouterr().out
    assert told.splitlines()[2].split()[:4] == ["all", "4", "1", "5.000"]
    folder = answers / "judged-by-toy"
    kept = json.loads((folder / "mt_bench-scores.json").read_text(encoding="utf-8"))
    assert (kept["mean"], kept["n_judged"], kept["n_without_score"]) == (5.0, 4, 1)
    assert kept["judge"] == {"id": "toy", "root": "/models/first"}
    assert kept["prompts"]["single-math-v1"] == "You judge by single-math-v1."
    assert kept["by"]["turn 1"] == {"mean": 5.5, "n": 2}
    assert kept["by"]["math"] == {"mean": 7.0, "n": 2}
    line = json.loads((folder / "mt_bench-judgments.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert (line["judge"], line["score"], line["judgment"], line["turn"]) == (["toy", "single-math-v1"], 7.0, "[7]", 1)
    first = server.asked[0]
    assert (first["temperature"], first["max_tokens"]) == (0, 2048)
    assert first["messages"][0] == {"role": "system", "content": "You judge by single-v1."}  # type: ignore[index]
    assert read_score(answers, "mt_bench") == (5.0, 4)
    assert scores(Run(answers, "toy", "", []))["mt_bench"] == 5.0


def test_what_was_judged_is_not_judged_again(questions: Path, answers: Path, server: Server) -> None:
    server.reply = "[[5]]"
    main(Options(answers, data_path=questions, base_url=server.url))
    journal = answers / "judged-by-toy/replies.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])  # killed while it wrote the last
    main(Options(answers, data_path=questions, base_url=server.url))
    assert len(server.asked) == 5


def test_a_judge_has_a_folder_of_its_own(questions: Path, answers: Path, server: Server, tmp_path: Path) -> None:
    options = {"data_path": questions, "base_url": server.url, "output": tmp_path / "judged"}
    main(Options(answers, **options))
    server.models = {"data": [{"id": "other"}]}
    with pytest.raises(OchatError, match="holds replies of another model"):
        main(Options(answers, **options))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([answer(99, "a", "b")], r":1: question 99 is not in .*mt_bench"),
        ([answer(81, "a", "b"), answer(111, "a")], r":2: the answer to question 111 has no turn 2"),
        ([{"question_id": 81}], r":1: no `model_id`"),
        ([], "has no answers"),
    ],
)
def test_an_answer_that_cannot_be_judged_is_named(
    rows: list[dict[str, Any]], problem: str, questions: Path, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "mt_bench-answers.jsonl", rows)
    with pytest.raises(DataError, match=problem):
        read_matches("mt_bench", questions, path)


def test_a_missing_reference_is_named(questions: Path, answers: Path) -> None:
    write_rows(questions / "mt_bench/reference_answer/gpt-4.jsonl", [])
    with pytest.raises(DataError, match=r":2: its reference in .*gpt-4.jsonl has no turn 1"):
        read_matches("mt_bench", questions, answers / "mt_bench-answers.jsonl")


def test_of_a_sweep_each_conditions_answers_are_judged(answers: Path) -> None:
    with pytest.raises(OchatError, match=rf"Judge each condition's: ochat eval judge {answers}"):
        answer_files(answers.parent, "")


def test_a_folder_without_answers_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds no answers to judge\. Ask for them: ochat eval run --eval-sets mt_bench"):
        cli(["eval", "judge", str(tmp_path)])


@pytest.mark.parametrize(("kind", "n_questions", "n_turns"), [("mt_bench", 80, 2), ("vicuna_bench", 80, 1)])
def test_every_question_of_fastchat_has_its_prompt(
    kind: str, n_questions: int, n_turns: int, test_file: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = test_file("eval")
    with (folder / kind / "question.jsonl").open(encoding="utf-8") as file:
        rows = [answer(json.loads(line)["question_id"], "one {answer}", "two") for line in file]
    matches = read_matches(kind, folder, write_rows(tmp_path / f"{kind}.jsonl", rows))
    assert len(matches) == n_questions * n_turns
    assert all("one {answer}" in match.prompt for match in matches)
    assert sum("math" in match.prompt_name for match in matches) == (60 if kind == "mt_bench" else 10)
