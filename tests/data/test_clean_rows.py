"""The command: steps in their order, every row accounted for, whole output or none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.conversation import read_conversations
from ochat.data.clean.clean_rows import Options, main
from ochat.errors import DataError, OchatError
from ochat.tokenizer import load_tokenizer


def conversation(question: str, reply: str, weight: float = 1.0, name: str = "good") -> dict[str, object]:
    items = [{"role": "user", "content": question}, {"role": "assistant", "content": reply, "weight": weight}]
    return {"items": items, "condition": "GPT4", "class": name}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


SHEEP = "A farmer has 17 sheep, and all but nine of them run away in the night: how many are left?"
LONG = " ".join(f"word{number}" for number in range(60))
ROWS = [
    conversation("Hi", "Oh"),
    conversation("Hi", "Oh", 0.1, "poor"),
    conversation("Tell me", LONG),
    conversation("Tell me", LONG + " more"),
    conversation("Nothing", " "),
    conversation("Riddle: " + SHEEP, "Nine."),
    {"items": [{"role": "assistant", "content": "Hello!"}, *conversation("Why?", "Because.")["items"]]},  # type: ignore[misc]
]


def replies(path: Path) -> list[str]:
    return [row.items[-1].content for _, row in read_conversations(path)]


def test_by_default_turns_and_duplicates_are_cleaned_and_all_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    main(Options((written(tmp_path / "in.jsonl", *ROWS),), output))
    assert replies(output) == ["Oh", LONG, "Nine.", "Because."]
    assert capsys.readouterr().out.splitlines() == [
        "step                    in         out     changed     dropped",
        "turns                    7           6           1           1",
        "            1 dropped: no question with a reply",
        "            1 changed: leading assistant turn removed",
        "exact                    6           5           0           1",
        "            1 dropped: same text in another class",
        "near                     5           4           0           1",
        "            1 dropped: near-duplicate in its class",
        f"Wrote {output}: 4 of 7 rows",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_steps_run_in_one_order_whatever_they_are_named_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [conversation("Hi", "<p>Oh <b>no</b></p>"), conversation("Hi", "Oh **no**")]
    main(Options((written(tmp_path / "in.jsonl", *rows),), tmp_path / "out.jsonl", steps=("exact", "markup"), json=True))
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["step"], step["in"], step["out"]) for step in steps] == [("markup", 2, 2), ("exact", 2, 1)]


def test_an_option_brings_its_step_and_the_matches_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = written(tmp_path / "in.jsonl", *ROWS), tmp_path / "out.jsonl"
    questions = written(tmp_path / "riddles.jsonl", {"question": SHEEP})
    main(Options((source,), output, questions=(questions,), min_words=2, json=True))
    told = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in told["steps"]] == ["turns", "short", "decontaminate", "exact", "near"]
    assert replies(output) == [LONG]
    main(Options((source,), output, steps=("decontaminate",), questions=(questions,), json=True))
    assert json.loads(capsys.readouterr().out)["contaminated"] == [
        {
            "benchmark": "riddles",
            "question": f"{questions}:1",
            "row": f"{source}:6",
            "words": "a farmer has 17 sheep and all but nine of them run away",
        }
    ]


def test_splitting_adds_rows_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], toy_folder: Callable[..., Path]
) -> None:
    items = [{"role": role, "content": "a b c"} for role in ("user", "assistant", "user", "assistant")]
    source, output = written(tmp_path / "in.jsonl", {"items": items}), tmp_path / "out.jsonl"
    options = {"steps": ("length",), "max_length": 6, "too_long": "split"}
    main(Options((source,), output, length_unit="words", **options))  # type: ignore[arg-type]
    assert [len(row.items) for _, row in read_conversations(output)] == [2, 2]
    assert "1 more by splitting" in capsys.readouterr().out
    folder = str(toy_folder("openchat_3.5"))
    tokens = options | {"length_unit": "tokens", "tokenizer": folder}
    (n_tokens,) = {len(ids) for ids in load_tokenizer(Path(folder)).encode_text(["a b c"])}
    main(Options((source,), output, **tokens | {"max_length": 2 * n_tokens}))  # type: ignore[arg-type]
    assert [len(row.items) for _, row in read_conversations(output)] == [2, 2]
    with pytest.raises(DataError, match="None of 1 row is left"):
        main(Options((source,), output, **tokens | {"max_length": 2 * n_tokens - 1}))  # type: ignore[arg-type]


def test_examples_are_shown_with_control_characters_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [conversation("Hi\x1b[31m\n", "Oh"), conversation("Hi\x1b[31m\n", "Oh"), conversation("Hi\x1b[31m\n", "Oh")]
    main(Options((written(tmp_path / "in.jsonl", *rows),), tmp_path / "out.jsonl", show=1))
    out = capsys.readouterr().out
    assert r"in.jsonl:2  user: Hi\x1b[31m\n" in out
    assert "in.jsonl:3" not in out
    assert "\x1b" not in out


def test_nothing_is_written_where_no_row_is_left_or_one_is_bad(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", ROWS[4])
    with pytest.raises(DataError, match="None of 1 row is left"):
        main(Options((source,), tmp_path / "out.jsonl"))
    written(source, ROWS[0], {"items": []})
    with pytest.raises(DataError, match=r"in\.jsonl:2"):
        main(Options((source,), tmp_path / "out.jsonl"))
    written(source)
    with pytest.raises(DataError, match="no rows"):
        main(Options((source,), tmp_path / "out.jsonl"))
    assert list(tmp_path.iterdir()) == [source]


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    source, output = written(tmp_path / "in.jsonl", ROWS[0]), tmp_path / "thesis.txt"
    output.write_text("years of work")
    with pytest.raises(OchatError, match="holds no conversations"):
        main(Options((source,), output))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"steps": ("decontaminate",)}, "The step decontaminate needs --questions"),
        ({"steps": ("exact",), "languages": ("en",)}, "--languages is for the step language"),
        ({"jaccard": 0.3}, "--jaccard is 0.3"),
        ({"question_words": 3}, "--question-words is 3"),
        ({"max_length": 0}, "--max-length is 0"),
        ({"length_unit": "tokens", "max_length": 9}, "--length-unit tokens and --tokenizer go together"),
        ({"max_repetition": 1.0}, "--max-repetition is 1.0"),
        ({"min_words": 0}, "--min-words is 0"),
        ({"show": -1}, "--show is -1"),
        ({"inputs": ()}, "No input given"),
        ({"output": Path("in.jsonl")}, "is an input too"),
        ({"output": Path("out.jsonl.gz")}, r"Leave out \.gz"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, object], problem: str) -> None:
    with pytest.raises(OchatError, match=problem):
        Options(**{"inputs": (Path("in.jsonl"),), "output": Path("out.jsonl"), **options})  # type: ignore[arg-type]


def test_leading_assistant_turns_of_real_shared_chats_are_counted(
    test_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import gzip

    roles = {"human": "user", "gpt": "assistant"}
    with gzip.open(test_file("train/sharegpt_v3_sample_200.jsonl.gz")) as file:
        rows = [
            {"items": [{"role": roles[turn["from"]], "content": turn["value"]} for turn in json.loads(line)["conversations"]]}
            for line in file
        ]
    source = written(tmp_path / "in.jsonl", *rows)
    main(Options((source,), tmp_path / "out.jsonl", steps=("markup", "turns", "exact", "near"), json=True))
    steps = {step["step"]: step for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["turns"]["changed_by_reason"] == {"leading assistant turn removed": 44}
    # Five of the rows have HTML, all of it pages and programs that they talk about.
    assert [step["dropped"] for step in steps.values()] == [steps["markup"]["changed"], 0, 0, 0] == [0, 0, 0, 0]
