"""Training end to end on a tiny model: it learns, it's the same however it is divided or killed, and it refuses nonsense."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

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
from ochat.training.checkpoint import load_model, save_checkpoint
from ochat.training.config import Options
from ochat.training.train import main

KIND = "openchat_smollm2"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def log_lines(run: Path) -> list[str]:
    return (run / "log.jsonl").read_text(encoding="utf-8").splitlines()


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log_lines(run)]


def without_speed(line: dict[str, float]) -> dict[str, float]:
    return {name: v for name, v in line.items() if name not in ("seconds", "seconds_left", "tokens_per_second", "memory_gb")}


def same_run(first: Path, second: Path) -> None:
    """Raise where two runs differ in more than float32's rounding."""
    losses = [[line["loss"] for line in log(run)[1:]] for run in (first, second)]  # without step 0, the measurement before
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, tensor in weights(first).items():
        torch.testing.assert_close(tensor, weights(second)[name], rtol=1e-4, atol=1e-5)


def test_training_learns_and_logs_a_line_a_step(tmp_path: Path, base: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    main(Options(str(base), dataset, run, epochs=8, lr=1e-2, batch_tokens=512, save_minutes=0.0))
    lines = log(run)
    assert [line["step"] for line in lines] == list(range(len(lines)))
    assert lines[-1]["loss"] < 0.5 * lines[1]["loss"]
    assert not list(run.glob("*state-*"))


def test_loss_and_weights_do_not_depend_on_how_packs_are_spread(tmp_path: Path, base: Path, dataset: Path) -> None:
    runs = []
    sizes = {"epochs": 3, "lr": 1e-3, "batch_tokens": 512, "pack_tokens": 128, "dtype": "float32"}
    for packs_per_forward in (1, 4):
        runs.append(tmp_path / f"run-{packs_per_forward}")
        main(Options(str(base), dataset, runs[-1], packs_per_forward=packs_per_forward, **sizes))
    same_run(*runs)


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
            if list(killed.glob("state-*")) and len(log_lines(killed)) >= 5:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert list(killed.glob("state-*"))
    assert not (killed / "final").exists()
    main(Options(str(base), dataset, killed, **options))
    assert [without_speed(line) for line in log(killed)] == [without_speed(line) for line in log(whole)]
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
    with pytest.raises(ModelError, match=r"not tokenized with .* but with another tokenizer, for openchat_"):
        main(Options(str(other), dataset, tmp_path / "run"))
    with pytest.raises(ModelError, match="not a folder"):
        main(Options(str(tmp_path / "typo"), dataset, tmp_path / "run"))
    assert not (tmp_path / "run").exists()  # nor is an empty folder left
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


def test_held_out_rows_are_measured_before_the_first_step_and_at_the_end_of_each_epoch(
    tmp_path: Path, base: Path, dataset: Path
) -> None:
    main(Options(str(base), dataset, tmp_path / "run", epochs=3, lr=1e-3, batch_tokens=256))
    measured = [line for line in log(tmp_path / "run") if "heldout" in line]
    assert [line["epoch"] for line in measured] == [0, 1, 2, 3]
    for line in measured:
        assert set(line["heldout"]) == {"GPT4 Correct", "GPT3"}
        # The sample is all of the few held-out rows, so under its own condition a class has the loss that it has.
        for name, under in line["counterfactual"].items():
            assert set(under) == {"GPT4 Correct", "GPT3"}
            assert under[name] == pytest.approx(line["heldout"][name]["nll"], rel=2e-2)


def test_the_counterfactual_loss_shows_that_the_condition_was_learned(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", epochs=30, lr=1e-2, batch_tokens=512, dtype="float32"))
    under = log(tmp_path / "run")[-1]["counterfactual"]
    assert under["GPT4 Correct"]["GPT4 Correct"] + 0.5 < under["GPT4 Correct"]["GPT3"]
    assert under["GPT3"]["GPT3"] + 0.5 < under["GPT3"]["GPT4 Correct"]


def test_eval_steps_says_when_held_out_rows_are_measured(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", epochs=3, lr=1e-3, batch_tokens=256, eval_steps=5))
    n_steps = len(log(tmp_path / "run")) - 1
    assert n_steps % 5  # so that the last step's measurement is another rule's
    assert [line["step"] for line in log(tmp_path / "run") if "heldout" in line] == [*range(0, n_steps, 5), n_steps]


@pytest.mark.parametrize(("normalise", "per_sequence"), [("run", False), ("step", False), ("run", True)])
def test_each_steps_gradient_is_divided_by_what_was_asked_for(
    tmp_path: Path, base: Path, dataset: Path, normalise: str, per_sequence: bool
) -> None:
    run = tmp_path / "run"
    settings = {"batch_tokens": 128, "dtype": "float32", "normalise": normalise, "per_sequence_loss": per_sequence}
    main(Options(str(base), dataset, run, lr=1e-12, **settings))  # the weights stay as they are
    rows = Dataset(dataset)
    steps = plan(rows.lengths, epochs=1, batch_tokens=128, pack_tokens=128, seed=0)
    model = load_model(str(base), torch.float32)
    norms, sums = [], []
    for step in range(len(steps)):
        loss, weight_sum = torch.zeros(()), 0.0
        for number in steps.step_rows(step):
            ids, lengths, run_weights = (torch.from_numpy(column.copy()) for column in rows.row(number))
            of_token = torch.repeat_interleave(run_weights, lengths)[1:]
            of_token = of_token / (of_token > 0).sum() if per_sequence else of_token
            log_p = model(input_ids=ids[None].long(), use_cache=False).logits[0, :-1].log_softmax(-1)
            loss = loss - (of_token * log_p.gather(1, ids[1:, None].long())[:, 0]).sum()
            weight_sum += float(of_token.sum())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(float(sum((gradient**2).sum() for gradient in gradients) ** 0.5))
        sums.append(weight_sum)
    logged = log(run)[1:]
    assert max(sums) > 1.5 * min(sums)  # so that one kind of dividing can't pass for the other
    assert [line["weight_sum"] for line in logged] == pytest.approx(sums, rel=1e-5)
    divisors = sums if normalise == "step" else [sum(sums) / len(sums)] * len(sums)
    expected = [norm / divisor for norm, divisor in zip(norms, divisors, strict=True)]
    assert [line["grad_norm"] for line in logged] == pytest.approx(expected, rel=1e-4)


def test_the_bias_of_normalising_by_step_is_told(
    tmp_path: Path, base: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3, batch_tokens=64, normalise="step"))
    told = re.search(r"GPT4 Correct: ([\d.]+) instead of the data's ([\d.]+)", capsys.readouterr().out)
    assert told
    assert float(told[1]) < float(told[2]) - 0.05


def test_the_automatic_learning_rate_is_printed_with_its_reasoning(
    tmp_path: Path, base: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Options(str(base), dataset, tmp_path / "run"))
    told = capsys.readouterr().out
    assert re.search(r"Peak learning rate [\d.e-]+: openchat_smollm2 takes 0.058 at 4,000,000 learned tokens a step", told)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(
    tmp_path: Path, base: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One embedding is not a number, so that exactly the rows with its token have no loss."""
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    tensors = load_file(broken / "model.safetensors")
    rows = Dataset(dataset)
    of_digit = load_tokenizer(base).encode_text(["7"])[0][0]
    tensors["model.embed_tokens.weight"][of_digit] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with_digit = [n for n in range(len(rows)) if of_digit in rows.row(n)[0]]
    assert 0 < len(with_digit) < len(rows)
    for check in ("check_model", "check_draws_nothing"):  # they would refuse the broken model first
        monkeypatch.setattr(f"ochat.training.trainer.{check}", lambda *_: None)
    with pytest.raises(ModelError, match=r"Step \d+: the loss isn't a number; row (\d+)") as error:
        main(Options(str(broken), dataset, tmp_path / "run", lr=1e-3, batch_tokens=512))
    named = re.search(r"row ([\d, ]+) of", str(error.value))
    assert named
    assert {int(number) for number in named[1].split(", ")} <= set(with_digit)


def test_data_that_never_ends_a_turn_is_refused(tmp_path: Path, base: Path) -> None:
    items = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 200, "weight": 1.0}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"items": items, "condition": "GPT3"}) + "\n")
    tokenize.main(tokenize.Options((tmp_path / "rows.jsonl",), str(base), tmp_path / "data", max_tokens=60))
    with pytest.raises(DataError, match=r"no end of turn is learned.*--max-tokens"):
        main(Options(str(base), tmp_path / "data", tmp_path / "run"))


def test_rows_over_a_pack_are_told_and_trained_on(
    tmp_path: Path, base: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = Dataset(dataset).lengths
    limit = int(sorted(lengths)[-3])
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3, batch_tokens=limit))
    n_long = int((lengths > limit).sum())
    assert n_long
    assert f"{n_long} rows are longer than {limit} tokens, up to {lengths.max()}" in capsys.readouterr().out
    assert sum(line["tokens"] for line in log(tmp_path / "run")[1:]) == lengths.sum()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_tokens": 1000, "pack_tokens": 300}, "multiple, such as --batch-tokens 900"),
        ({"lora_alpha": 8}, "for LoRA"),
        ({"quantize": "nf4"}, "for LoRA"),
        ({"fsdp": True, "lora_rank": 4}, "--fsdp goes with full fine-tuning"),
        ({"plan": Path("x")}, "for --dry-run"),
        ({"warmup": 1.5}, "--warmup is 1.5"),
        ({"lr": 3.0}, "--lr is 3.0"),
        ({"save_minutes": float("nan")}, "--save-minutes is nan"),
        ({"eval_steps": 0}, "--eval-steps is 0"),
        ({"batch_tokens": 10**30}, "--batch-tokens is 1000000000000000000000000000000. Give 2,147,483,647 or less"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_read(given: dict[str, object], said: str) -> None:
    with pytest.raises(OchatError, match=said):
        Options("m", Path("d"), Path("o"), **given)


@pytest.mark.parametrize("more", [{"gradient_checkpointing": True}, {"loss_kernel": "naive"}])
def test_ways_to_compute_change_nothing(tmp_path: Path, base: Path, dataset: Path, more: dict[str, object]) -> None:
    sizes = {"epochs": 2, "lr": 1e-3, "batch_tokens": 512, "dtype": "float32"}
    main(Options(str(base), dataset, tmp_path / "plain", **sizes))
    main(Options(str(base), dataset, tmp_path / "other", **sizes, **more))
    same_run(tmp_path / "plain", tmp_path / "other")


def test_a_repeated_run_may_be_computed_otherwise(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3, batch_tokens=512, pack_tokens=128))
    options = Options(str(base), dataset, tmp_path / "run", lr=1e-3, batch_tokens=512, pack_tokens=128, packs_per_forward=4)
    main(options)  # "finished", not refused


def test_warmup_floor_decay_and_clipping_do_what_they_say(tmp_path: Path, base: Path, dataset: Path) -> None:
    sizes = {"epochs": 3, "lr": 1e-3, "batch_tokens": 256, "dtype": "float32"}
    main(Options(str(base), dataset, tmp_path / "run", **sizes, warmup=0.0, lr_floor=0.5))
    rates = [line["lr"] for line in log(tmp_path / "run")[1:]]
    assert rates[0] > 0.95e-3
    assert rates[-1] == pytest.approx(0.5e-3)
    finals = {}
    for name, more in (("default", {}), ("no decay", {"weight_decay": 0.0}), ("clipped", {"max_grad_norm": 1e-4})):
        main(Options(str(base), dataset, tmp_path / name, **sizes, **more))
        finals[name] = sum(float((value.double() ** 2).sum()) for value in weights(tmp_path / name).values())
    assert finals["no decay"] > finals["default"]
    start = load_file(base / "model.safetensors")
    moved = {name: sum(float((v - start[k]).abs().sum()) for k, v in weights(tmp_path / name).items()) for name in finals}
    assert moved["clipped"] < moved["default"]


def test_more_epochs_than_can_be_planned_are_refused_before_the_plan_is_made(
    tmp_path: Path, base: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ochat.training.train.MAX_PLANNED_ROWS", 3000)  # three epochs, as each costs what 1,000 rows do
    assert len(Dataset(dataset)) < 1000
    main(Options(str(base), dataset, tmp_path / "run", epochs=3, lr=1e-3))
    with pytest.raises(OchatError, match=r"--epochs is 4, .* Give --epochs 3 or less"):
        main(Options(str(base), dataset, tmp_path / "other", epochs=4, lr=1e-3))
    assert not (tmp_path / "other").exists()


def test_a_run_that_cannot_fit_says_so_before_its_first_step(
    tmp_path: Path, base: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ochat.training.trainer.memory_there", lambda _: 1000)
    with pytest.raises(ModelError, match=r"doesn't fit into 0\.0 GB: .*gradients.*--gradient-checkpointing, --pack-tokens 256"):
        main(Options(str(base), dataset, tmp_path / "run", batch_tokens=512))
    assert not (tmp_path / "run" / "log.jsonl").exists()


def of_disk(monkeypatch: pytest.MonkeyPatch, n_bytes: int, run: Path) -> None:
    """Let the run's disk hold so many bytes."""

    def usage(_: object) -> SimpleNamespace:
        used = sum(path.stat().st_size for path in run.rglob("*.safetensors"))
        return SimpleNamespace(total=n_bytes, used=used, free=n_bytes - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)


@pytest.mark.parametrize("more", [{}, {"dtype": "float32"}, {"lora_rank": 4}])
def test_a_disk_that_cannot_hold_the_model_is_found_out_before_the_first_step(
    tmp_path: Path, base: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    main(Options(str(base), dataset, tmp_path / "first", lr=1e-3, **more))
    (file,) = (tmp_path / "first" / "final").glob("*.safetensors")
    size = sum(tensor.nbytes for tensor in load_file(file).values())
    run = tmp_path / "run"
    of_disk(monkeypatch, size - 1, run)
    said = r"run: the trained weights take 0\.\d+ GB, and its disk has 0\.\d+ GB free\. Make room"
    with pytest.raises(ModelError, match=said):
        main(Options(str(base), dataset, run, lr=1e-3, **more))
    assert not (run / "log.jsonl").exists()
    of_disk(monkeypatch, size, run)
    main(Options(str(base), dataset, run, lr=1e-3, **more))


def test_what_a_killed_run_half_wrote_takes_no_room_from_the_next(
    tmp_path: Path, base: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "run" / ".final.part"
    part.mkdir(parents=True)
    shutil.copyfile(base / "model.safetensors", part / "model.safetensors")
    of_disk(monkeypatch, (base / "model.safetensors").stat().st_size, tmp_path / "run")
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3, dtype="float32"))
    assert (tmp_path / "run" / "final").is_dir()


def test_data_for_another_model_type_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    items = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1.0}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"items": items}) + "\n")
    tokenize.main(tokenize.Options((tmp_path / "rows.jsonl",), str(base), tmp_path / "data", model_type="chatml_8192"))
    with pytest.raises(ModelError, match=r"tokenized for chatml_8192, and .* is of the type openchat_smollm2"):
        main(Options(str(base), tmp_path / "data", tmp_path / "run"))


