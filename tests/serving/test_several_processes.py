"""Several workers of the engine and several API processes before it, with a model from the hub's cache."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_server import Server, random_model, running, wait_for

from ochat.registry import model_type
from ochat.serving.keys import read_keys, write_keys

pytestmark = pytest.mark.soak
USER = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def model() -> Any:  # transformers' classes have no types
    """Four heads, so that two workers have two each; float32, so that a sum in another order seldom changes the token."""
    return random_model(hidden_size=128, num_attention_heads=4, num_key_value_heads=2)


@pytest.fixture(scope="module")
def several(
    model: Any, openchat_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """The card's command with two workers and two API processes, the model under its hub id in the cache."""
    from ochat.training.checkpoint import save_checkpoint

    folder = tmp_path_factory.mktemp("several")
    cached = folder / "hf" / "hub" / "models--openchat--openchat_3.5"
    (cached / "snapshots").mkdir(parents=True)
    save_checkpoint(model, openchat_folder, model_type("openchat_3.5"), cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    options = ["--engine-use-ray", "--worker-use-ray", "--tensor-parallel-size", "2", "--api-server-count", "2"]
    options += ["--dtype", "float32", "--shutdown-timeout", "90"]  # which a busy machine needs for 200 tokens
    with running(folder, "openchat/openchat_3.5", *options, HF_HOME=str(folder / "hf")) as started:
        yield started


def test_two_workers_give_the_replies_of_plain_transformers(model: Any, several: tuple[Server, Any]) -> None:
    import torch

    server, process = several
    assert {"openchat_3.5", "openchat/openchat_3.5"} <= {found["id"] for found in server.get("/v1/models").json()["data"]}
    for text in ("Hello", "What is 15% of 240?", "Implement quicksort using C++"):
        reply = server.chat(text, max_tokens=16, temperature=0, ignore_eos=True).json()
        prompt = reply["prompt_token_ids"]
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert reply["choices"][0]["token_ids"] == ids[0, len(prompt) :].tolist()
    names = {" ".join(child.cmdline()).strip() for child in psutil.Process(process.pid).children(recursive=True)}
    assert {"VLLM::Worker_TP0", "VLLM::Worker_TP1"} <= names


def test_two_api_processes_answer_alike(several: tuple[Server, Any]) -> None:
    server, _ = several
    other = server.add_key("other")
    wait_for(lambda: all(server.get("/v1/models", other).is_success for _ in range(8)))  # either process reads it by itself
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
    counted = 'ochat_requests_total{condition="Code",key="tests",outcome="finished",status="200"} 9.0'
    for _ in range(4):
        assert counted in server.get("/metrics").text  # of both
    for _ in range(8):
        assert server.get("/health", "").status_code == 200
        assert server.get("/v1/models", "").status_code == 401
    write_keys(server.keys, [key for key in read_keys(server.keys) if key.name != "other"])
    wait_for(lambda: all(server.get("/v1/models", other).status_code == 401 for _ in range(8)))


def test_told_to_stop_several_processes_finish_what_they_have_begun(several: tuple[Server, subprocess.Popen[bytes]]) -> None:
    server, process = several  # the last test that needs it
    with server.stream("/v1/chat/completions", model="openchat_3.5", messages=USER, max_tokens=200, ignore_eos=True) as stream:
        lines = stream.iter_lines()
        next(lines)
        process.terminate()
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert process.wait(40) == 0


def test_at_the_limit_each_of_several_processes_cuts_off_what_is_left_with_an_error(checkpoint: Path, tmp_path: Path) -> None:
    with running(tmp_path, checkpoint, "--api-server-count", "2", "--shutdown-timeout", "8") as (server, process):
        with server.stream("/v1/chat/completions", messages=USER, max_tokens=8000, ignore_eos=True) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.terminate()
            rest = [line for line in lines if line]
        assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == 503
        assert process.wait(40) == 0


def test_two_api_processes_end_with_an_error_when_the_engine_dies(checkpoint: Path, tmp_path: Path) -> None:
    with running(tmp_path, checkpoint, "--api-server-count", "2") as (_, process):
        (engine,) = (child for child in psutil.Process(process.pid).children(recursive=True) if "EngineCore" in child.name())
        engine.send_signal(signal.SIGKILL)
        assert process.wait(10) != 0
