"""A saved checkpoint as other tools read it: OpenChat 3.5's real tokenizer beside a random Mistral of two layers."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken
from toys import tiny_model, toy_tokenizer

from ochat.conversation import Conversation, Message
from ochat.errors import ModelError, OchatError
from ochat.registry import MODEL_TYPES, ModelType, detect_model_type, load_template, model_type
from ochat.training.checkpoint import load_model, save_checkpoint

MESSAGES = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "How are you today?"},
]
# Where a tokenizer that transformers rebuilt from its class name goes wrong: leading blanks, indented code.
AWKWARD = ["  two blanks", "def f():\n    return 1\n\n\tx", " ", "\n", "▁▁", "émoji 🚀 中文", "x<|end_of_turn|> y"]

READ_IN_A_NEW_PROCESS = """
import json, sys
from transformers import AutoTokenizer
messages, awkward = json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps({
    "turns": tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False),
    "coding": tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False, condition="Code"),
    "card": [tokenizer(text).input_ids for text in (
        "GPT4 Correct User: Hello<|end_of_turn|>GPT4 Correct Assistant:",
        "GPT4 Correct User: Hello<|end_of_turn|>GPT4 Correct Assistant: Hi<|end_of_turn|>"
        "GPT4 Correct User: How are you today?<|end_of_turn|>GPT4 Correct Assistant:",
        "Code User: Implement quicksort using C++<|end_of_turn|>Code Assistant:",
    )],
    "awkward": [tokenizer(text).input_ids for text in awkward],
    "special": [tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token, tokenizer.model_max_length],
}))
"""
HELLO = [1, 420, 6316, 28781, 3198, 3123, 1247, 28747, 22557, 32000, 420, 6316, 28781, 3198, 3123, 21631, 28747]
TURNS = [*HELLO, 15359, 32000, 420, 6316, 28781, 3198, 3123, 1247, 28747, 1602, 460, 368, 3154, 28804, 32000, *HELLO[-7:]]
QUICKSORT = [1, 7596, 1247, 28747, 26256, 2936, 7653, 1413, 334, 1680, 32000, 7596, 21631, 28747]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, openchat_folder: Path) -> Path:
    output = tmp_path_factory.mktemp("run") / "final"
    save_checkpoint(tiny_model(32002, "mistral"), openchat_folder, model_type("openchat_3.5"), output)
    return output


def test_a_new_process_reads_the_tokens_of_the_model_card(checkpoint: Path, openchat_folder: Path) -> None:
    from tokenizers import Tokenizer

    given = json.dumps([MESSAGES, AWKWARD])
    command = [sys.executable, "-c", READ_IN_A_NEW_PROCESS, str(checkpoint), given]
    read = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    plain = Tokenizer.from_file(str(openchat_folder / "tokenizer.json"))
    assert read == {
        "turns": TURNS,
        "coding": [1, 7596, 1247, 28747, 22557, 32000, 7596, 21631, 28747],
        "card": [HELLO, TURNS, QUICKSORT],
        "awkward": [plain.encode(text).ids for text in AWKWARD],
        "special": ["<s>", "<|end_of_turn|>", "<unk>", "<|pad_0|>", 8192],
    }


def test_a_checkpoint_is_a_model_of_its_type(checkpoint: Path) -> None:
    kind = detect_model_type(checkpoint)
    assert kind.name == "openchat_v3.2_mistral"
    row = Conversation(items=(Message(role="user", content="Hello"), Message(role="assistant", content="")))
    assert load_template(kind, checkpoint).prompt(row) == HELLO


def test_a_checkpoint_has_the_weights_that_were_saved_and_stops_at_the_end_of_turn(checkpoint: Path) -> None:
    saved, loaded = tiny_model(32002, "mistral"), load_model(str(checkpoint), torch.float32)
    assert loaded.config.model_type == "mistral"
    assert loaded.generation_config is not None
    assert loaded.generation_config.eos_token_id == loaded.config.eos_token_id == 32000
    for name, weight in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert not list(checkpoint.glob("*.bin"))


def test_the_tokenizer_is_copied_to_the_byte(checkpoint: Path, openchat_folder: Path) -> None:
    assert (checkpoint / "tokenizer.json").read_bytes() == (openchat_folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("kind", MODEL_TYPES, ids=lambda kind: kind.name)
def test_every_type_can_be_saved_and_found_again(tmp_path: Path, toy_folder: Callable[..., Path], kind: ModelType) -> None:
    from transformers import AutoTokenizer

    template = load_template(kind, toy_folder(kind.name))
    save_checkpoint(tiny_model(template.tokenizer.vocab_size), toy_folder(kind.name), kind, tmp_path / "final")
    assert detect_model_type(tmp_path / "final") is kind
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "final")
    row = Conversation(items=tuple(Message.model_validate(message) for message in MESSAGES))
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    assert ids == load_template(kind, tmp_path / "final").prompt(row)
    assert tokenizer.eos_token == kind.format.end_of_turn


def test_nothing_that_is_there_is_overwritten(tmp_path: Path, toy_folder: Callable[..., Path]) -> None:
    kind = model_type("openchat_3.6")
    source = toy_folder("openchat_3.6")
    save_checkpoint(tiny_model(300, seed=1), source, kind, tmp_path / "final")
    with pytest.raises(OchatError, match="final exists"):
        save_checkpoint(tiny_model(300, seed=2), source, kind, tmp_path / "final")
    loaded = load_model(str(tmp_path / "final"), torch.float32)
    assert torch.equal(loaded.get_input_embeddings().weight, tiny_model(300, seed=1).get_input_embeddings().weight)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_saved(tmp_path: Path) -> None:
    kind = model_type("openchat_3.6")
    source = toy_tokenizer(tmp_path / "source", kind, extra=[AddedToken("<tool>", special=False)])
    (source / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match="Expecting"):
        save_checkpoint(tiny_model(300), source, kind, tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json, so it's not a model"):
        load_model(str(tmp_path), torch.float32)
