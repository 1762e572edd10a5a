"""Training end to end on a tiny model: it learns, it's the same however it is divided or killed, and it refuses nonsense."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import tiny_model

from ochat.data import tokenize
from ochat.errors import DataError, ModelError, OchatError
from ochat.registry import model_type
from ochat.tokenizer import load_tokenizer
from ochat.training.checkpoint import save_checkpoint
from ochat.training.config import Options
from ochat.training.train import main

KIND = "openchat_smollm2"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[..., Path]) -> Path:
    """A tiny random model with a toy tokenizer."""
    tokens = toy_folder(KIND)
    folder = tmp_path_factory.mktemp("models") / "base"
    save_checkpoint(tiny_model(load_tokenizer(tokens).vocab_size), tokens, model_type(KIND), folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """24 rows of two classes that disagree, some held out."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for n in range(12):
        for condition, weight, answer in (("GPT4 Correct", 1.0, "yes"), ("GPT3", 0.1, "no")):
            items = [{"role": "user", "content": f"{n} {'x' * n}?"}, {"role": "assistant", "content": answer, "weight": weight}]
            rows.append({"items": items, "condition": condition, "class": condition})
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenize.main(tokenize.Options((source,), str(base), folder / "dataset", heldout=0.2))
    return folder / "dataset"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_training_learns_and_logs_a_line_a_step(tmp_path: Path, base: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    main(Options(str(base), dataset, run, epochs=8, lr=1e-2, batch_tokens=512))
    lines = log(run)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert set(lines[-1]["heldout_nll"]) == {"GPT4 Correct", "GPT3"}
    assert not list(run.glob("state-*"))


def test_loss_and_weights_do_not_depend_on_how_packs_are_spread(tmp_path: Path, base: Path, dataset: Path) -> None:
    runs = []
    # One forward of the whole data, or many of one row each: the same step.
    for pack_tokens in (4096, 64):
        run = tmp_path / f"run-{pack_tokens}"
        main(Options(str(base), dataset, run, epochs=3, lr=1e-3, batch_tokens=4096, pack_tokens=pack_tokens, dtype="float32"))
        runs.append(run)
    first, second = map(log, runs)
    assert [line["loss"] for line in first] == pytest.approx([line["loss"] for line in second], rel=1e-5)
    for name, tensor in weights(runs[0]).items():
        torch.testing.assert_close(tensor, weights(runs[1])[name], rtol=1e-4, atol=1e-5)


def test_a_killed_and_repeated_run_ends_as_the_run_that_was_not(tmp_path: Path, base: Path, dataset: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = {"epochs": 40, "lr": 1e-3, "batch_tokens": 256, "save_minutes": 0.0}
    main(Options(str(base), dataset, whole, **options))
    words = ["train", "run", "--model", str(base), "--data", str(dataset), "--output", str(killed)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    command = [sys.executable, "-m", "ochat.cli", *words]
    for n_states in (3, 20):  # killed twice, at different steps
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if any(int(path.stem[6:]) >= n_states for path in killed.glob("state-*.safetensors")):
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.02)
            os.kill(process.pid, signal.SIGKILL)
        assert not (killed / "final").exists()
    main(Options(str(base), dataset, killed, **options))
    assert [{**line, "seconds": 0} for line in log(killed)] == [{**line, "seconds": 0} for line in log(whole)]
    assert all(torch.equal(tensor, weights(killed)[name]) for name, tensor in weights(whole).items())


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, base: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(str(base), dataset, tmp_path / "run", lr=1e-3)
    main(options)
    before = (tmp_path / "run" / "final" / "model.safetensors").stat().st_mtime_ns
    main(options)
    assert "finished" in capsys.readouterr().out
    assert (tmp_path / "run" / "final" / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_is_not_continued_with_other_settings(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))
    with pytest.raises(OchatError, match=r"lr 0.001 \(now 0.002\)"):
        main(Options(str(base), dataset, tmp_path / "run", lr=2e-3))


def test_data_of_another_tokenizer_is_refused(tmp_path: Path, dataset: Path, toy_folder: Callable[..., Path]) -> None:
    tokens = toy_folder("openchat_3.5")
    other = tmp_path / "other"
    save_checkpoint(tiny_model(load_tokenizer(tokens).vocab_size), tokens, model_type("openchat_3.5"), other)
    with pytest.raises(ModelError, match="not tokenized with"):
        main(Options(str(other), dataset, tmp_path / "run"))


def test_a_model_without_the_types_tokens_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    small = tmp_path / "small"
    save_checkpoint(tiny_model(100), base, model_type(KIND), small)
    with pytest.raises(ModelError, match="ochat model add-tokens"):
        main(Options(str(small), dataset, tmp_path / "run"))


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(DataError, match="ochat data tokenize"):
        main(Options(str(base), tmp_path, tmp_path / "run"))
