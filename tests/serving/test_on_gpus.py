"""What a CPU can't show: several GPUs, Ray, and a model of seven billion parameters at 8,192 tokens in 24 GB."""

import json
from pathlib import Path

import pytest
from live_server import random_checkpoint, running

pytestmark = pytest.mark.gpu
SEVEN_BILLION = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


@pytest.fixture(autouse=True)
def vllm_of_cuda() -> None:
    if not pytest.importorskip("vllm.platforms").current_platform.is_cuda():
        pytest.skip("needs vLLM's build for CUDA")


def replies(folder: Path, checkpoint: Path, *options: str) -> list[list[int]]:
    """Greedy replies of a server with these options."""
    folder.mkdir()
    with running(folder, checkpoint, "--dtype", "float32", *options) as (server, _):
        asked = [server.chat(text, max_tokens=16, temperature=0, ignore_eos=True) for text in ("Hello", "What is 15% of 240?")]
        return [reply.json()["choices"][0]["token_ids"] for reply in asked]


@pytest.mark.parametrize("executor", [[], ["--worker-use-ray"]], ids=["processes", "ray"])
def test_two_gpus_reply_as_one(executor: list[str], openchat_folder: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    checkpoint = random_checkpoint(
        openchat_folder, tmp_path / "tiny", hidden_size=128, num_attention_heads=4, num_key_value_heads=2
    )
    one = replies(tmp_path / "one", checkpoint)
    assert replies(tmp_path / "two", checkpoint, "--tensor-parallel-size", "2", *executor) == one


def test_seven_billion_parameters_serve_the_whole_context_in_24_gb(openchat_folder: Path, tmp_path: Path) -> None:
    import torch

    checkpoint = random_checkpoint(openchat_folder, tmp_path / "large")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, **SEVEN_BILLION}))
    (checkpoint / "model.safetensors").unlink()  # random weights of this shape are made by vLLM
    share = 24e9 / torch.cuda.get_device_properties(0).total_memory
    options = ["--load-format", "dummy", "--gpu-memory-utilization", f"{share:.3f}", "--kv-cache-memory-bytes", str(2**31)]
    with running(tmp_path, checkpoint, "--max-model-len", "8192", *options) as (server, _):
        reply = server.chat("a b " * 4000, max_tokens=100, ignore_eos=True)
        assert reply.status_code == 200
        assert reply.json()["usage"]["prompt_tokens"] > 7000
        free, total = torch.cuda.mem_get_info(0)
        assert total - free < 24e9
