"""The original's command: its flags make our data-set folder, with its weights."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.data import generate_dataset, tokenize
from ochat.data.dataset import Dataset
from ochat.errors import DataError, OchatError


def rows(path: Path) -> Path:
    items = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there you", "weight": 0.6}]
    path.write_text(json.dumps({"items": [*items, *items], "condition": "GPT4"}) + "\n")
    return path


def test_the_originals_flags_write_what_tokenize_does(
    tmp_path: Path, toy_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = rows(tmp_path / "rows.jsonl"), toy_folder("openchat_3.5")
    command = f"--model-type openchat_3.5 --model-path {folder} --in-files {source} --out-prefix {tmp_path}/old --eval-ratio 0"
    monkeypatch.setattr(sys, "argv", ["generate_dataset", *command.split()])
    monkeypatch.delitem(sys.modules, "ochat.data.generate_dataset")  # as `python -m` finds it
    runpy.run_module("ochat.data.generate_dataset", run_name="__main__")
    tokenize.main(tokenize.Options((source,), str(folder), tmp_path / "new", model_type="openchat_3.5"))
    assert (tmp_path / "old/train-00000.parquet").read_bytes() == (tmp_path / "new/train-00000.parquet").read_bytes()


def test_with_per_sequence_loss_a_messages_tokens_share_its_weight(tmp_path: Path, toy_folder: Callable[..., Path]) -> None:
    source, folder = rows(tmp_path / "rows.jsonl"), str(toy_folder("openchat_3.5"))
    for share in (False, True):
        generate_dataset.main(
            generate_dataset.Options(
                "openchat_3.5", folder, (source,), tmp_path / f"data-{share}", per_sequence_loss=share, eval_ratio=0.0
            )
        )
    _, lengths, weights = Dataset(tmp_path / "data-True").row(0)
    _, of_same, plain = Dataset(tmp_path / "data-False").row(0)
    assert lengths.tolist() == of_same.tolist()
    learned = [(n, each, all_of) for n, each, all_of in zip(lengths, weights, plain, strict=True) if all_of]
    assert len(learned) == 2
    for n_tokens, each, plainly in learned:
        assert plainly == pytest.approx(0.6)
        assert n_tokens > 1
        assert each == pytest.approx(0.6 / n_tokens)
    assert Dataset(tmp_path / "data-True").weight_sums == pytest.approx([1.2])
    # the same rows weighed otherwise are another data set
    tokenize.main(tokenize.Options((source,), folder, tmp_path / "data-True", model_type="openchat_3.5"))
    assert Dataset(tmp_path / "data-True").weight_sums == pytest.approx(Dataset(tmp_path / "data-False").weight_sums)


def test_a_seed_and_an_absent_file_are_refused_with_what_to_do(tmp_path: Path, toy_folder: Callable[..., Path]) -> None:
    with pytest.raises(OchatError, match="Leave it out; `ochat train run --seed` shuffles"):
        generate_dataset.Options("openchat_3.5", "x", (tmp_path,), tmp_path, seed=42)
    options = generate_dataset.Options("openchat_3.5", str(toy_folder("openchat_3.5")), (tmp_path / "gone",), tmp_path / "out")
    with pytest.raises(DataError, match="gone is no file"):
        generate_dataset.main(options)