def changed_meta(dataset: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(dataset, folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))
    return folder


def test_data_of_another_template_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    data = changed_meta(dataset, tmp_path / "data", template_sha256="0" * 64)
    with pytest.raises(DataError, match="another template of openchat_smollm2"):
        main(Options(str(base), data, tmp_path / "run"))


def test_a_data_set_that_lost_rows_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    data = changed_meta(dataset, tmp_path / "data", train_rows=1000)
    with pytest.raises(DataError, match=r"its meta\.json says 1,000"):
        main(Options(str(base), data, tmp_path / "run"))


def test_rows_over_the_models_context_are_refused(tmp_path: Path, base: Path) -> None:
    items = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 600, "weight": 1.0}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"items": items, "condition": "GPT3"}) + "\n")
    tokenize.main(tokenize.Options((tmp_path / "rows.jsonl",), str(base), tmp_path / "data"))
    with pytest.raises(ModelError, match=r"rows of up to 512 tokens.*--max-tokens 512"):
        main(Options(str(base), tmp_path / "data", tmp_path / "run", batch_tokens=1024))


def test_a_run_is_not_continued_with_other_data(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))
    data = changed_meta(dataset, tmp_path / "data", max_tokens=17)
    with pytest.raises(OchatError, match="data_sha256"):
        main(Options(str(base), data, tmp_path / "run", lr=1e-3))


