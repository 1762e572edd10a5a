"""Tokenize: the data set holds what the template says, splits by prompt, and tells what it cut or left out."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ochat.conversation import parse_conversation
from ochat.data.dataset import Dataset
from ochat.data.tokenize import Options, main
from ochat.errors import DataError, OchatError
from ochat.template import ConversationTemplate

ToyFolder = Callable[..., Path]


def row(question: str, answer: str, weight: float = 1.0, class_name: str = "expert") -> dict[str, object]:
    items = [{"role": "user", "content": question}, {"role": "assistant", "content": answer, "weight": weight}]
    return {"items": items, "condition": "GPT4", "class": class_name}


def tokenize(tmp_path: Path, folder: Path, *rows: object, **options: object) -> Path:
    source, output = tmp_path / "rows.jsonl", tmp_path / "dataset"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    main(Options((source,), str(folder), output, **options))
    return output


def test_a_stored_row_is_the_templates_tokens_and_weights(
    tmp_path: Path, toy_folder: ToyFolder, toy_template: Callable[..., ConversationTemplate]
) -> None:
    given = row("Hi there", "Hello", weight=0.1)
    dataset = Dataset(tokenize(tmp_path, toy_folder("openchat_3.5"), given))
    ids, run_lengths, run_weights = dataset.row(0)
    weights = [weight for n, weight in zip(run_lengths, run_weights, strict=True) for _ in range(n)]
    expected_ids, expected_weights = toy_template("openchat_3.5").tokens_and_weights(parse_conversation(given, "here"))
    assert ids.tolist() == expected_ids
    assert weights == pytest.approx(expected_weights)
    assert dataset.lengths.tolist() == [len(ids)]
    assert dataset.weight_sums == pytest.approx([sum(expected_weights)])
    assert dataset.class_names == ["expert"]


def test_answers_to_one_prompt_never_straddle_the_splits(tmp_path: Path, toy_folder: ToyFolder) -> None:
    rows = [row(f"Question {n % 40}", f"Answer {n}", class_name="expert" if n < 40 else "other") for n in range(80)]
    output = tokenize(tmp_path, toy_folder("openchat_3.5"), *rows, heldout=0.4)
    hashes = [
        set(pq.read_table(output / f"{split}-00000.parquet")["prompt_hash"].to_pylist()) for split in ("train", "heldout")
    ]
    assert all(hashes)
    assert not hashes[0] & hashes[1]
    assert sum(len(Dataset(output, split)) for split in ("train", "heldout")) == 80
    meta = Dataset(output).meta
    assert sum(of_class["rows"] for of_class in meta["classes"].values()) == meta["train_rows"] == len(Dataset(output))


def test_cut_and_dropped_rows_are_counted_and_told(
    tmp_path: Path, toy_folder: ToyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("a", "b" * 100), row("a" * 100, "b"), row("a", "b", weight=0.0), row("a", "b")]
    dataset = Dataset(tokenize(tmp_path, toy_folder("openchat_3.5"), *rows, max_tokens=60))
    told = capsys.readouterr().out
    assert sorted(dataset.lengths)[-1] == 60
    assert len(dataset) == 2  # the second row's answer was cut off, the third teaches nothing
    assert "2 rows cut to 60 tokens" in told
    assert "2 rows left out" in told
    assert (dataset.meta["cut_rows"], dataset.meta["dropped_rows"]) == (2, 2)


def test_the_table_shows_each_classes_share_of_the_weight(
    tmp_path: Path, toy_folder: ToyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("a", "bcd", 1.0, "expert"), *[row("a", "bcd", 0.1, "other")] * 10]
    tokenize(tmp_path, toy_folder("openchat_3.5"), *rows)
    told = capsys.readouterr().out
    assert told.count("50.0%") == 2  # ten times the rows at a tenth of the weight


def test_a_row_that_the_template_refuses_is_named_and_nothing_is_written(tmp_path: Path, toy_folder: ToyFolder) -> None:
    bad = row("a", "b") | {"condition": "x<|end_of_turn|>"}
    with pytest.raises(DataError, match=r"rows.jsonl:3: The condition .* control token"):
        tokenize(tmp_path, toy_folder("openchat_3.5"), row("a", "b"), row("c", "d"), bad)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_weight_too_small_to_be_stored_is_no_weight(tmp_path: Path, toy_folder: ToyFolder) -> None:
    dataset = Dataset(tokenize(tmp_path, toy_folder("openchat_3.5"), row("a", "b", weight=1e-46), row("c", "d")))
    assert len(dataset) == dataset.meta["dropped_rows"] == 1


def test_a_data_set_is_made_anew(tmp_path: Path, toy_folder: ToyFolder) -> None:
    for n in (1, 2):
        assert len(Dataset(tokenize(tmp_path, toy_folder("openchat_3.5"), *[row("a", "b")] * n))) == n


def test_a_file_with_nothing_to_learn_is_refused(tmp_path: Path, toy_folder: ToyFolder) -> None:
    with pytest.raises(DataError, match="no row to train on"):
        tokenize(tmp_path, toy_folder("openchat_3.5"), row("a", "b", weight=0))


def test_a_folder_of_something_else_is_never_overwritten(tmp_path: Path, toy_folder: ToyFolder) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "thesis.txt").write_text("years of work")
    with pytest.raises(OchatError, match="dataset exists"):
        tokenize(tmp_path, toy_folder("openchat_3.5"), row("a", "b"))
    assert (tmp_path / "dataset" / "thesis.txt").exists()
