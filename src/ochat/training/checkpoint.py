"""A model's folder as every tool of the field reads it: safetensors, tokenizer, chat template, end of turn, model type.

tokenizer.json is copied as it is and named a plain fast tokenizer, since `transformers` rebuilds tokenizers of some classes
and then merges blanks differently (docs/decisions/0002-template-marks.md)."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from ochat.errors import ModelError
from ochat.files import new_folder, refuse_existing, write_text
from ochat.hub import model_folder
from ochat.registry import ModelType, load_template
from ochat.training.checkpoint_texts import checkpoint_texts


def quiet_transformers() -> None:
    """Leave progress and warnings to us: `load_model` checks what its warnings are about."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_model(name: str, dtype: torch.dtype, attention: str = "sdpa") -> PreTrainedModel:
    """A causal language model from a folder or hub id. No code of the model's own runs.

    Raises ModelError where there is none, or where its files lack some of its weights."""
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    folder = model_folder(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it's not a model. Give a model's folder, such as RUN/final.")
    options = {"dtype": dtype, "attn_implementation": attention, "use_safetensors": True, "trust_remote_code": False}
    model: PreTrainedModel
    try:
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} can't be loaded ({str(error).splitlines()[0]}). Check that its download is whole."
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would make them up
        raise ModelError(f"{folder} lacks {len(missing)} weights, {missing[0]} the first. Check that its download is whole.")
    return model


def save_checkpoint(model: PreTrainedModel, source: Path, kind: ModelType, output: Path) -> None:
    """Write the model with the tokenizer of the folder `source`, for its model type, to the new folder `output` in one step.

    The base's sampling defaults aren't kept: they were chosen for another model's replies."""
    refuse_existing(output)
    model.config.eos_token_id = load_template(kind, source).end_of_turn
    ids = {f"{name}_token_id": getattr(model.config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(**ids)
    with new_folder(output) as part:
        model.save_pretrained(part)
        shutil.copyfile(source / "tokenizer.json", part / "tokenizer.json")
        for weights in part.glob("*.safetensors"):  # written for the owner alone, but a server may be another user
            shutil.copymode(part / "tokenizer.json", weights)
        for name, text in checkpoint_texts(source, kind).items():
            write_text(part / name, text)
