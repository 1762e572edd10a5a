"""LoRA on the same loop: only the adapters are trained and saved, and merged they are the model that was trained."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ochat.data.dataset import Dataset
from ochat.data.packing import plan
from ochat.errors import ModelError
from ochat.model import merge
from ochat.tokenizer import load_tokenizer
from ochat.training.checkpoint import load_model
from ochat.training.config import Options
from ochat.training.ranks import Ranks
from ochat.training.train import main
from ochat.training.trainer import Trainer


def options(base: Path, dataset: Path, output: Path, **more: object) -> Options:
    settings = {"epochs": 6, "lr": 1e-2, "batch_tokens": 512, "dtype": "float32", "lora_rank": 4, **more}
    return Options(str(base), dataset, output, **settings)


def test_only_adapters_on_linear_layers_are_trained(tmp_path: Path, base: Path, dataset: Path) -> None:
    rows = Dataset(dataset)
    steps = plan(rows.lengths, epochs=1, batch_tokens=512, pack_tokens=512, seed=0)
    trainer = Trainer(options(base, dataset, tmp_path), rows, steps, Ranks(0, 1, torch.device("cpu")))
    names = set(trainer.optimizer.masters)
    assert names
    assert all(".lora_" in name for name in names)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in names} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }


def test_a_lora_run_learns_and_merges(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(options(base, dataset, tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[1]["loss"] - 0.5
    adapter = tmp_path / "run" / "final"
    assert (adapter / "adapter_config.json").is_file()
    assert not (adapter / "model.safetensors").exists()
    assert {"tokenizer.json", "openchat.json", "chat_template.jinja", "README.md"} <= {path.name for path in adapter.iterdir()}
    merge.main(merge.Options(adapter, output=tmp_path / "merged"))
    merged, before = (load_model(str(folder), torch.float32) for folder in (tmp_path / "merged", base))
    # The merged model has the loss that the run's last measurement gives the adapted one.
    rows = Dataset(dataset, "heldout")
    losses = []
    for model in (merged, before):
        nll = []
        for number in range(len(rows)):
            ids, lengths, weights = (torch.from_numpy(column.copy()) for column in rows.row(number))
            learned = torch.repeat_interleave(weights, lengths)[1:] > 0
            log_p = model(input_ids=ids[None].long(), use_cache=False).logits[0, :-1].log_softmax(-1)
            nll.append(-log_p.gather(1, ids[1:, None].long())[learned, 0])
        losses.append(float(torch.cat(nll).mean().detach()))
    measured = [sum(c["nll"] * c["tokens"] for c in line["heldout"].values()) for line in (lines[-1], lines[0])]
    n_tokens = sum(c["tokens"] for c in lines[0]["heldout"].values())
    assert losses == pytest.approx([value / n_tokens for value in measured], abs=2e-3)  # merged weights are rounded


def test_adapters_start_the_same_for_the_same_seed(tmp_path: Path, base: Path, dataset: Path) -> None:
    finals = []
    for name in ("a", "b"):
        main(options(base, dataset, tmp_path / name, epochs=1))
        finals.append(load_file(tmp_path / name / "final" / "adapter_model.safetensors"))
    assert finals[0]
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())


def test_a_base_whose_end_of_turn_was_never_trained_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    """As after `ochat model add-tokens`, which gives new tokens one embedding."""
    shutil.copytree(base, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    control = load_tokenizer(base).control_tokens
    tensors["lm_head.weight"][control["<|im_end|>"]] = tensors["lm_head.weight"][control["<|im_start|>"]]
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="end of turn was never trained"):
        main(options(tmp_path / "base", dataset, tmp_path / "run"))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "more", [{"quantize": "nf4"}, {"optimizer": "adamw_8bit"}, {"lora_rank": 0, "optimizer": "adamw_8bit"}]
)
def test_four_bit_weights_and_eight_bit_moments_learn_too(
    tmp_path: Path, base: Path, dataset: Path, more: dict[str, object]
) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install -e '.[bitsandbytes]'")
    main(options(base, dataset, tmp_path / "run", **{"dtype": "bfloat16", **more}))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[1]["loss"] - 0.5
