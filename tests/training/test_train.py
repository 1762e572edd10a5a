"""Training end to end on a tiny model: it learns, it's the same however it is divided or killed, and it refuses nonsense."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import tiny_model

from ochat.data import tokenize
from ochat.data.dataset import Dataset
from ochat.data.packing import plan
from ochat.errors import DataError, ModelError, OchatError
from ochat.files import hold
from ochat.registry import model_type
from ochat.tokenizer import load_tokenizer
from ochat.training import attention
from ochat.training.batch import pack_batch
from ochat.training.checkpoint import load_model, save_checkpoint
from ochat.training.config import Options
from ochat.training.loss import batch_loss_sum
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


def log_lines(run: Path) -> list[str]:
    return (run / "log.jsonl").read_text(encoding="utf-8").splitlines()


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log_lines(run)]


def test_training_learns_and_logs_a_line_a_step(tmp_path: Path, base: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    main(Options(str(base), dataset, run, epochs=8, lr=1e-2, batch_tokens=512))
    lines = log(run)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert set(lines[-1]["heldout_nll"]) == {"GPT4 Correct", "GPT3"}
    assert not (run / "state.safetensors").exists()


def test_loss_and_weights_do_not_depend_on_how_packs_are_spread(tmp_path: Path, base: Path, dataset: Path) -> None:
    runs = []
    # One forward a step, or one for each row: the same steps.
    for pack_tokens in (512, 64):
        run = tmp_path / f"run-{pack_tokens}"
        main(Options(str(base), dataset, run, epochs=3, lr=1e-3, batch_tokens=512, pack_tokens=pack_tokens, dtype="float32"))
        runs.append(run)
    first, second = map(log, runs)
    assert [line["loss"] for line in first] == pytest.approx([line["loss"] for line in second], rel=1e-5)
    for name, tensor in weights(runs[0]).items():
        torch.testing.assert_close(tensor, weights(runs[1])[name], rtol=1e-4, atol=1e-5)


def test_a_killed_and_repeated_run_ends_as_the_run_that_was_not(tmp_path: Path, base: Path, dataset: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = {"epochs": 12, "lr": 1e-3, "batch_tokens": 256, "save_minutes": 0.0}
    main(Options(str(base), dataset, whole, **options))
    words = ["train", "run", "--model", str(base), "--data", str(dataset), "--output", str(killed)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    command = [sys.executable, "-m", "ochat.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if (killed / "log.jsonl").exists() and len(log_lines(killed)) >= 5:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert (killed / "state.safetensors").exists()
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


def test_data_of_another_tokenizer_is_refused(
    tmp_path: Path, base: Path, dataset: Path, toy_folder: Callable[..., Path]
) -> None:
    tokens = toy_folder("openchat_3.5")
    other = tmp_path / "other"
    save_checkpoint(tiny_model(load_tokenizer(tokens).vocab_size), tokens, model_type("openchat_3.5"), other)
    with pytest.raises(ModelError, match="not tokenized with"):
        main(Options(str(other), dataset, tmp_path / "run"))
    with pytest.raises(ModelError, match="not a folder"):
        main(Options(str(tmp_path / "typo"), dataset, tmp_path / "run"))
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))  # neither mistake keeps the folder from the right model


def test_a_model_without_the_types_tokens_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    small = tmp_path / "small"
    save_checkpoint(tiny_model(100), base, model_type(KIND), small)
    with pytest.raises(ModelError, match="ochat model add-tokens"):
        main(Options(str(small), dataset, tmp_path / "run"))


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(DataError, match="ochat data tokenize"):
        main(Options(str(base), tmp_path, tmp_path / "run"))


def test_a_base_that_cannot_be_saved_is_found_out_before_the_first_step(tmp_path: Path, base: Path, dataset: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    (broken / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json can't be read"):
        main(Options(str(broken), dataset, tmp_path / "run"))
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_base_that_lacks_weights_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, model\.layers\.1\.mlp\.up_proj\.weight"):
        main(Options(str(broken), dataset, tmp_path / "run"))


def test_a_base_with_sampling_defaults_can_be_saved(tmp_path: Path, base: Path, dataset: Path) -> None:
    warm = tmp_path / "warm"
    shutil.copytree(base, warm)
    (warm / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9}')
    main(Options(str(warm), dataset, tmp_path / "run", lr=1e-3))
    generation = json.loads((tmp_path / "run" / "final" / "generation_config.json").read_text())
    assert "temperature" not in generation
    assert generation["eos_token_id"] == load_tokenizer(base).control_tokens["<|im_end|>"]


def test_a_run_that_was_killed_at_its_start_goes_on(tmp_path: Path, base: Path, dataset: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.part").write_text("{")
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))
    assert (tmp_path / "run" / "final").is_dir()


def test_the_same_data_by_another_path_is_the_same_run(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))
    main(Options(str(base), dataset / ".." / dataset.name, tmp_path / "run", lr=1e-3))


def test_two_trainings_cannot_share_a_run(tmp_path: Path, base: Path, dataset: Path) -> None:
    (tmp_path / "run").mkdir()
    with hold(tmp_path / "run"), pytest.raises(OchatError, match="another process"):
        main(Options(str(base), dataset, tmp_path / "run"))


def test_held_out_loss_is_logged_at_the_end_of_each_epoch(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", epochs=3, lr=1e-3, batch_tokens=256))
    n_learned = [line["step"] for line in log(tmp_path / "run") if "heldout_nll" in line]
    assert len(n_learned) == 3
    assert n_learned[-1] == len(log(tmp_path / "run"))


def test_each_steps_gradient_is_divided_by_the_runs_mean_weight_sum(tmp_path: Path, base: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    main(Options(str(base), dataset, run, lr=1e-12, batch_tokens=128, dtype="float32"))  # the weights stay as they are
    rows = Dataset(dataset)
    steps = plan(rows.lengths, epochs=1, batch_tokens=128, pack_tokens=128, seed=0)
    model = load_model(str(base), torch.float32, attention.NAME)
    norms = []
    for step in steps:
        loss = sum(batch_loss_sum(model, pack_batch(rows, numbers)) for numbers in step.packs)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(float(sum((gradient**2).sum() for gradient in gradients) ** 0.5))
    mean_weight_sum = sum(rows.weight_sums) / len(steps)
    logged = log(run)
    assert len({round(line["weight_sum"], 3) for line in logged}) > 1  # dividing by a step's own sum would differ
    assert [line["grad_norm"] for line in logged] == pytest.approx([norm / mean_weight_sum for norm in norms], rel=1e-4)
