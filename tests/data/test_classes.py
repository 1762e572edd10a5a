"""Quality classes: each rule gives what it says, a row that none knows gets no class, and a bad table is refused at its line."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sandboxes import needs_sandbox

from ochat.conversation import Conversation, Message, read_conversations, read_json_lines
from ochat.data.classes import (
    ClassTable,
    Factors,
    Match,
    apply_class,
    classify,
    each_row,
    factor_table,
    match,
    read_classes,
)
from ochat.data.import_rows import Options, main
from ochat.data.problem import RowProblem
from ochat.errors import DataError, OchatError

EXAMPLE = Path(__file__).parents[2] / "examples" / "classes.yaml"
CLASSES = "classes: [{name: good, condition: GPT4, weight: 1}, {name: bad, condition: GPT3, weight: 0.1}]\n"


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], ClassTable]:
    """The table of a text."""

    def made(text: str) -> ClassTable:
        path = tmp_path / "classes.yaml"
        path.write_text(text, encoding="utf-8")
        return read_classes(path)

    return made


def said(reply: str, class_name: str = "") -> Conversation:
    items = (Message(role="user", content="Well?"), Message(role="assistant", content=reply))
    return Conversation(items=items, class_name=class_name)


@pytest.mark.parametrize(
    ("rule", "row", "source", "name"),
    [
        ("by: column, column: model, classes: {gpt-4: good, gpt-3.5: bad}", said("x"), {"model": "gpt-4"}, "good"),
        ("by: column, column: model, classes: {gpt-4: good}", said("x"), {"model": "gpt-4-0314"}, None),
        ("by: column, column: model, classes: {gpt-4: good}", said("x"), {}, None),
        ("by: column, column: model, classes: {gpt-4: good}", said("x"), {"model": None}, None),
        ("by: column, column: model, classes: {gpt-4*: good}", said("x"), {"model": "gpt-4-0314"}, "good"),
        ("by: column, column: model, classes: {gpt-4*: bad, gpt-4-old: good}", said("x"), {"model": "gpt-4-old"}, "good"),
        ("by: column, column: model, classes: {gpt-4: good}, others: bad", said("x"), {"model": "bard"}, "bad"),
        ("by: column, column: model, classes: {gpt-4: good}, others: bad", said("x"), {}, "bad"),
        ("by: agreement, column: by, judged: us, right: good, wrong: bad", said("x"), {"by": "us"}, None),  # nobody else says
        ("by: column, column: checked, classes: {true: good, false: bad}", said("x"), {"checked": False}, "bad"),
        ("by: column, column: level, classes: {5: good}", said("x"), {"level": "5"}, "good"),  # as CSV has it
        ("by: column, column: meta.model, classes: {gpt-4: good}", said("x"), {"meta": {"model": "gpt-4"}}, "good"),
        ("by: column, column: meta.model, classes: {gpt-4: good}", said("x"), {"meta.model": "gpt-4"}, "good"),
        ("by: file, classes: {rows.jsonl: good}", said("x"), {}, "good"),
        ("by: file, classes: {'*.parquet': bad, 'deep/r*': good}", said("x"), {}, "good"),
        ("by: file, classes: {'ows.jsonl': good, 'other/*': bad}", said("x"), {}, None),
        ("by: class, classes: {chosen: good, rejected: bad}", said("x", "rejected"), {}, "bad"),
        ("by: class, classes: {chosen: good}", said("x"), {}, None),
        ("by: score, column: s, cuts: [2.5, 4.5], classes: [bad, null, good]", said("x"), {"s": 2.4}, "bad"),
        ("by: score, column: s, cuts: [2.5, 4.5], classes: [bad, null, good]", said("x"), {"s": 2.5}, None),
        ("by: score, column: s, cuts: [2.5, 4.5], classes: [bad, null, good]", said("x"), {"s": "4.5"}, "good"),
        ("by: score, column: s, cuts: [2.5, 4.5], classes: [bad, null, good]", said("x"), {}, None),
        ("by: number, gold: answer, right: good, wrong: bad", said("So \\boxed{5}"), {"answer": "#### 5"}, "good"),
        ("by: number, gold: answer, right: good, wrong: bad", said("So it's 6."), {"answer": 5}, "bad"),
        ("by: number, gold: answer, right: good", said("So it's 6."), {"answer": 5}, None),
        ("by: number, gold: answer, right: good, wrong: bad", said("I don't know."), {"answer": 5}, None),
        ("by: number, gold: answer, right: good, wrong: bad", said("5"), {}, None),
        ("by: length, cuts: [3], classes: [bad, good]", said("xx"), {}, "bad"),
        ("by: length, cuts: [3], classes: [bad, good]", said("xxx"), {}, "good"),
        ("by: refusal, class: bad", said("I'm sorry, but I can't help."), {}, "bad"),
        ("by: refusal, class: bad", said("Yes."), {}, None),
        ("by: repetition, class: bad", said("one two three four five six seven eight " * 9), {}, "bad"),
        ("by: repetition, class: bad", said("Yes."), {}, None),
    ],
)
def test_a_rule_gives_the_class_it_says(
    table: Callable[[str], ClassTable], rule: str, row: Conversation, source: Mapping[str, object], name: str | None
) -> None:
    for place in ("in/deep/rows.jsonl:3", "in/deep/rows.jsonl:row 3", "in/deep/rows.jsonl:1 (row 3)"):
        assert classify(row, source, place, table(f"{CLASSES}rules: [{{{rule}}}]")) == name


RULES = """rules:
  - {by: score, column: score, cuts: [4], classes: [null, good]}
  - {by: column, column: model, classes: {gpt-4: good, gpt-3: bad}}
