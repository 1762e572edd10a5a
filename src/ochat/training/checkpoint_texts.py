"""The small files of a checkpoint, made without torch: what can't be saved is found out before a model takes its time to load."""

import json
from collections.abc import Sequence
from pathlib import Path

from ochat.errors import ModelError
from ochat.registry import MODEL_TYPE_FILE, ModelType, load_template


def checkpoint_texts(source: Path, kind: ModelType, conditions: Sequence[str] = ()) -> dict[str, str]:
    """The small files of a checkpoint by name; `conditions` are those it was trained under, which a server then knows. Raises OchatError where the tokenizer of the folder `source` doesn't fit the
    model type, so that a run can find that out before its first step."""
    tokenizer_config = json.dumps(_tokenizer_config(source, kind), indent=2) + "\n"
    return {
        "tokenizer_config.json": tokenizer_config,
        "chat_template.jinja": load_template(kind, source).jinja(),
        MODEL_TYPE_FILE: json.dumps({"model_type": kind.name, **({"conditions": list(conditions)} if conditions else {})})
        + "\n",
    }


def _tokenizer_config(source: Path, kind: ModelType) -> dict[str, object]:
    path = source / "tokenizer_config.json"
    try:
        given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        kept = ("bos_token", "unk_token", "pad_token", "model_max_length")
        keep = {key: given[key] for key in kept if given.get(key) is not None}
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path} can't be read ({error}). Copy it from the model again.") from error
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": kind.max_context,
        **keep,
        "eos_token": kind.format.end_of_turn,
    }
