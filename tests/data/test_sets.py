"""Public data sets by name: rows of each become what the table says, quirks and all. Rows by the sets' schemas; real ones where there
are any."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from public_sets import EXPECTED, ROWS, write_copy

from ochat.conversation import Conversation, read_conversations
from ochat.data.blocks import is_heldout, prompt_hash
from ochat.data.import_rows import Options, main
from ochat.data.sets import SETS, set_named, set_of
from ochat.data.verify import agrees
from ochat.errors import DataError, OchatError


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., list[Conversation]]:
    """The conversations that rows of a data set's local copy become."""

    def run(id: str, **options: Any) -> list[Conversation]:
        main(Options((write_copy(tmp_path / "copies", id),), tmp_path / "rows.jsonl", **options))
        return [row for _, row in read_conversations(tmp_path / "rows.jsonl")]

    return run


def classes(rows: list[Conversation]) -> dict[tuple[str, str, float | None], int]:
    return Counter((row.class_name, row.condition, row.items[-1].weight) for row in rows)


def test_the_ten_sets_of_the_model_card_are_known() -> None:
    assert {one.id for one in SETS} == set(ROWS) == set(EXPECTED)


@pytest.mark.parametrize("id", ROWS)
def test_a_local_copy_is_known_by_its_path_and_gets_the_sets_classes(
    imported: Callable[..., list[Conversation]], id: str
) -> None:
    assert classes(imported(id)) == EXPECTED[id]


def test_what_is_known_of_a_set_is_printed(
    imported: Callable[..., list[Conversation]], capsys: pytest.CaptureFixture[str]
) -> None:
    imported("TIGER-Lab/MathInstruct")
    out = capsys.readouterr().out
    assert "TIGER-Lab/MathInstruct; licence: MIT, with parts of other licences" in out
    assert "1 row excluded by source=*camel* (Camel-Math is CC BY-NC 4.0)" in out
    assert "6 rows read = 3 kept + 3 excluded + 0 rejected" in out
    assert "1 with another value there: 'data/PoT/MATH_train.json'" in out
    imported("openchat/openchat_sharegpt4_dataset")
    assert "1 with another value there: 'None'" in capsys.readouterr().out


def test_checked_mathematics_may_have_the_condition_of_later_models(imported: Callable[..., list[Conversation]]) -> None:
    assert {row.condition for row in imported("tiedong/goat", math_condition=True)} == {"Math Correct"}
    found = classes(imported("TIGER-Lab/MathInstruct", math_condition=True))
    assert set(found) == {("mathinstruct", "Math Correct", 1.0), ("mathinstruct-unchecked", "GPT4", 1.0)}
    with pytest.raises(OchatError, match="--math-condition is for data sets that are known, and have mathematics"):
        imported("LDJnr/Pure-Dove", math_condition=True)


def test_each_option_takes_the_place_of_what_is_known(imported: Callable[..., list[Conversation]], tmp_path: Path) -> None:
    assert len(imported("TIGER-Lab/MathInstruct", exclude=())) == 6
    assert len(imported("TIGER-Lab/MathInstruct", exclude=("source=*PoT*",))) == 4
    assert classes(imported("tiedong/goat", condition="Sums", weight=0.5)) == {("goat", "Sums", 0.5): 2}
    assert classes(imported("tiedong/goat", class_name="sums")) == {("sums", "GPT4 Correct", 1.0): 2}
    assert len(imported("tiedong/goat", cap=1)) == 1
    assert classes(imported("openchat/openchat_sharegpt4_dataset", drop_class=("sharegpt-gpt3",))) == {
        ("sharegpt-gpt4", "GPT4", 1.0): 1
    }
    one_class = classes(imported("openchat/openchat_sharegpt4_dataset", condition="Chat", class_name="chat"))
    assert one_class == {("chat", "Chat", 1.0): 4}
    table = tmp_path / "classes.yaml"
    table.write_text(
        "classes: [{name: c, condition: C, weight: 0.3}]\nrules: [{by: column, column: model, classes: {}, others: c}]"
    )
    with pytest.raises(OchatError, match=r"classes\.yaml:2"):
        imported("openchat/openchat_sharegpt4_dataset", classes=table)
    table.write_text("classes: [{name: c, condition: C, weight: 0.3}]\nfallback: c\n")
    assert classes(imported("glaiveai/glaive-code-assistant", classes=table)) == {("c", "C", 0.3): 1}
    with pytest.raises(OchatError, match=r"has the classes sharegpt-gpt4, sharegpt-gpt3\. Make it one with --condition"):
        imported("openchat/openchat_sharegpt4_dataset", weight=0.5)
    with pytest.raises(OchatError, match=r"--drop-class gpt3: no such class\. Known: sharegpt-gpt4, sharegpt-gpt3"):
        imported("openchat/openchat_sharegpt4_dataset", drop_class=("gpt3",))


