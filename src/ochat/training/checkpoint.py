"""A model's folder as every tool of the field reads it: safetensors, tokenizer, chat template, end of turn, model type.

tokenizer.json is copied as it is and named a plain fast tokenizer, since `transformers` rebuilds tokenizers of some classes
and then merges blanks differently (docs/decisions/0002-template-marks.md)."""

import json
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ochat.errors import ModelError
from ochat.files import new_folder, refuse_existing, write_json, write_text
from ochat.hub import model_folder
from ochat.registry import MODEL_TYPE_FILE, ModelType, load_template


def quiet_transformers() -> None:
    """Leave progress and warnings to us: what matters of them, our own checks say."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_model(name: str, dtype: torch.dtype, attention: str = "sdpa") -> PreTrainedModel:
    """A causal language model from a folder or hub id; raises ModelError where there is none. No code of the model's own runs."""
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    folder = model_folder(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it's not a model. Give a model's folder, such as RUN/final.")
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} can't be loaded ({str(error).splitlines()[0]}). Check that its download is whole."
        ) from error
    return model


def save_checkpoint(model: PreTrainedModel, source: Path, kind: ModelType, output: Path) -> None:
    """Write the model with the tokenizer of the folder `source`, for its model type, to the folder `output` in one step."""
    refuse_existing(output, MODEL_TYPE_FILE)
    template = load_template(kind, source)
    for config in (model.config, model.generation_config):
        if config is not None:
            config.eos_token_id = template.end_of_turn
    with new_folder(output) as part:
        model.save_pretrained(part)
        shutil.copyfile(source / "tokenizer.json", part / "tokenizer.json")
        write_json(part / "tokenizer_config.json", _tokenizer_config(source, kind))
        write_text(part / "chat_template.jinja", template.jinja())
        write_json(part / MODEL_TYPE_FILE, {"model_type": kind.name})


def _tokenizer_config(source: Path, kind: ModelType) -> dict[str, object]:
    path = source / "tokenizer_config.json"
    given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    keep = {
        key: given[key] for key in ("bos_token", "unk_token", "pad_token", "model_max_length") if given.get(key) is not None
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": kind.max_context,
        **keep,
        "eos_token": kind.format.end_of_turn,
    }
