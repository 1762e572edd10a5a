"""examples/trl.py: TRL's loop takes our weighted steps, however it divides them. Skipped where trl isn't installed."""

import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from ochat.data.dataset import META_FILE, Dataset, ShardWriter, TokenRow
from ochat.training import attention

ROOT = Path(__file__).parents[2]
KIND = "openchat_smollm2"
PACK_TOKENS = 40

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of TRL and its requirements, about each other
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None,
        reason="trl isn't installed: pip install trl==1.16.0",
    ),
]


@pytest.fixture(scope="module")
def example() -> Any:
    """The example as a module, by a name that isn't TRL's."""
    spec = importlib.util.spec_from_file_location("trl_example", ROOT / "examples" / "trl.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 rows of 6 to 23 tokens; every third is of the expert class, so that packs differ in their weight."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n in range(18):
        ids = torch.randint(256, (6 + n,), generator=generator).tolist()
        expert = n % 3 == 0
        weight = 1.0 if expert else 0.1
        rows.append(TokenRow(ids, [3, n + 1, 1, 1], [0.0, weight, 0.0, weight], "expert" if expert else "other", bytes(16)))
    with ShardWriter(folder, "train") as writer:
        for row in rows:
            writer.add(row)
    meta = {"model_type": KIND, "tokenizer_sha256": "", "heldout_rows": 0, "train_rows": len(rows)}
    (folder / META_FILE).write_text(json.dumps(meta), encoding="utf-8")
    return folder


def naive_gradients(model: torch.nn.Module, dataset: Dataset) -> dict[str, torch.Tensor]:
    """Of Σ w · nll over all rows, one row at a time, by the model's own attention and the plain formula."""
    for number in range(len(dataset)):
        ids, run_lengths, run_weights = (torch.from_numpy(column.copy()) for column in dataset.row(number))
        weights = run_weights.repeat_interleave(run_lengths.long())[1:]
        logits = model(ids[None].long(), use_cache=False).logits[0, :-1]
        (weights * cross_entropy(logits.float(), ids[1:].long(), reduction="none")).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("packs_per_forward", "accumulated"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_the_steps_of_an_epoch_sum_to_the_gradient_of_all_rows(
    example: Any, base: Path, data_folder: Path, tmp_path: Path, packs_per_forward: int, accumulated: int
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig

    dataset = Dataset(data_folder)
    sums: dict[str, torch.Tensor] = {}
    steps = []

    class Sum(TrainerCallback):  # type: ignore[misc]  # transformers' classes are Any to mypy
        def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
            steps.append(1)
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                sums[name] = sums.get(name, 0) + parameter.grad

    config = SFTConfig(
        str(tmp_path),
        num_train_epochs=1,
        gradient_accumulation_steps=accumulated,
        learning_rate=0.0,  # so that all steps' gradients are taken at the same weights
        weight_decay=0.0,
        max_grad_norm=0.0,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        **(example.OURS | {"per_device_train_batch_size": packs_per_forward}),
    )
    trainer = example.WeightedTrainer(
        AutoModelForCausalLM.from_pretrained(base, attn_implementation=attention.NAME, dtype=torch.float32),
        config,
        dataset,
        PACK_TOKENS,
        processing_class=AutoTokenizer.from_pretrained(base),
        callbacks=[Sum()],
    )
    trainer.train()
    per_step = packs_per_forward * accumulated
    n_packs = sum(1 for example in trainer.train_dataset if example["rows"])
    assert (len(steps) * per_step > n_packs) == (per_step > 1)  # the last step has room, and nothing is repeated to fill it

    expected = naive_gradients(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), dataset)
    constant = dataset.weight_sums.sum() / len(steps)
    largest = max(float(gradient.abs().max()) for gradient in expected.values()) / constant
    assert set(sums) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(sums[name], gradient / constant, rtol=0, atol=5e-6 * largest)


def test_the_command_trains_and_saves_a_model(base: Path, data_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.trl", str(base), str(data_folder), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert set(before) == set(after)
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert any(not torch.equal(before[name].float(), value.float()) for name, value in after.items())