def test_a_run_of_which_nothing_is_kept_may_be_tried_with_other_settings(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))
    shutil.rmtree(tmp_path / "run" / "final")  # as if killed before its first state
    main(Options(str(base), dataset, tmp_path / "run", lr=2e-3))
    assert max(line["lr"] for line in log(tmp_path / "run")[1:]) == pytest.approx(2e-3)
    assert [line["step"] for line in log(tmp_path / "run")] == list(range(len(log(tmp_path / "run"))))


def test_a_log_torn_within_a_letter_is_no_obstacle(tmp_path: Path, base: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    main(Options(str(base), dataset, run, lr=1e-3, batch_tokens=256))
    whole = log(run)
    shutil.rmtree(run / "final")
    with (run / "log.jsonl").open("ab") as file:
        file.write('{"step": 99, "classes": {"専'.encode()[:-1])
    main(Options(str(base), dataset, run, lr=1e-3, batch_tokens=256))
    assert [without_speed(line) for line in log(run)] == [without_speed(line) for line in whole]


def test_random_draws_of_a_model_are_off(tmp_path: Path, base: Path, dataset: Path) -> None:
    """Starcoder 2 has dropout in places of its own; packs per forward would draw it otherwise."""
    from transformers import AutoModelForCausalLM, Starcoder2Config

    config = Starcoder2Config(
        vocab_size=load_tokenizer(base).vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
        residual_dropout=0.3,
        embedding_dropout=0.3,
        attention_dropout=0.3,
    )
    torch.manual_seed(0)
    save_checkpoint(AutoModelForCausalLM.from_config(config), base, model_type(KIND), tmp_path / "base")
    sizes = {"epochs": 2, "lr": 1e-3, "batch_tokens": 512, "pack_tokens": 128, "dtype": "float32"}
    for packs_per_forward in (1, 4):
        run = tmp_path / str(packs_per_forward)
        main(Options(str(tmp_path / "base"), dataset, run, packs_per_forward=packs_per_forward, **sizes))
    same_run(tmp_path / "1", tmp_path / "4")


def test_a_gradient_that_is_no_number_is_not_taken(
    tmp_path: Path, base: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ochat.training.optimizer.MasterAdamW.gradient_norm", lambda _: math.nan)
    with pytest.raises(ModelError, match=r"Step 1: the gradient's norm is nan.*--lr"):
        main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))


def test_a_state_left_by_a_run_that_was_killed_at_its_end_is_removed(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))
    (tmp_path / "run" / "state-00000001").mkdir()
    main(Options(str(base), dataset, tmp_path / "run", lr=1e-3))
    assert not list(tmp_path.glob("run/state-*"))
