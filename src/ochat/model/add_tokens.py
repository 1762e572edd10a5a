"""`ochat model add-tokens`: give a base model the control tokens of a model type.

A new token's embedding is the mean of the old ones: it starts where the model expects an average token, and its logit starts
near the average too, so training isn't upset at the first step (Hewitt 2021, "Initializing New Word Embeddings for Pretrained
Language Models")."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tokenizers

from ochat.errors import ModelError, require
from ochat.files import refuse_existing
from ochat.hub import model_folder
from ochat.registry import model_type


@dataclass(frozen=True)
class Options:
    model: str
    """folder or hub id of the base model"""
    model_type: str
    """model type whose tokens the model gets"""
    output: Path
    """folder to write the model to"""


def add_tokens(source: tokenizers.Tokenizer, tokens: tuple[str, ...]) -> dict[str, int]:
    """Add those of the tokens that the tokenizer lacks, as control tokens; returns the new ones with their ids."""
    known = {token.content for token in source.get_added_tokens_decoder().values()}
    missing = [token for token in tokens if token not in known]
    # A token that is a plain word of the vocabulary keeps its id and becomes a control token.
    source.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in missing])
    vocabulary = source.get_vocab(with_added_tokens=True)
    return {token: vocabulary[token] for token in missing}


def main(options: Options) -> None:
    require("transformers", "train", "Adding tokens to a model")
    refuse_existing(options.output)
    import torch

    from ochat.training.checkpoint import load_model, save_checkpoint

    kind = model_type(options.model_type)
    folder = model_folder(options.model)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json. Convert its tokenizer to a fast one first.")
    source = tokenizers.Tokenizer.from_file(str(path))
    new = add_tokens(source, kind.tokens)
    for token in kind.tokens:
        print(f"{token}: new, id {new[token]}" if token in new else f"{token}: already there, id {source.token_to_id(token)}")
    model = load_model(options.model, torch.bfloat16)
    n_rows = model.get_input_embeddings().weight.shape[0]
    n_tokens = max(source.get_vocab(with_added_tokens=True).values()) + 1
    if n_tokens > n_rows:
        # Our own mean below: transformers' mean_resizing draws around it, so two runs would differ.
        model.resize_token_embeddings(n_tokens, mean_resizing=False)
    with torch.no_grad():
        for layer in {id(layer): layer for layer in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            # A new control token may be an old word of the vocabulary: then its row isn't one of the old.
            old = [row for row in range(min(n_rows, n_tokens)) if row not in new.values()]
            mean = layer.weight[old].float().mean(dim=0)
            for token_id in new.values():
                layer.weight[token_id] = mean.to(layer.weight.dtype)
    with TemporaryDirectory() as name:
        changed = Path(name)
        source.save(str(changed / "tokenizer.json"))
        config = folder / "tokenizer_config.json"
        if config.is_file():
            shutil.copyfile(config, changed / "tokenizer_config.json")
        save_checkpoint(model, changed, kind, options.output)
    print(f"Model of type {kind.name} with {n_tokens} tokens: {options.output}")
