"""A Llama of random weights, some hundred thousand of them, and a tokenizer of bytes: a model that learns in a minute on a CPU.

For experiments that need many models, each from its own beginning."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ochat.errors import require
from ochat.registry import ModelType


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the model. Heads are 32 wide, the least that vLLM serves on a CPU."""

    hidden: int
    layers: int
    # Weights are drawn this wide. Wider than a large model's 0.02: so narrow a model starts to learn sooner.
    initial_std: float


HEAD_SIZE = 32
MAX_CONTEXT = 128  # tokens


def write_tiny_model(output: Path, kind: ModelType, words: tuple[str, ...], shape: TinyShape, seed: int) -> None:
    """Write the folder of a model of the type; the same for the same seed. Each of `words` is one token, also after a blank."""
    require("transformers", "train", "Making a tiny model")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ochat.training.checkpoint import save_checkpoint

    with TemporaryDirectory() as folder:
        size = _write_tokenizer(Path(folder), kind, words)
        config = LlamaConfig(
            vocab_size=size,
            hidden_size=shape.hidden,
            intermediate_size=4 * shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.hidden // HEAD_SIZE,
            num_key_value_heads=shape.hidden // HEAD_SIZE,
            max_position_embeddings=MAX_CONTEXT,
            initializer_range=shape.initial_std,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
        save_checkpoint(model, Path(folder), kind, output)


def _write_tokenizer(folder: Path, kind: ModelType, words: tuple[str, ...]) -> int:
    """Bytes, the words, and the type's control tokens; returns how many tokens there are."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    blank = "Ġ"  # how byte-level tokenizers write it
    pieces = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces[word[:end]] = None
                merges.append((word[: end - 1], word[end - 1]))
    for word in words:  # after all words are whole: merges go by rank
        pieces[blank + word] = None
        merges.append((blank, word))
    tokenizer = Tokenizer(models.BPE(vocab={piece: id for id, piece in enumerate(pieces)}, merges=merges))
    apart = Regex(rf" ?(?:{'|'.join(words)})|\d| ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(apart, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in kind.tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    size: int = tokenizer.get_vocab_size()
    return size
