"""A model's folder as every tool of the field reads it: safetensors, tokenizer, chat template, end of turn, model type.

tokenizer.json is copied as it is and named a plain fast tokenizer, since `transformers` rebuilds tokenizers of some classes
and then merges blanks differently (docs/decisions/0002-template-marks.md)."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch.distributed.tensor import DTensor
from transformers import GenerationConfig, PreTrainedModel

from ochat.errors import ModelError, require
from ochat.files import new_folder, refuse_existing, write_text
from ochat.hub import model_folder
from ochat.registry import ModelType, load_template
from ochat.training.card import CARD_FILE
from ochat.training.checkpoint_texts import checkpoint_texts


def quiet_transformers() -> None:
    """Leave progress and warnings to us: `load_model` checks what its warnings are about."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_model(name: str, dtype: torch.dtype, attention: str = "sdpa", *, quantize: str = "none") -> PreTrainedModel:
    """A causal language model from a folder or hub id, "nf4" for linear layers of 4 bits. No code of the model's own runs.

    Raises ModelError where there is none, or where its files lack some of its weights."""
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    folder = model_folder(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it's not a model. Give a model's folder, such as RUN/final.")
    options = {"dtype": dtype, "attn_implementation": attention, "use_safetensors": True, "trust_remote_code": False}
    if quantize != "none":
        require("bitsandbytes", "bitsandbytes", "--quantize")
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quantize, bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    model: PreTrainedModel
    try:
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, KeyError) and attention in error.args:  # Falcon's alibi, for one, looks its own up
            raise ModelError(
                f"{folder} doesn't take another attention, so packed rows can't be kept apart. Choose another model."
            ) from error
        raise ModelError(
            f"{folder} can't be loaded ({str(error).splitlines()[0]}). Check that its download is whole."
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would make them up
        raise ModelError(f"{folder} lacks {len(missing)} weights, {missing[0]} the first. Check that its download is whole.")
    return model


def save_checkpoint(
    model: PreTrainedModel,
    source: Path,
    kind: ModelType,
    output: Path,
    *,
    conditions: Sequence[str] = (),
    card: Callable[[], str] | None = None,
    writes: bool = True,
) -> None:
    """Write the model with the tokenizer of the folder `source`, for its model type, to the new folder `output` in one step.
    `conditions` are those that it was trained under.

    LoRA adapters are written alone. Where the weights are sharded, all ranks call this and one `writes`. The base's sampling
    defaults aren't kept: they were chosen for another model's replies."""
    weights = _whole(model)
    if not writes:
        return
    refuse_existing(output)
    model.config.eos_token_id = load_template(kind, source).end_of_turn
    ids = {f"{name}_token_id": getattr(model.config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(**ids)
    with new_folder(output) as part:
        try:
            model.save_pretrained(part, **({"state_dict": weights} if weights else {}))
        except SafetensorError as error:
            raise ModelError(f"{output} can't be written ({error}). Make room and repeat the command.") from error
        shutil.copyfile(source / "tokenizer.json", part / "tokenizer.json")
        for file in part.glob("*.safetensors"):  # written for the owner alone, but a server may be another user
            shutil.copymode(part / "tokenizer.json", file)
        for name, text in checkpoint_texts(source, kind, conditions).items():
            write_text(part / name, text)
        if card is not None:
            write_text(part / CARD_FILE, card())


def _whole(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The whole weights of a sharded model, in the dtype that it's to be saved in; nothing for one that isn't sharded."""
    whole: dict[int, torch.Tensor] = {}  # a tied weight stays one tensor
    named = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, DTensor):
            return {}
        if id(value) not in whole:
            whole[id(value)] = value.full_tensor().detach().to(model.config.dtype).cpu()
        named[name] = whole[id(value)]
    return named