"""


def test_an_answer_is_right_where_another_sources_short_answer_agrees(table: Callable[[str], ClassTable]) -> None:
    known = table(f"{CLASSES}rules: [{{by: agreement, column: by, judged: us, right: good, wrong: bad}}]\n")
    for reply, by in [("No", "them"), ("Yes", "us"), ("word " * 30, "others"), ("maybe", None)]:
        known.learn(said(reply), {"by": by})
    assert known.compares_rows
    assert classify(said("Hm. The answer is no."), {"by": "us"}, "f:1", known) == "good"
    assert classify(said("Yes."), {"by": "us"}, "f:1", known) == "bad"
    assert classify(said("No"), {"by": "them"}, "f:1", known) is None
    assert classify(said("word " * 30), {"by": "us"}, "f:1", known) is None  # too long to be looked for


def test_the_first_rule_that_knows_decides_and_the_fallback_only_where_named(table: Callable[[str], ClassTable]) -> None:
    rules, row = table(CLASSES + RULES), said("x")
    assert match(row, {"score": 5, "model": "gpt-3"}, "f:1", rules) == Match("good", 1)
    assert match(row, {"score": 3, "model": "gpt-3"}, "f:1", rules) == Match("bad", 2)
    assert match(row, {"score": 3}, "f:1", rules) is None
    assert match(row, {"score": 3}, "f:1", table(f"{CLASSES}{RULES}fallback: bad")) == Match("bad", 0)


@pytest.mark.parametrize(
    ("rule", "source", "problem"),
    [
        (
            "by: score, column: s, cuts: [1], classes: [bad, good]",
            {"s": "high"},
            "`s` is 'high', and a rule by score needs a number",
        ),
        ("by: score, column: s, cuts: [1], classes: [bad, good]", {"s": math.nan}, "`s` is nan"),
        ("by: score, column: s, cuts: [1], classes: [bad, good]", {"s": True}, "`s` is True"),
        ("by: score, column: s, cuts: [1], classes: [bad, good]", {"s": [1]}, "needs a number"),
        ("by: column, column: s, classes: {x: good}", {"s": ["x"]}, "`s` is ['x']"),
        ("by: number, gold: s, right: good", {"s": {}}, "`s` is {}"),
        ("by: code, tests: s, right: good", {"s": 5}, "`s` is 5"),
        ("by: code, tests: s, right: good", {"s": ["x", 5]}, "`s` is ['x', 5]"),
    ],
)
def test_a_value_that_no_rule_can_use_is_told(
    table: Callable[[str], ClassTable], rule: str, source: Mapping[str, object], problem: str
) -> None:
    with pytest.raises(RowProblem) as raised:
        classify(said("5"), source, "rows.jsonl:7", table(f"{CLASSES}rules: [{{{rule}}}]"))
    assert problem in str(raised.value)


RIGHT, WRONG = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
LOOPING, LEAVING = "def add(a, b):\n    while True: pass", "import os\nos._exit(0)"
TESTS = ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]


@needs_sandbox
def test_code_that_passes_its_tests_is_told_from_code_that_does_not(table: Callable[[str], ClassTable]) -> None:
    rules = table(f"{CLASSES}rules: [{{by: code, tests: tests, right: good, wrong: bad, seconds: 2, memory_mb: 200}}]")
    cases: list[tuple[str, object, str | None]] = [
        (f"Sure:\n```python\n{RIGHT}\n```\nDone.", TESTS, "good"),
        (RIGHT, "\n".join(TESTS), "good"),
        (f"```python\n{WRONG}\n```", TESTS, "bad"),
        (LOOPING, TESTS, "bad"),
        (LEAVING, TESTS, "bad"),
        ("print('passed')", TESTS, "bad"),
        ("```c\nint x;\n```", TESTS, None),  # nothing to run
        (RIGHT, [], None),
        (RIGHT, None, None),
    ]
    rows = iter(cases * 3)
    found = each_row(lambda case: classify(said(case[0]), {"tests": case[1]}, "rows.jsonl:1", rules), rows, rules)
    assert list(found) == [name for _, _, name in cases * 3]  # in order, whatever ends first


def test_rows_are_classed_one_by_one_as_they_are_asked_for(table: Callable[[str], ClassTable]) -> None:
    rules = table(CLASSES + RULES)
    endless = iter(lambda: {"score": 5}, None)
    assert next(each_row(lambda source: classify(said("x"), source, "f:1", rules), endless, rules)) == "good"


def test_gsm8k_rows_are_right_by_their_own_gold(table: Callable[[str], ClassTable], test_file: Callable[[str], Path]) -> None:
    rules = table(f"{CLASSES}rules: [{{by: number, gold: answer, right: good, wrong: bad}}]")
    names = [
        classify(said(row["answer"]), row, place, rules)
        for place, row in read_json_lines(test_file("train/gsm8k_train.jsonl.gz"))
        if isinstance(row, dict)
    ]
    assert names == ["good"] * 7473


def test_a_reward_becomes_the_weight_exp_of_reward_by_beta(table: Callable[[str], ClassTable]) -> None:
    rules = table(
        "beta: 0.5\nclasses: [{name: a, condition: A, reward: 0}, {name: b, condition: B, reward: -1.0}, "
        "{name: c, condition: '', weight: 0.3}]"
    )
    weights = [quality.weight for quality in rules.classes.values()]
    assert weights == [1.0, pytest.approx(0.1353352832366127), 0.3]  # e^-2
    assert [quality.reason for quality in rules.classes.values()] == ["exp(0 / 0.5)", "exp(-1 / 0.5)", ""]


def test_a_class_multiplies_the_messages_own_weights(table: Callable[[str], ClassTable]) -> None:
    items = [("user", None), ("assistant", None), ("user", 0.5), ("assistant", 2.0), ("assistant", 0.0)]
    row = Conversation(items=tuple(Message(role=role, content="x", weight=weight) for role, weight in items))  # type: ignore[arg-type]
    made = apply_class(row, table(CLASSES).classes["bad"])
    assert (made.condition, made.class_name) == ("GPT3", "bad")
    assert [item.weight for item in made.items] == pytest.approx([0.0, 0.1, 0.05, 0.2, 0.0])


def test_both_factors_of_a_weight_are_told_by_class(table: Callable[[str], ClassTable]) -> None:
    factors = Factors()
    factors.add(said("x"))
    half = Message(role="assistant", content="x", weight=0.5)
    factors.add(Conversation(items=(Message(role="user", content="x"), half, half)))
    rows = factor_table({"bad": factors}, table(CLASSES))
    assert rows[0] == ("good", "GPT4", 0, 0.0, 1.0, 0.0)
    assert rows[1] == ("bad", "GPT3", 2, pytest.approx(2 / 3), 0.1, pytest.approx(0.2 / 3))


def imported(folder: Path, table: str, *rows: object, **options: bool) -> list[tuple[str, str, list[float | None]]]:
    """Class, condition and weights of the conversations that import makes of the rows."""
    (folder / "table.yaml").write_text(table, encoding="utf-8")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = folder / "out.jsonl"
    main(Options((folder / "rows.jsonl",), output, classes=folder / "table.yaml", **options))
    made = [row for _, row in read_conversations(output)]
    return [(row.class_name, row.condition, [item.weight for item in row.items]) for row in made]


SCORED = "rules: [{by: score, column: rating, cuts: [4], classes: [bad, good]}]"


def test_import_gives_rows_their_classes_and_tells_both_factors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "Hi", "completion": "Oh", "rating": rating} for rating in (5, 1, 4.5)]
    bad, good = ("bad", "GPT3", [0.0, 0.1]), ("good", "GPT4", [0.0, 1.0])
    assert imported(tmp_path, CLASSES + SCORED, *rows) == [good, bad, good]
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "good GPT4 2 1 x 1 = 1" in told
    assert "bad GPT3 1 1 x 0.1 = 0.1" in told
    assert "3 by rule 1 (score, column 'rating')" in told


def test_chosen_and_rejected_answers_become_classes(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    rules = "rules: [{by: class, classes: {chosen: good, rejected: bad}}]"
    assert imported(tmp_path, CLASSES + rules, row) == [("good", "GPT4", [0.0, 1.0]), ("bad", "GPT3", [0.0, 0.1])]


def test_a_row_without_a_class_is_an_error_or_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "Hi", "completion": "Oh", "rating": rating} for rating in (5, None, None)]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no rule of .* gives this row a class, and 1 other has none\."):
        imported(tmp_path, CLASSES + SCORED, *rows)
    assert not (tmp_path / "out.jsonl").exists()
    assert len(imported(tmp_path, CLASSES + SCORED, *rows, drop_unassigned=True)) == 1
    assert "2 left out, since no rule gives them a class; the first is" in capsys.readouterr().out
    with pytest.raises(DataError, match="gives any of 2 rows a class"):
        imported(tmp_path, CLASSES + SCORED, *rows[1:], drop_unassigned=True)


def test_our_rows_without_a_class_are_final_unless_a_rule_knows_them(tmp_path: Path) -> None:
    items = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh", "weight": 0.5}]
    rules = "rules: [{by: class, classes: {mine: good}}]\nfallback: bad"
    rows = [{"items": items, "condition": "Human"}, {"items": items, "class": "mine"}, {"items": items, "class": "other"}]
    assert imported(tmp_path, CLASSES + rules, *rows) == [
        ("Human", "Human", [0.0, 0.5]),
        ("good", "GPT4", [0.0, 0.5]),
        ("bad", "GPT3", [0.0, 0.05]),
    ]


def test_a_value_that_no_rule_can_use_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "completion": "Oh", "rating": rating} for rating in (5, "high")]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: `rating` is 'high', and a rule by score needs a number there"):
        imported(tmp_path, CLASSES + SCORED, *rows)
    assert len(imported(tmp_path, CLASSES + SCORED, *rows, skip_invalid=True)) == 1
    assert "'high'" in (tmp_path / "out.jsonl.rejects.jsonl").read_text(encoding="utf-8")


def test_a_column_that_no_row_has_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = SCORED.replace("rating", "ratings") + "\nfallback: bad"
    assert len(imported(tmp_path, CLASSES + rules, {"prompt": "Hi", "completion": "Oh"})) == 1
    told = capsys.readouterr().out
    assert "0 by rule 1 (score, column 'ratings'); is there a column 'ratings'?" in told
    assert "1 by no rule, so of the fallback 'bad'" in told


@needs_sandbox
def test_import_tests_code_in_the_sandbox(tmp_path: Path) -> None:
    rules = "rules: [{by: code, tests: tests, right: good, wrong: bad, seconds: 2}]"
    rows = [{"prompt": "Add!", "completion": code, "tests": TESTS} for code in (RIGHT, WRONG, LEAVING, RIGHT)]
    assert [name for name, *_ in imported(tmp_path, CLASSES + rules, *rows)] == ["good", "bad", "bad", "good"]


@pytest.mark.parametrize("options", [{"condition": "GPT4"}, {"class_name": "x"}, {"weight": 0.5}])
def test_a_table_and_one_class_for_all_exclude_each_other(options: dict[str, Any]) -> None:
    with pytest.raises(OchatError, match="--classes says what"):
        Options((Path("a"),), Path("b"), classes=Path("c"), **options)
    with pytest.raises(OchatError, match="--drop-unassigned is about"):
        Options((Path("a"),), Path("b"), drop_unassigned=True)


ONE = "{name: good, condition: GPT4, weight: 1}"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("classes:\n  - {name: good, condition: GPT4, wieght: 1}", 2, "unknown field 'wieght'. Did you mean: weight?"),
        (f"classes: [{ONE}]\n\nrule: []", 3, "unknown field 'rule'. Did you mean: rules?"),
        ("classes:\n  - {name: good, condition: GPT4}", 2, "neither `weight` nor `reward`"),
        ("beta: 1\nclasses:\n  - {name: good, condition: GPT4, weight: 1, reward: 1}", 3, "both `weight` and `reward`"),
        ("classes:\n  - name: good\n    condition: GPT4\n    reward: 1", 4, "no `beta`"),
        (f"beta: 1\nclasses: [{ONE}]", 1, "`beta` does nothing"),
        (f"classes: [{ONE}]\nbeta: 0", 2, "beta: Input should be greater than 0"),
        ("beta: 0.01\nclasses:\n  - {name: good, condition: A, reward: 1}", 3, "exp(1 / 0.01), over 1e+06"),
        ("classes:\n  - {name: good, condition: A, weight: -1}", 2, "greater than or equal to 0"),
        ("classes:\n  - {name: good, condition: A, weight: .nan}", 2, "finite number"),
        ("classes:\n  - {name: good, condition: A, weight: '1'}", 2, "valid number"),
        ("classes:\n  - {name: good, weight: 1}", 2, "condition: Field required"),
        ("classes:\n  - {name: '', condition: A, weight: 1}", 2, "at least 1 character"),
        ('classes:\n  - {name: "a\\e[31m", condition: A, weight: 1}', 2, "control characters"),
        ('classes:\n  - {name: a, condition: " A", weight: 1}', 2, "the condition is ' A'. Give one line of at most 128"),
        ("classes:\n  - {name: a, condition: 'A <|im_end|>', weight: 1}", 2, "holds the control token <|im_end|>. Give plain words"),
        ("classes: []", 1, "at least 1 item"),
        (f"classes:\n  - {ONE}\n  - {ONE}", 3, "'good' is given twice"),
        (f"classes: [{ONE}]\nclasses: [{ONE}]", 2, "'classes' is given twice"),
        (f"classes: [{ONE}]\nfallback: god", 2, "unknown class 'god'. Did you mean: good?"),
        (f"classes: [{ONE}]\nrules:\n  - {{column: model}}", 3, "a rule has no `by`. Give one of: column, file, class,"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: colum}}", 3, "unknown rule `by: colum`"),
        (f"classes: [{ONE}]\nrules:\n  - by: column\n    colunm: x\n    classes: {{a: good}}", 4, "Did you mean: column?"),
        (f"classes: [{ONE}]\nrules:\n  - by: column\n    column: x\n    classes: {{a: best}}", 5, "unknown class 'best'"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: column, column: x, classes: {{}}}}", 3, "at least 1 item"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: column, column: x, classes: {{a: good, a: good}}}}", 3, "'a' is given twice"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: score, column: x, cuts: [2, 1], classes: [good, good, good]}}", 3, "cuts must rise"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: score, column: x, cuts: [1], classes: [good]}}", 3, "1 cuts make 2 classes, and 1"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: number, gold: x}}", 3, "give a class as `right`, `wrong` or both"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: code, tests: x, right: good, seconds: 0}}", 3, "greater than 0"),
        (f"classes: [{ONE}]\nrules:\n  - {{by: refusal}}", 3, "class: Field required"),
        (f"classes: [{ONE}]\nrules:\n  - by column", 3, "valid dictionary"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused_at_its_line(table: Callable[[str], ClassTable], text: str, line: int, problem: str) -> None:
    with pytest.raises(OchatError, match=rf"classes\.yaml:{line}: ") as raised:
        table(text)
    assert problem in str(raised.value)


@pytest.mark.parametrize("text", ["", "- a", "5", "classes: [", "\x00", "a: &x [*x]"])
def test_a_file_that_holds_no_table_is_refused(table: Callable[[str], ClassTable], text: str) -> None:
    with pytest.raises(OchatError, match=r"classes\.yaml"):
        table(text)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"no\.yaml can't be read"):
        read_classes(tmp_path / "no.yaml")


def test_the_example_gives_the_classes_it_tells_of() -> None:
    table = read_classes(EXAMPLE)
    sources = [
        (said("It's 5."), {"gold": "5"}, "verified"),
        (said("It's 6."), {"gold": "5"}, "suboptimal"),
        (said("x", "chosen"), {}, "expert"),
        (said("x"), {"model": "gpt-3.5-turbo"}, "suboptimal"),
        (said("x"), {"rating": 3}, None),
        (said("x"), {"rating": 4.5}, "expert"),
    ]
    assert [classify(row, source, "rows.jsonl:1", table) for row, source, _ in sources] == [name for *_, name in sources]
    assert classify(said("x"), {}, "data/mediocre-2.jsonl:1", table) == "suboptimal"
    assert table.classes["suboptimal"].weight == pytest.approx(math.exp(-2.3))