def test_only_the_file_that_holds_the_conversations_is_read(
    imported: Callable[..., list[Conversation]], tmp_path: Path
) -> None:
    folder = tmp_path / "copies/openchat/openchat_sharegpt4_dataset"
    folder.mkdir(parents=True)
    (folder / "openchat.train.json").write_text("[[[1, 2], [0, 1]]]")
    assert len(imported("openchat/openchat_sharegpt4_dataset")) == 4
    (folder / "sharegpt_clean.json").unlink()
    with pytest.raises(DataError, match=r"has no sharegpt_clean\.json.* there: openchat\.train\.json"):
        main(Options((folder,), tmp_path / "rows.jsonl"))
    with pytest.raises(DataError, match=r"such as the tokens of the original's openchat\.train\.json.* such as sharegpt_gpt4"):
        main(Options((folder / "openchat.train.json",), tmp_path / "rows.jsonl"))


def test_rows_of_another_set_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"question": "Hi", "answer": "Ho"}))
    with pytest.raises(DataError, match=r"in\.jsonl:1: found `question`, `answer`, which isn't query/response of meta-math"):
        main(Options((source,), tmp_path / "rows.jsonl", set="MetaMathQA"))


def test_inputs_of_two_sets_are_imported_apart(tmp_path: Path) -> None:
    for id in ("tiedong/goat", "LDJnr/Pure-Dove"):
        (tmp_path / id).mkdir(parents=True)
    with pytest.raises(OchatError, match="Import each apart"):
        main(Options((tmp_path / "tiedong/goat", tmp_path / "LDJnr/Pure-Dove"), tmp_path / "rows.jsonl"))


def test_a_set_is_found_by_name() -> None:
    assert set_named("tiedong/goat") is set_named("GOAT") is set_of(Path("x/tiedong/goat/dataset.json"))
    assert set_of(Path("x/goat/dataset.json")) is None
    with pytest.raises(OchatError, match="Did you mean: tiedong/goat"):
        set_named("goats")


@pytest.mark.parametrize(
    ("reply", "answer", "verdict"),
    [
        ("Paris", "paris.", True),
        ("It's a big city.\nThe answer is: Paris, in France.", "Paris", True),
        ("The sentiment is positive.", "positive", True),
        ("The sentiment is not positive.", "positive", None),
        ("It is lovely.", "positive", None),  # says it in other words
        ("Yes, since both agree.", "yes", True),
        ("Step 1: add. So the answer is no.", "yes", False),
        ("No, they differ. But then: yes", "yes", None),
        ("First (A) looks right, but (C) is.", "(C)", True),
        ("The answer is B because of that.", "(C) the third", False),
        ("A dog runs.", "A", None),
        ("So 3 + 4 = 7.", "7", True),
        ("So 3 + 4 = 8.", "7", False),
        ("Long words " * 20, "Long words " * 20, True),
    ],
)
def test_a_reply_agrees_with_a_short_answer_where_it_comes_to_it(reply: str, answer: str, verdict: bool | None) -> None:
    assert agrees(reply, answer) is verdict


@pytest.mark.parametrize(
    ("file", "set", "expected"),
    [
        ("goat_generated_200", "goat", {("goat", "GPT4 Correct"): 203}),
        ("real_rows_metamathqa", "MetaMathQA", {("metamath", "GPT4 Correct"): 1}),
        ("real_rows_mathinstruct", "MathInstruct", {("mathinstruct", "GPT4 Correct"): 1}),  # the other is of TheoremQA
        ("real_rows_glaive_code_assistant", "glaive-code-assistant", {("glaive-code", "Code"): 1}),
        ("oasst_top1_form_zh_derived", "oasst_top1_2023-08-25", {("oasst", "Human"): 200}),
    ],
)
def test_real_rows_import_by_the_sets_name(
    test_file: Callable[[str], Path], tmp_path: Path, file: str, set: str, expected: dict[tuple[str, str], int]
) -> None:
    main(Options((test_file(f"train/{file}.jsonl.gz"),), tmp_path / "rows.jsonl", set=set))
    rows = [row for _, row in read_conversations(tmp_path / "rows.jsonl")]
    assert Counter((row.class_name, row.condition) for row in rows) == expected


def test_a_cap_draws_prompts_with_all_their_answers_whatever_the_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"prompt": f"Question {n}?", "chosen": "Yes", "rejected": "No"}) for n in range(1000)]
    drawn = []
    for order in (lines, lines[::-1]):
        (tmp_path / "in.jsonl").write_text("\n".join(order))
        main(Options((tmp_path / "in.jsonl",), tmp_path / "rows.jsonl", cap=400))
        drawn.append(sorted((tmp_path / "rows.jsonl").read_text().splitlines()))
    assert drawn[0] == drawn[1]
    assert "1,600 left out by the cap" in capsys.readouterr().out
    rows = [row for _, row in read_conversations(tmp_path / "rows.jsonl")]
    assert Counter(row.condition for row in rows) == {"chosen": 200, "rejected": 200}
    assert set(Counter(row.items[0].content for row in rows).values()) == {2}
    # a draw leaves the share of held-out prompts as it is
    n_heldout = sum(is_heldout(prompt_hash(row), 0.3) for row in rows)
    assert 80 < n_heldout < 160
