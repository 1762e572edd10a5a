"""Several workers of the engine, and several API processes before it. Each test starts a server."""

import json
import signal
from pathlib import Path

import httpx
import psutil
import pytest
from live_server import running, wait_for

from ochat.registry import model_type
from ochat.serving.keys import read_keys, write_keys

pytestmark = pytest.mark.soak
USER = [{"role": "user", "content": "Hi"}]


def test_two_workers_on_the_cpu_give_the_replies_of_plain_transformers_from_a_hub_id(
    openchat_folder: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from ochat.training.checkpoint import save_checkpoint

    config = MistralConfig(
        vocab_size=32002,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    cached = tmp_path / "hub" / "hub" / "models--openchat--openchat_3.5"
    snapshot = cached / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    save_checkpoint(model, openchat_folder, model_type("openchat_3.5"), snapshot)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    options = ["--engine-use-ray", "--worker-use-ray", "--tensor-parallel-size", "2", "--dtype", "float32"]
    with running(tmp_path, "openchat/openchat_3.5", *options, HF_HOME=str(tmp_path / "hub")) as (server, _):
        assert {found["id"] for found in server.get("/v1/models").json()["data"]} >= {"openchat_3.5", "openchat/openchat_3.5"}
        for text in ("Hello", "What is 15% of 240?", "Implement quicksort using C++"):
            reply = server.chat(text, max_tokens=16, temperature=0, ignore_eos=True).json()
            prompt = reply["prompt_token_ids"]
            ids = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
            assert reply["choices"][0]["token_ids"] == ids[0, len(prompt) :].tolist()
        log = server.log.read_text()
        assert "Worker_TP1" in log or "Worker_TP0" in log or "Worker" in log
        assert "threads on cores 0|1" in log


def test_two_api_processes_answer_alike(checkpoint: Path, tmp_path: Path) -> None:
    with running(tmp_path, checkpoint, "--api-server-count", "2", "--shutdown-timeout", "20") as (server, process):
        other = server.add_key("other")
        prompt = "The same words for everyone, long enough for some blocks of the cache. " * 20

        def cached(key: str) -> int:
            # httpx opens a connection for each, which the kernel gives to either process.
            response = server.chat(prompt, key, condition="Code")
            assert response.json()["condition"] == "Code"
            tokens: int = server.usage_of(response.headers["x-request-id"])["cached_tokens"]
            return tokens

        assert cached(server.key) == 0
        assert min(cached(server.key) for _ in range(8)) > 100  # both salt alike
        assert cached(other) == 0
        rows = [json.loads(line) for line in server.usage.read_text().splitlines()]
        assert len(rows) == 10
        line = 'ochat_requests_total{condition="Code",key="tests",outcome="finished",status="200"} 9.0'
        for _ in range(4):
            assert line in server.get("/metrics").text  # of both
        for _ in range(8):
            assert server.get("/health", "").status_code == 200
            assert server.get("/v1/models", "").status_code == 401
        write_keys(server.keys, [key for key in read_keys(server.keys) if key.name != "other"])
        wait_for(lambda: all(server.get("/v1/models", other).status_code == 401 for _ in range(8)))
        with httpx.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={"model": "tiny", "stream": True, "messages": USER, "max_tokens": 500, "ignore_eos": True},
            headers=server.headers(),
            timeout=60,
        ) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.terminate()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert process.wait(40) == 0


def test_two_api_processes_end_with_an_error_when_the_engine_dies(checkpoint: Path, tmp_path: Path) -> None:
    with running(tmp_path, checkpoint, "--api-server-count", "2") as (_, process):
        (engine,) = (child for child in psutil.Process(process.pid).children(recursive=True) if "EngineCore" in child.name())
        engine.send_signal(signal.SIGKILL)
        assert process.wait(10) != 0
