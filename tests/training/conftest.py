"""A tiny base model and a data set of two classes that disagree, for the tests of whole runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import tiny_model

from ochat.data import tokenize
from ochat.registry import model_type
from ochat.tokenizer import load_tokenizer
from ochat.training.checkpoint import save_checkpoint

KIND = "openchat_smollm2"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[..., Path]) -> Path:
    """A tiny random model with a toy tokenizer."""
    tokens = toy_folder(KIND)
    folder = tmp_path_factory.mktemp("models") / "base"
    save_checkpoint(tiny_model(load_tokenizer(tokens).vocab_size), tokens, model_type(KIND), folder)
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """24 rows of two classes that disagree, some held out."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for n in range(12):
        for condition, weight, answer in (("GPT4 Correct", 1.0, "yes"), ("GPT3", 0.1, "no")):
            items = [{"role": "user", "content": f"{n} {'x' * n}?"}, {"role": "assistant", "content": answer, "weight": weight}]
            rows.append({"items": items, "condition": condition, "class": condition})
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenize.main(tokenize.Options((source,), str(base), folder / "dataset", heldout=0.2))
    return folder / "dataset"
