"""The report's numbers, against toys worked out by hand and against the data set that training reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ochat.conversation import parse_conversation
from ochat.data import tokenize
from ochat.data.dataset import Dataset
from ochat.data.report.advice import advice
from ochat.data.report.findings import Source, findings, overlaps, prompt_sets
from ochat.data.report.row_table import Measure, RowTable, TableMaker, add_rows, in_letters, in_tokens, of_dataset
from ochat.data.report.shares import class_weights, losses_of_run, shares_if, sub_optimal, weight_for_share
from ochat.errors import DataError
from ochat.template import ConversationTemplate


def row(prompt: str, *replies: tuple[str, float], name: str = "good", condition: str = "GPT4") -> dict[str, Any]:
    items = [
        item
        for reply, weight in replies
        for item in ({"role": "user", "content": prompt}, {"role": "assistant", "content": reply, "weight": weight})
    ]
    return {"items": items, "condition": condition, "class": name}


def table_of(*rows: dict[str, Any], measure: Measure = in_letters, max_tokens: int | None = None) -> RowTable:
    maker = TableMaker(max_tokens)
    for at in range(0, len(rows), 2):  # in batches
        add_rows(maker, [(f"row {n}", parse_conversation(value, "here")) for n, value in enumerate(rows[at : at + 2])], measure)
    return maker.table()


# In letters, the end of a turn counted as one: 5 learned at 1.0; twice 10 at 0.1; of 20 half at 0.1 and half not learned.
TOY = (
    row("abc", ("wxyz", 1.0)),
    row("abc", ("123456789", 0.1), name="poor", condition="GPT3"),
    row("def", ("123456789", 0.1), name="poor", condition="GPT3"),
    row("ghi", ("123456789", 0.1), ("987654321", 0.0), name="poor", condition="GPT3"),
)


def test_weights_and_shares_by_hand() -> None:
    table = table_of(*TOY)
    assert table.lengths.tolist() == [9, 14, 14, 28]
    assert table.learned.tolist() == [5, 10, 10, 10]
    assert table.weight_sums == pytest.approx([5, 1, 1, 1])
    good, poor = class_weights(table, {}, None).values()
    assert (good.class_weight, good.message_weight) == (1.0, 1.0)
    assert poor.class_weight == 0.1
    assert poor.message_weight == pytest.approx(1)  # the reply that isn't learned from counts for nothing
    assert (good.weight_sum, poor.weight_sum) == pytest.approx((5, 3))
    assert (good.loss_share, poor.loss_share) == pytest.approx((5 / 8, 3 / 8))
    assert good.per_answer_share == pytest.approx(1 / 1.3)  # means of weights: 1, and three times 0.1
    assert (poor.effective_rows, poor.effective_tokens) == pytest.approx((3, 30))


def test_the_effective_rows_of_unlike_rows_are_few() -> None:
    # 1 and 9 learned letters: (1 + 9)² / (1 + 81).
    (found,) = class_weights(table_of(row("a", ("", 1.0)), row("a", ("12345678", 1.0))), {}, None).values()
    assert found.effective_rows == pytest.approx(100 / 82)
    assert found.effective_tokens == pytest.approx(10)


@pytest.mark.parametrize("max_tokens", [None, 20])
def test_what_is_to_learn_times_both_factors_is_the_sum_of_weights(max_tokens: int | None) -> None:
    skipped = row("abc", ("1", 0.0), ("2", 0.0), ("3", 0.0), ("456", 0.5), name="skipped")
    table = table_of(*TOY, row("abc", ("123456789", 0.1), ("1", 0.5), name="poor"), skipped, max_tokens=max_tokens)
    weights = class_weights(table, {"good": 0.7}, None)
    for of_class, learned in zip(weights.values(), table.sums(table.learned), strict=True):
        assert learned * of_class.message_weight * of_class.class_weight == pytest.approx(of_class.weight_sum)
    if max_tokens is None:
        assert (weights["skipped"].class_weight, weights["skipped"].weight_sum) == (0.5, 2)
        # 40 letters at 0.1 and 2 at 0.5, as parts of 0.1.
        assert weights["poor"].message_weight == pytest.approx((40 * 1 + 2 * 5) / 42)


def test_a_weight_of_replies_that_are_cut_off_is_no_weight_of_the_class() -> None:
    cut = row("abc", ("123456789", 0.1), ("1", 0.5), ("2", 0.5), name="poor")
    for max_tokens, weight in ((None, 0.5), (14, 0.1)):
        assert class_weights(table_of(cut, max_tokens=max_tokens), {}, None)["poor"].class_weight == weight


def test_a_tables_class_weight_splits_the_factors_otherwise() -> None:
    poor = class_weights(table_of(*TOY), {"poor": 0.05}, None)["poor"]
    assert (poor.class_weight, poor.message_weight) == pytest.approx((0.05, 2))
    assert poor.weight_sum == pytest.approx(3)


def test_shares_under_other_weights_by_hand() -> None:
    table = table_of(*TOY)
    weights = class_weights(table, {}, None)
    less = sub_optimal(weights, [])
    assert less == ["poor"]
    for weight, good in ((0, 1.0), (0.03, 5 / 5.9), (0.1, 5 / 8), (0.3, 5 / 14), (1.0, 5 / 35)):
        found = shares_if(table, weights, None, less, weight)
        assert found == pytest.approx({"good": good, "poor": 1 - good}), weight
    half = weight_for_share(table, weights, None, less, 0.5)
    assert half == pytest.approx(5 / 30)
    assert shares_if(table, weights, None, less, half)["poor"] == pytest.approx(0.5)
    # Tokens of the poor class that are twice as hard count twice.
    assert shares_if(table, weights, {"good": 1.0, "poor": 2.0}, less, 0.1)["poor"] == pytest.approx(6 / 11)


def test_a_class_that_weighs_nothing_would_count_whole() -> None:
    table = table_of(row("a", ("123", 1.0)), row("a", ("1234567", 0.0), name="off"))
    weights = class_weights(table, {}, None)
    assert weights["off"].weight_sum == 0
    assert shares_if(table, weights, None, ["off"], 0.5)["off"] == pytest.approx(0.5)


def test_the_best_can_be_named() -> None:
    weights = class_weights(table_of(row("a", ("x", 1.0)), row("a", ("y", 1.0), name="poor")), {}, None)
    assert sub_optimal(weights, []) == []
    assert sub_optimal(weights, ["good"]) == ["poor"]


@pytest.mark.parametrize("max_tokens", [8192, 60, 40])
def test_in_tokens_the_numbers_are_those_of_the_data_set(
    tmp_path: Path,
    toy_folder: Callable[..., Path],
    toy_template: Callable[..., ConversationTemplate],
    max_tokens: int,
) -> None:
    rows = (*TOY, row("Hello there", ("hello " * 9, 0.5), ("x" * 30, 0.25), name="poor"), {**TOY[0], "system": "Be brief."})
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    folder = toy_folder("openchat_3.5")
    tokenize.main(tokenize.Options((source,), str(folder), tmp_path / "data", max_tokens=max_tokens))
    stored = Dataset(tmp_path / "data")
    table = table_of(*rows, measure=in_tokens(toy_template("openchat_3.5")), max_tokens=max_tokens)
    there = table.weight_sums > 0  # the others aren't stored
    assert stored.meta["dropped_rows"] == (~there).sum()
    assert stored.meta["cut_tokens"] == (table.uncut - table.lengths).sum()
    for read in (of_dataset(tmp_path / "data"), table):
        at = np.flatnonzero(read.weight_sums > 0)
        assert read.lengths[at].tolist() == stored.lengths.tolist()
        assert read.learned[at].tolist() == stored.learned_tokens.tolist()
        assert read.weight_sums[at] == pytest.approx(stored.weight_sums)
    made = of_dataset(tmp_path / "data")
    assert made.prompts.tolist() == table.prompts[there].tolist()
    assert made.square_sums == pytest.approx(table.square_sums[there])
    assert [made.class_names[code] for code in made.classes] == [table.class_names[code] for code in table.classes[there]]
    assert made.conditions["good"] == table.conditions["good"] == ["GPT4"]


def test_the_overlap_of_prompts_by_hand() -> None:
    table = table_of(*TOY, row("jkl", ("a", 1.0)))
    prompts = prompt_sets(table)
    assert {name: len(hashes) for name, hashes in prompts.items()} == {"good": 2, "poor": 3}
    assert overlaps(prompts) == {"good": {"poor": 1 / 2}, "poor": {"good": 1 / 3}}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([row("a", ("b", 1.0), name="", condition="")], "1 row has neither a class nor a condition"),
        ([row("a", ("b", 1.0))], "All rows are of one class"),
        ([row("a", ("b", 1.0)), row("a", ("c", 0.5), name="other")], "good, other are learned under the condition “GPT4”"),
        ([row("a", ("b", 1.0)), row("a", ("c", 0.5), name="other", condition="")], "other has rows without a condition"),
        ([row("a", ("b", 1.0)), row("a", ("c", 1.0), name="poor", condition="GPT3")], "All classes weigh the same"),
        ([row("a", ("b", 1.0)), row("a", ("x" * 99, 0.1), name="poor")], "83% of the loss is of sub-optimal classes (poor)"),
        ([row("a", ("b" * 999, 1.0)), row("a", ("c", 0.1), name="poor")], "poor has 0.02% of the loss"),
        ([row(f"a{n}", ("" if n else "b" * 9999, 1.0)) for n in range(100)], "good counts as 1 row, not 100"),
        ([row("a", ("b", 1.0), ("c", 0.0)), row("a", ("b", 0.0), name="other")], "1 row has nothing to learn"),
    ],
)
def test_what_is_the_matter_is_told_with_what_to_do(rows: list[dict[str, Any]], problem: str) -> None:
    found = findings(table_of(*rows), Source(["rows.jsonl"], "letters"), None, None)
    (warning,) = [one for one in advice(found, 0.05) if problem in one.problem]
    assert warning.remedy.endswith(".")
    fine = [row("a", ("b", 1.0)), row("a", ("c", 0.5), name="poor", condition="GPT3")]
    assert advice(findings(table_of(*fine), Source(["rows.jsonl"], "letters"), None, None), 0.05) == []


def test_a_run_on_other_data_is_refused(tmp_path: Path) -> None:
    classes = {"good": {"tokens": 10, "nll": 2.0}}
    lines = [{"step": 0, "heldout": {}}, {"step": 1, "classes": classes}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert losses_of_run(tmp_path, ["good"]) == {"good": 2.0}
    with pytest.raises(DataError, match=r"has no losses of the class poor; its classes: 'good'"):
        losses_of_run(tmp_path, ["good", "poor"])
    with pytest.raises(DataError, match=r"log\.jsonl: can't be read"):
        losses_of_run(tmp_path / "nowhere", ["good"])
    (tmp_path / "log.jsonl").write_text('{"classes": 5}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"log\.jsonl:1: not a line of a training log"):
        losses_of_run(tmp_path, ["good"])
