"""Adding a type's tokens to a base model: new rows are the mean of the old, what is there is said, the checkpoint is whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import tiny_model

from ochat.errors import ModelError
from ochat.model.add_tokens import Options, main
from ochat.registry import detect_model_type, load_template, model_type
from ochat.tokenizer import load_tokenizer
from ochat.training.checkpoint import save_checkpoint


@pytest.fixture
def base(tmp_path: Path, toy_folder: Callable[..., Path]) -> Path:
    tokens = toy_folder("chatml_8192")
    save_checkpoint(tiny_model(load_tokenizer(tokens).vocab_size), tokens, model_type("chatml_8192"), tmp_path / "base")
    return tmp_path / "base"


def test_new_tokens_start_as_the_mean_of_the_old(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "more"
    main(Options(str(base), "openchat_3.5", output))
    told = capsys.readouterr().out
    n_old = load_tokenizer(base).vocab_size
    assert f"<|end_of_turn|>: new, id {n_old}" in told
    template = load_template(detect_model_type(output), output)
    assert template.end_of_turn == n_old
    old, new = (load_file(folder / "model.safetensors") for folder in (base, output))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = new[name].float()
        assert rows.shape[0] == n_old + 2
        torch.testing.assert_close(rows[:n_old], old[name].to(torch.bfloat16).float())
        mean = old[name].to(torch.bfloat16).float().mean(0)
        torch.testing.assert_close(rows[n_old:], mean.expand(2, -1), rtol=1e-2, atol=1e-4)


def test_a_word_of_the_vocabulary_that_becomes_a_token_is_none_of_the_old(
    tmp_path: Path, toy_folder: Callable[..., Path]
) -> None:
    spec = json.loads((toy_folder("chatml_8192") / "tokenizer.json").read_text(encoding="utf-8"))
    word = next(word for word, id in spec["model"]["vocab"].items() if id == 0)
    tokens = tmp_path / "tokens"
    shutil.copytree(toy_folder("chatml_8192"), tokens)
    text = json.dumps(spec).replace(json.dumps(word), '"<|end_of_turn|>"')  # token 0 is now that word
    (tokens / "tokenizer.json").write_text(text, encoding="utf-8")
    save_checkpoint(tiny_model(load_tokenizer(tokens).vocab_size), tokens, model_type("chatml_8192"), tmp_path / "base")
    main(Options(str(tmp_path / "base"), "openchat_3.5", tmp_path / "more"))
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "more"))
    mean = old["lm_head.weight"][1:].to(torch.bfloat16).float().mean(0)
    torch.testing.assert_close(new["lm_head.weight"][0].float(), mean, rtol=1e-2, atol=1e-4)


def test_a_token_that_is_there_is_said_and_left_as_it_is(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Options(str(base), "openchat_smollm2", tmp_path / "same"))
    assert "<|im_end|>: already there" in capsys.readouterr().out
    old, new = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "same"))
    torch.testing.assert_close(new["lm_head.weight"].float(), old["lm_head.weight"].to(torch.bfloat16).float())


@pytest.mark.parametrize("name", ["openchat/openchat_3.5", "no/such/folder", "."])
def test_a_model_that_cannot_be_had_is_one_line_with_a_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        main(Options(name, "openchat_3.5", tmp_path / "out"))
    assert "\n" not in str(raised.value)
