"""Which model is served: its folder, its type, its tokenizer, its template and its context. Nothing of vLLM's is imported here."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from ochat.errors import ModelError, OchatError
from ochat.hub import MODEL_FILES, TOKENIZER_FILES, model_folder
from ochat.registry import ModelType, detect_model_type, load_template
from ochat.serving.conditions import AUTO_IS_RESERVED
from ochat.serving.gateway_options import options_of
from ochat.serving.plugin import MODEL_TYPE_KEY
from ochat.template import ConversationTemplate


def choose_model(args: Namespace) -> None:
    """Find the model, its type and its tokenizer, and fill in what follows from them."""
    named, folder, tokenizer, kind = find_model(args.model, args.model_tag, args.tokenizer, args.model_type)
    check_conditions(args, kind, tokenizer)
    name = folder.name if Path(named).expanduser().is_dir() else named
    args.model = args.model_tag = str(folder)
    args.tokenizer = str(tokenizer)
    args.served_model_name = list(dict.fromkeys([*(args.served_model_name or []), *kind.served_names, name]))
    args.additional_config = {**(args.additional_config or {}), MODEL_TYPE_KEY: kind.name}
    if args.max_model_len is None:
        args.max_model_len = shorter_context(kind, folder)


def check_conditions(args: Namespace, kind: ModelType, tokenizer: Path) -> None:
    """Raise OchatError where --conditions or --default-condition names what the template can't take."""
    options = options_of(args)
    named = [name for name in (*options.conditions, options.default_condition) if name]
    if "auto" in named:
        raise OchatError(AUTO_IS_RESERVED)
    if named:
        template = load_template(kind, tokenizer)
        for name in named:
            template.check_condition(name)


def find_model(
    model: str | None, model_tag: str | None, tokenizer: str | None, model_type: str, patterns: list[str] = MODEL_FILES
) -> tuple[str, Path, Path, ModelType]:
    """The model's name as given, its folder and its tokenizer's, and its type. Raises OchatError where one can't be had.

    The folders are absolute: the server tells them to clients, who know a checkpoint by them."""
    if model_tag is not None and model is not None and model_tag != model:
        raise OchatError(f"Two models given, {model_tag} and {model}. Give one.")
    named = model if model_tag is None else model_tag
    if named is None:
        raise OchatError("No model given. Give its folder: ochat serve --model DIR")
    folder = model_folder(named, patterns).resolve()
    tokenizer_folder = folder if tokenizer is None else model_folder(tokenizer, TOKENIZER_FILES).resolve()
    kind = detect_model_type(folder, model_type)
    load_template(kind, tokenizer_folder)  # says in one line what vLLM would say in a trace
    shorter_context(kind, folder)
    return named, folder, tokenizer_folder, kind


def shorter_context(kind: ModelType, folder: Path) -> int | None:
    """The type's context where the model's own is longer, else None: vLLM reads the model's own, scaling and all."""
    path = folder / "config.json"
    try:
        length = json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} can't be read ({error}). Give the folder of a whole model, such as RUN/final.") from error
    return kind.max_context if isinstance(length, int) and length > kind.max_context else None


def served_template(config: Any) -> ConversationTemplate:
    """The template of the model in vLLM's configuration. Raises OchatError where its type or tokenizer can't be had."""
    model = config.model_config
    extra = config.additional_config if isinstance(config.additional_config, dict) else {}
    kind = detect_model_type(model_folder(model.model), extra.get(MODEL_TYPE_KEY, ""))
    return load_template(kind, model_folder(model.tokenizer, TOKENIZER_FILES))
