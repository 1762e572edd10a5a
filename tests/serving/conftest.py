"""One server for all tests that need one: starting it takes most of their time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Server, running

from ochat.registry import model_type


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, openchat_folder: Path) -> Path:
    """A random model of OpenChat 3.5's type and vocabulary, with a longer context of its own than the type's."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from ochat.training.checkpoint import save_checkpoint

    config = MistralConfig(
        vocab_size=32002,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # vLLM's attention on the CPU takes no smaller heads
        max_position_embeddings=32768,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(MistralForCausalLM(config).to(torch.bfloat16), openchat_folder, model_type("openchat_3.5"), folder)
    return folder


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The card's server, its old options included."""
    options = ["--engine-use-ray", "--worker-use-ray", "--disable-log-requests"]
    with running(tmp_path_factory.mktemp("server"), checkpoint, *options) as (started, _):
        yield started
