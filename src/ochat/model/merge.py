"""`ochat model merge`: a LoRA adapter and its base model -> one model, which any server loads.

The products of the adapter's matrices are added to the base's weights in float32 and rounded once: added in bfloat16, a small
change of a large weight would vanish. An adapter trained beside 4-bit weights is merged into the full ones, as is usual."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ochat.errors import ModelError, require
from ochat.files import file_sha256, refuse_existing
from ochat.hub import model_folder
from ochat.registry import detect_model_type, trained_conditions
from ochat.training.checkpoint_texts import checkpoint_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Options:
    adapter: Annotated[Path, tyro.conf.Positional]
    """folder of the adapter: RUN/final of a run with --lora-rank"""
    output: Path
    """folder to write the model to"""
    model: str | None = None
    """folder or hub id of the base model; the one that the adapter names when left out"""
    model_type: str = ""
    """model type; read from the adapter's folder when left out"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """what the model's weights are rounded to"""


def main(options: Options) -> None:
    require("peft", "train", "Merging an adapter")
    refuse_existing(options.output)
    config = read_adapter_config(options.adapter)
    base = base_folder(options.adapter, config, options.model)
    kind = detect_model_type(options.adapter, options.model_type)
    source = options.adapter if (options.adapter / "tokenizer.json").is_file() else base
    checkpoint_texts(source, kind)  # what can't be saved is found out now
    print("Loading the model …", flush=True)
    import torch

    from ochat.training.checkpoint import load_model, save_checkpoint

    model = merged(load_model(str(base), torch.float32), options.adapter)
    save_checkpoint(
        model.to(getattr(torch, options.dtype)), source, kind, options.output, conditions=trained_conditions(options.adapter)
    )
    print(f"Model of type {kind.name}: {options.output}")


def read_adapter_config(folder: Path) -> dict[str, object]:
    """The adapter's own description; raises ModelError where the folder holds no adapter in safetensors."""
    path = folder / CONFIG
    if not path.is_file():
        whole = " It holds a whole model, which needs no merging." if (folder / "config.json").is_file() else ""
        raise ModelError(f"{folder} is no adapter: it has no {CONFIG}.{whole} Give RUN/final of a run with --lora-rank.")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} has no {WEIGHTS}. Save the adapter as safetensors: a pickle would run its author's code.")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} can't be read ({error}). Copy the adapter again.") from error


def base_folder(adapter: Path, config: dict[str, object], given: str | None) -> Path:
    """The folder of the base model: the given one, or the one that the adapter was trained on.

    Raises ModelError where there is none, or its tokenizer is another than the adapter's: then it's another model."""
    name = given or str(config.get("base_model_name_or_path") or "")
    try:
        folder = model_folder(name)
    except ModelError as error:
        if given:
            raise
        raise ModelError(f"The adapter's base model is not here ({error}) Name it with --model.") from error
    mine, its = adapter / "tokenizer.json", folder / "tokenizer.json"
    if mine.is_file() and its.is_file() and file_sha256(mine) != file_sha256(its):
        raise ModelError(
            f"{adapter} was trained on a model with another tokenizer than {folder}. Name the model that the run started from "
            "with --model."
        )
    return folder


def merged(model: "PreTrainedModel", adapter: Path) -> "PreTrainedModel":
    """The model with the adapter added to its weights, in place. Raises ModelError where the two don't belong together."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = load_file(adapter / WEIGHTS)
        config = PeftConfig.from_pretrained(str(adapter))
        config.base_model_name_or_path = None  # the base may lie elsewhere now
        wrapped = get_peft_model(model, config)
        expected = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
        loaded: Any = set_peft_model_state_dict(wrapped, given)  # torch's named tuple; peft's annotation is of another thing
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{adapter} doesn't go with this base model ({reason}). Name the model that the run started from with --model."
        ) from error
    unmet = sorted({*loaded.unexpected_keys, *(expected - set(given))})
    if unmet:  # peft would leave the rest as it is drawn
        raise ModelError(
            f"{adapter} and this base model differ in {len(unmet)} weights, {unmet[0]} the first. Name the model that the run "
            "started from with --model."
        )
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        raise ModelError(f"{adapter} is an adapter of a kind that can't be merged. Serve it beside its base model.")
    whole: PreTrainedModel = wrapped.merge_and_unload()
    return whole
