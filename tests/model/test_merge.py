"""An adapter merged into its base says what the adapter said."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from toys import tiny_model, toy_tokenizer

from ochat.errors import ModelError, OchatError
from ochat.model.merge import Options, main
from ochat.registry import detect_model_type, model_type, trained_conditions
from ochat.training.checkpoint import load_model, save_checkpoint

IDS = torch.arange(20)[None] % 7


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, kind = tmp_path_factory.mktemp("base"), model_type("openchat_smollm2")
    save_checkpoint(tiny_model(300), toy_tokenizer(folder / "tokenizer", kind), kind, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """An adapter on all linear layers, as a run saves it, with a change that can be seen."""
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(str(base), torch.float32), config)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json", "openchat.json"):
        shutil.copyfile(base / name, folder / name)
    (folder / "openchat.json").write_text('{"model_type": "openchat_smollm2", "conditions": ["Mine"]}', encoding="utf-8")
    return folder


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


def test_a_merged_model_gives_the_adapters_logits(tmp_path: Path, base: Path, adapter: Path) -> None:
    main(Options(adapter, tmp_path / "merged", dtype="float32"))
    plain = logits(load_model(str(base), torch.float32))
    beside = logits(PeftModel.from_pretrained(load_model(str(base), torch.float32), str(adapter)))
    whole = logits(load_model(str(tmp_path / "merged"), torch.float32))
    assert (plain - beside).abs().max() > 1e-2
    assert torch.allclose(whole, beside, atol=1e-5)
    assert detect_model_type(tmp_path / "merged").name == "openchat_smollm2"
    assert trained_conditions(tmp_path / "merged") == ("Mine",)
    assert not list((tmp_path / "merged").glob("adapter*"))


def test_weights_are_rounded_once(tmp_path: Path, adapter: Path) -> None:
    main(Options(adapter, tmp_path / "exact", dtype="float32"))
    main(Options(adapter, tmp_path / "rounded"))
    exact, rounded = (load_file(tmp_path / name / "model.safetensors") for name in ("exact", "rounded"))
    assert exact.keys() == rounded.keys()
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)


def test_the_base_can_be_named(tmp_path: Path, base: Path, adapter: Path) -> None:
    moved = shutil.copytree(base, tmp_path / "moved")
    lost = shutil.copytree(adapter, tmp_path / "adapter")
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(ModelError, match=r"base model is not here \(.*gone is not a folder.*--model"):
        main(Options(lost, tmp_path / "merged"))
    main(Options(lost, tmp_path / "merged", model=str(moved)))
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path, base: Path, adapter: Path) -> None:
    with pytest.raises(ModelError, match="holds a whole model, which needs no merging"):
        main(Options(base, tmp_path / "merged"))
    pickled = shutil.copytree(adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        main(Options(pickled, tmp_path / "merged"))


def test_another_models_adapter_is_refused(tmp_path: Path, base: Path, adapter: Path) -> None:
    kind = model_type("openchat_smollm2")
    wide = tiny_model(300)
    wide.model.layers = wide.model.layers[:1]
    wide.config.num_hidden_layers = 1
    save_checkpoint(wide, base, kind, tmp_path / "shallow")
    with pytest.raises(ModelError, match=r"differ in 14 weights, .*layers\.1.*--model"):
        main(Options(adapter, tmp_path / "merged", model=str(tmp_path / "shallow")))
    other = toy_tokenizer(tmp_path / "tokenizer", kind, style="sentencepiece")
    save_checkpoint(tiny_model(600), other, kind, tmp_path / "other")
    with pytest.raises(ModelError, match="another tokenizer than"):
        main(Options(adapter, tmp_path / "merged", model=str(tmp_path / "other")))


@pytest.mark.parametrize("change", ["narrow", "torn", "partial"])
def test_a_damaged_adapter_is_refused(tmp_path: Path, adapter: Path, change: str) -> None:
    damaged = shutil.copytree(adapter, tmp_path / "damaged")
    path = damaged / "adapter_model.safetensors"
    weights = load_file(path)
    first = min(weights)
    if change == "torn":
        path.write_bytes(path.read_bytes()[:-10])
    elif change == "narrow":
        save_file({**weights, first: weights[first][:, :5].contiguous()}, path)
    else:
        save_file({name: weight for name, weight in weights.items() if name != first}, path)
    with pytest.raises(ModelError, match="--model"):
        main(Options(damaged, tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_nothing_that_is_there_is_overwritten(tmp_path: Path, adapter: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OchatError, match="exists"):
        main(Options(adapter, tmp_path))
