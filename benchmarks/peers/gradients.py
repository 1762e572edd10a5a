"""Run the cases in a trainer, and store the gradient that its optimizer is given.

Used inside each peer's own environment, so it needs torch and numpy only. A hook that torch runs before any optimizer's step
sees the gradient after accumulation, reduction over ranks and clipping; nothing of the trainer is replaced. Parameters are
named by their values: before the first step they are those of the model's file, and no two of ours are alike.

A trainer takes longer to load than to make a step of a tiny model. So it's loaded once, and each case is a process forked from
that one, or two with the environment variables that torchrun gives."""

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook


def store_gradients(model: Path, out: Path, pad_id: int) -> None:
    """From now on, write the gradient at step 1, 2 … to OUT/step-1.npz and on, and to OUT/step-1.rank0.json the shapes and the
    tokens, padding aside, of the forwards that each rank made it of."""
    out.mkdir(exist_ok=True)
    named = {name: tensor.float() for name, tensor in load_file(model / "model.safetensors").items()}
    names: dict[int, str] = {}
    forwards: list[dict[str, Any]] = []
    n_steps = 0

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        """A sharded tensor's full value."""
        return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().float().cpu()

    def name_of(parameter: torch.Tensor) -> str:
        if id(parameter) not in names:
            value = whole(parameter)
            names[id(parameter)] = next(n for n, v in named.items() if v.shape == value.shape and torch.equal(v, value))
        return names[id(parameter)]

    def see_tokens(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.training and torch.is_grad_enabled():
            ids = args[0]
            forwards.append({"shape": list(ids.shape), "ids": ids[ids != pad_id].flatten().tolist()})

    def write(optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        nonlocal n_steps
        n_steps += 1
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = {name_of(parameter): whole(parameter.grad).numpy() for parameter in parameters}
        rank = int(os.environ.get("RANK", "0"))
        (out / f"step-{n_steps}.rank{rank}.json").write_text(json.dumps(forwards))
        forwards.clear()
        if rank == 0:
            np.savez(out / f"step-{n_steps}.npz", **gradients)

    torch.nn.modules.module.register_module_forward_pre_hook(see_tokens)
    register_optimizer_step_pre_hook(write)


def run_cases(run: Callable[[dict[str, Any]], None]) -> None:
    """Call `run` with the case of each file that the command line names; a case's output is output.txt beside its file."""
    for path in map(Path, sys.argv[1:]):
        case = json.loads(path.read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(case["ranks"]):
            child = os.fork()
            if child == 0:
                _run_in_child(run, case, path.parent, rank, port)
            children.append(child)
        _wait(children, case["time_limit"])


def _run_in_child(run: Callable[[dict[str, Any]], None], case: dict[str, Any], folder: Path, rank: int, port: int) -> None:
    """One rank of a case; doesn't return."""
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = sys.argv[:1]  # some trainers read it
    os.chdir(folder)
    code = 1
    try:
        if case["ranks"] > 1:
            group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": case["ranks"], "LOCAL_WORLD_SIZE": case["ranks"]}
            group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in group.items()}
        store_gradients(Path(case["model"]), Path(case["out"]), case["pad_id"])
        run(case)
        code = 0
    except BaseException:  # the parent's stack must not go on in here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(children: list[int], seconds: float) -> None:
    """Until all have ended; where one fails or the time is over, the others are ended."""
    until = time.monotonic() + seconds
    while children:
        for child in list(children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                children.remove(child)
                until = min(until, time.monotonic() + 30) if status else until
        if time.monotonic() > until:
            for child in children:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
