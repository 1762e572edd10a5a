"""Tokenize: the data set holds what the template says, splits by prompt, and tells what it cut or left out."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ochat.conversation import parse_conversation
from ochat.data.blocks import Block, blocks, write_block
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


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten blocks of some rows, where the real ones hold thousands."""
    monkeypatch.setattr("ochat.data.blocks.BLOCK_ROWS", 10)


def many(n: int = 95) -> list[dict[str, object]]:
    return [row(f"Question {k % 60}", f"Answer {k}" * (k % 7), class_name="expert" if k % 5 else "other") for k in range(n)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.usefixtures("small_blocks")
def test_the_data_set_is_the_same_bytes_for_any_number_of_processes(tmp_path: Path, toy_folder: ToyFolder) -> None:
    found = []
    for workers in (1, 3):
        found.append(contents(tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), heldout=0.3, workers=workers)))
        shutil.rmtree(tmp_path / "dataset")
    assert found[0] == found[1]
    assert "train-00009.parquet" in found[0]
    assert not any(name.startswith(("totals", ".")) for name in found[0])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_is_read_ahead_than_the_processes_need(
    workers: int, tmp_path: Path, toy_folder: ToyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = []

    def watched(paths: Sequence[Path]) -> Iterator[Block]:
        for block in blocks(paths):
            ahead.append(block.number - sum(1 for _ in tmp_path.rglob("totals-*.json")))
            yield block

    monkeypatch.setattr("ochat.data.tokenize.blocks", watched)
    tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), workers=workers)
    assert len(ahead) == 10
    assert max(ahead) <= 2 * workers


@pytest.mark.usefixtures("small_blocks")
def test_blocks_cut_nothing(tmp_path: Path, toy_folder: ToyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Dataset(tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), workers=1))
    parts = [[part.tolist() for part in small.row(n)] for n in range(len(small))]
    meta = small.meta
    monkeypatch.setattr("ochat.data.blocks.BLOCK_ROWS", 1000)
    shutil.rmtree(tmp_path / "dataset")
    whole = Dataset(tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), workers=1))
    assert parts == [[part.tolist() for part in whole.row(n)] for n in range(len(whole))]
    for name, of_class in meta.pop("classes").items():
        assert of_class == pytest.approx(whole.meta["classes"][name])
    assert {name: whole.meta[name] for name in meta} == meta


@pytest.mark.usefixtures("small_blocks")
def test_blocks_go_over_the_ends_of_files_and_places_stay_right(tmp_path: Path, toy_folder: ToyFolder) -> None:
    paths = []
    for n in (4, 13):
        paths.append(tmp_path / f"rows-{n}.jsonl")
        paths[-1].write_text("".join(json.dumps(one) + "\n" for one in many(n)), encoding="utf-8")
    main(Options(tuple(paths), str(toy_folder("openchat_3.5")), tmp_path / "dataset", workers=1))
    assert sorted(contents(tmp_path / "dataset")) == ["meta.json", "train-00000.parquet", "train-00001.parquet"]
    with paths[1].open("a", encoding="utf-8") as file:
        file.write('{"items": []}\n')
    with pytest.raises(DataError, match=r"rows-13.jsonl:14: items: there is no message"):
        main(Options(tuple(paths), str(toy_folder("openchat_3.5")), tmp_path / "dataset", workers=1))


@pytest.mark.usefixtures("small_blocks")
def test_stopped_and_repeated_it_goes_on_with_what_is_missing(
    tmp_path: Path, toy_folder: ToyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = contents(tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), heldout=0.3, workers=1))
    shutil.rmtree(tmp_path / "dataset")
    done: list[int] = []

    def stopped(block: Block, *args: Any, **options: Any) -> None:
        if len(done) == 4:
            raise KeyboardInterrupt
        write_block(block, *args, **options)
        done.append(block.number)

    monkeypatch.setattr("ochat.data.tokenize.write_block", stopped)
    with pytest.raises(KeyboardInterrupt):
        tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), heldout=0.3, workers=1)
    monkeypatch.setattr("ochat.data.tokenize.write_block", write_block)
    capsys.readouterr()
    assert contents(tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), heldout=0.3, workers=1)) == whole
    assert "4 of 10 shards are from before" in capsys.readouterr().out


@pytest.mark.usefixtures("small_blocks")
def test_what_was_begun_with_other_options_is_not_gone_on_with(
    tmp_path: Path, toy_folder: ToyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), shard="1/2", workers=1)
    capsys.readouterr()
    tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), max_tokens=60, workers=1)
    assert "from before" not in capsys.readouterr().out


@pytest.mark.usefixtures("small_blocks")
def test_several_machines_each_take_a_part(tmp_path: Path, toy_folder: ToyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    whole = contents(tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), workers=1))
    shutil.rmtree(tmp_path / "dataset")
    for shard, n_done in (("2/3", 3), ("1/3", 7), ("3/3", 10)):
        tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), workers=1, shard=shard)
        assert f"{n_done} of 10 shards are done" in capsys.readouterr().out
        assert not (tmp_path / "dataset").exists()
    assert contents(tokenize(tmp_path, toy_folder("openchat_3.5"), *many(), workers=1)) == whole
    assert "10 of 10 shards are from before" in capsys.readouterr().out


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_wrong_shard_is_told(shard: str, tmp_path: Path) -> None:
    with pytest.raises(OchatError, match="Give the part and the number of parts"):
        Options((tmp_path,), "", tmp_path, shard=shard)


def test_files_in_another_order_are_another_data_set(tmp_path: Path, toy_folder: ToyFolder) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text(json.dumps(row(f"Question of {path.name}", "Answer")) + "\n", encoding="utf-8")
    orders = paths, paths[::-1]
    made = []
    for inputs in orders:
        main(Options(tuple(inputs), str(toy_folder("openchat_3.5")), tmp_path / "dataset"))
        made.append(contents(tmp_path / "dataset"))
    assert made[0] != made[1]


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"rows.jsonl is named twice, and its rows would count twice\. Name it once"):
        Options((tmp_path / "rows.jsonl", tmp_path / "x" / ".." / "rows.jsonl"), "", tmp_path / "dataset")


def test_no_process_outlives_a_killed_command(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal\nfrom ochat.data.tokenize import _pool\n"
        "if __name__ == '__main__':\n    with _pool(1) as pool:\n        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, script], stdout=subprocess.PIPE, timeout=60, check=False
    )  # a worker would hold the pipe
    worker = Path(f"/proc/{int(done.stdout)}")
    deadline = time.monotonic() + 20
    while worker.exists():
        assert time.monotonic() < deadline, "the worker still waits for blocks"
        time.sleep(0.05)
