"""What must not change a training: one reference run, and runs that differ in how they are divided, computed or interrupted.

The reference is our trainer in one process, a pack a forward, four forwards a step: 30 steps of a tiny random Llama on rows of
three classes with weights 1, 0.3 and 0.1. Each other run must come to the same losses and to the same final weights. One of them
is no run of ours: the formula written plainly, a row at a time with stock attention, the whole logits and torch's own optimizer,
so an error that all our runs share is seen too.

How equal is the same? All compute in float32, on the CPU, one thread a process; sums are rounded at 6e-8 of a value, in another
order to another result. Measured with torch 2.13: losses within 6e-7, and weights within 9e-6 of the distance that they moved.
The limits stand some ten times above that, for other machines and libraries, and a thousand times below what a fault does: dividing
each forward by its own weights, as others do, moves losses by 1e-2 and weights by 0.6. One process must come to the same to the bit,
from the command line or killed and resumed.

Runs are processes forked from one that has loaded torch, since loading takes longer than a run; the command line and torchrun are
started as a user starts them."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ochat.data import tokenize
from ochat.data.dataset import Dataset
from ochat.data.packing import plan
from ochat.errors import OchatError
from ochat.files import write_json
from ochat.training import train
from ochat.training.config import FINAL_FOLDER, LOG_FILE, Options

Plant = Literal["none", "per-micro-batch"]

EPOCHS, LEARNING_RATE = 2, 3e-3
PACK_TOKENS, PACKS_A_STEP = 128, 4
CLASSES = {"expert": ("GPT4 Correct", 1.0), "middle": ("Code", 0.3), "plain": ("GPT3", 0.1)}
N_ROWS = 92  # 30 steps, the last of each epoch with one pack, so that one of two ranks has nothing there
LOSS_LIMIT, WEIGHT_LIMIT = 1e-5, 1e-4
RUN_SECONDS = 300
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Comparison:
    """A run beside the reference. Differences are the largest of any step's loss, and of any weight as a share of the largest
    distance that a weight of the reference moved; both are None, and `error` tells why, where the run failed."""

    name: str
    is_same: bool
    seconds: float
    loss_difference: float | None = None
    weight_difference: float | None = None
    error: str = ""

    def line(self) -> str:
        """As it is printed."""
        if self.loss_difference is None or self.weight_difference is None:
            told = self.error
        else:
            told = f"losses within {self.loss_difference:.1e}, weights within {self.weight_difference:.1e}"
        return f"{'same' if self.is_same else 'DIFFERS':<8} {self.name:<42} {told}  ({self.seconds:.0f} s)"


@dataclass(frozen=True)
class Arm:
    """A run that must come to the same; `run` is given its folder and leaves a run there. `exact`: to the bit."""

    name: str
    run: Callable[[Path], None]
    exact: bool = False


def compare(folder: Path, *, plant: Plant = "none", tell: Callable[[Comparison], None] = lambda _: None) -> list[Comparison]:
    """Train the reference and all others in a new folder, two at a time, and compare; `tell` is called with each as it ends.

    With a fault planted in our trainer, only those run that it is seen in. Raises OchatError where the reference fails."""
    folder.mkdir(parents=True, exist_ok=True)
    _in_process(_make_inputs, folder, log=folder / "inputs.log")
    reference = folder / "reference"
    with ThreadPoolExecutor(2) as pool:
        ready = pool.submit(_trained, reference, plant=plant)
        waiting = [pool.submit(compare_with, arm, reference, ready.result) for arm in arms(plant)]
        ready.result()
        for future in as_completed(waiting):
            tell(future.result())
        return [future.result() for future in waiting]


def arms(plant: Plant = "none") -> list[Arm]:
    """The runs, those first that take the longest."""
    divided = [
        Arm("a row at a time, by the plain formula", _plainly),
        Arm("4 packs a forward, nothing accumulated", partial(_trained, plant=plant, packs_per_forward=4)),
        Arm("2 packs a forward, 2 accumulated", partial(_trained, plant=plant, packs_per_forward=2)),
        Arm("all logits at once", partial(_trained, plant=plant, loss_kernel="naive")),
        Arm("activations computed again", partial(_trained, plant=plant, gradient_checkpointing=True)),
    ]
    if plant != "none":
        return divided
    return [
        Arm("2 ranks, by torchrun", _by_torchrun),
        Arm("the command line, with a YAML file", _by_command_line, exact=True),
        Arm("killed in a step and while saving, resumed", _killed_twice, exact=True),
        Arm("2 ranks, FSDP2", partial(_trained, ranks=2, fsdp=True)),
        Arm("2 ranks, killed, resumed on 1", _killed_on_two),
        Arm("2 ranks, FSDP2, killed, resumed on 1", partial(_killed_on_two, fsdp=True)),
        *divided,
    ]


def compare_with(arm: Arm, reference: Path, wait: Callable[[], None] = lambda: None) -> Comparison:
    """Run an arm beside the reference and compare it, once `wait` returns: the reference may still be under way."""
    started = time.monotonic()
    run = reference.parent / "".join(letter if letter.isalnum() else "-" for letter in arm.name)
    try:
        arm.run(run)
        seconds = time.monotonic() - started
        wait()
        losses, weights = differences(run, reference, reference.parent / "model")
    except (OchatError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return Comparison(arm.name, False, time.monotonic() - started, error=str(error))
    limits = (0.0, 0.0) if arm.exact else (LOSS_LIMIT, WEIGHT_LIMIT)
    is_same = losses <= limits[0] and weights <= limits[1]
    return Comparison(arm.name, is_same, seconds, losses, weights)


def differences(run: Path, reference: Path, model: Path) -> tuple[float, float]:
    """The largest difference of a step's loss, and of a final weight as a share of the reference's largest movement."""
    from safetensors.numpy import load_file

    logs = [(path / LOG_FILE).read_text(encoding="utf-8").splitlines() for path in (run, reference)]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in logs]
    if len(losses[0]) != len(losses[1]):
        raise ValueError(f"it took {len(losses[0])} steps, the reference {len(losses[1])}")
    name = "model.safetensors"
    mine, its, start = (load_file(path / name) for path in (run / FINAL_FOLDER, reference / FINAL_FOLDER, model))
    if mine.keys() != its.keys():
        raise ValueError(f"{min(mine.keys() ^ its.keys())} is in one of the two models only")
    movement = max(float(np.abs(its[key] - start[key]).max()) for key in its)
    apart = max(float(np.abs(mine[key] - its[key]).max()) for key in its)
    return float(np.abs(np.array(losses[0]) - np.array(losses[1])).max()), apart / movement


def _make_inputs(folder: Path) -> None:
    """A tokenizer of bytes, a random model, and conversations tokenized by our own command."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from ochat.registry import model_type

    kind = model_type("openchat_smollm2")
    tokenizer = Tokenizer(models.BPE({text: n for n, text in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in kind.tokens])
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ochat.training.checkpoint import save_checkpoint

    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,  # larger than usual: a row that sees another is to be seen
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    save_checkpoint(LlamaForCausalLM(config), folder / "tokenizer", kind, folder / "model")
    rng = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(N_ROWS):
            name = rng.choice(list(CLASSES))
            condition, weight = CLASSES[name]
            asked, answer = ("".join(rng.choices("abcd ", k=rng.randint(1, most))) for most in (10, 60))
            items = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer, "weight": weight}]
            file.write(json.dumps({"items": items, "condition": condition, "class": name}) + "\n")
    tokenize.main(tokenize.Options((folder / "rows.jsonl",), str(folder / "model"), folder / "data"))


def _settings(folder: Path) -> dict[str, Any]:
    """The fields of `Options` that all runs share, for runs beside the model and the data."""
    return {
        "model": str(folder / "model"),
        "data": folder / "data",
        "epochs": EPOCHS,
        "lr": LEARNING_RATE,
        "batch_tokens": PACK_TOKENS * PACKS_A_STEP,
        "pack_tokens": PACK_TOKENS,
        "dtype": "float32",
        "loss_kernel": "chunked",
        "save_minutes": 60.0,
    }


def _trained(output: Path, *, ranks: int = 1, fault: tuple[str, int] = ("", 0), plant: Plant = "none", **changes: Any) -> None:
    """Run our trainer from Python, in so many processes; with a fault they must end by SIGKILL."""
    settings = _settings(output.parent) | {"output": output} | changes
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = output.with_suffix(".log")
    status = -signal.SIGKILL if fault[0] else 0
    arguments = [(settings, rank, ranks, port, fault, plant) for rank in range(ranks)]
    _in_processes(_train, arguments, log=log, status=status)


def _train(
    settings: dict[str, Any], rank: int, count: int, port: int, fault: tuple[str, int], plant: Plant
) -> None:  # in a process of its own
    from ochat.training import state, trainer

    if count > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
    where, number = fault
    if where == "step":
        whole = trainer.Trainer.gradients

        def gradients(self: trainer.Trainer, step: int) -> trainer.Totals:
            totals = whole(self, step)
            if step + 1 == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return totals

        _replace(trainer.Trainer, gradients=gradients)
    if where == "save":
        from safetensors.torch import save_file as save

        def save_file(tensors: dict[str, Any], file: Path, metadata: dict[str, str]) -> None:
            save(tensors, file, metadata)
            if f"{number:08}" in file.parent.name:
                os.truncate(file, file.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        _replace(state, save_file=save_file)
    if plant == "per-micro-batch":
        _plant_per_micro_batch(PACKS_A_STEP // settings.get("packs_per_forward", 1))
    train.main(Options(**settings))


def _plant_per_micro_batch(n_forwards: int) -> None:
    """Make a step's loss the mean over its forwards of Σ w·nll / Σ w of each, as a trainer does that knows one forward only."""
    from ochat.training import trainer
    from ochat.training.batch import Batch
    from ochat.training.loss import LossModel, TokenLosses

    class OwnMean(LossModel):
        def forward(self, batch: Batch) -> TokenLosses:
            losses = super().forward(batch)
            return losses._replace(total=losses.total / batch.weights.sum())

    _replace(trainer, LossModel=OwnMean, normalisers=lambda _, weight_sums: np.full_like(weight_sums, n_forwards))


def _replace(owner: Any, **parts: object) -> None:  # a module or a class
    """Plant a fault in this process; what is replaced must be there."""
    for name, part in parts.items():
        assert hasattr(owner, name), name
        setattr(owner, name, part)


def _by_command_line(output: Path, launcher: tuple[str, ...] = ()) -> None:
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in _settings(output.parent).items()}
    file = output.with_suffix(".yaml")
    write_json(file, settings)  # JSON is YAML too
    command = [sys.executable, *launcher, "-m", "ochat.cli", "train", "run", "--config", str(file), "--output", str(output)]
    with output.with_suffix(".log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command, env={**os.environ, **_ENVIRONMENT}, stdout=log, stderr=subprocess.STDOUT, timeout=RUN_SECONDS, check=False
        )
    if done.returncode:
        raise OchatError(f"it ended with status {done.returncode}: {_last_line(output.with_suffix('.log'))}")


def _by_torchrun(output: Path) -> None:
    _by_command_line(output, ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"))


def _killed_twice(output: Path) -> None:
    """SIGKILL in the 11th step, and half-way through the file of the state after the 20th; saved after each step."""
    for fault in (("step", 11), ("save", 20)):
        _trained(output, fault=fault, save_minutes=0.0)
    _trained(output)


def _killed_on_two(output: Path, **changes: Any) -> None:
    _trained(output, ranks=2, fault=("step", 15), save_minutes=0.0, **changes)
    _trained(output)


def _plainly(output: Path) -> None:
    _in_process(_train_plainly, output, log=output.with_suffix(".log"))


def _train_plainly(output: Path) -> None:
    """The run written without our batches, attention, loss and optimizer: Σ w·nll of each row by itself."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM

    from ochat.training.optimizer import learning_rate

    settings = _settings(output.parent)
    dataset = Dataset(settings["data"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32, attn_implementation="eager")
    rows = []
    for number in range(len(dataset)):
        ids, lengths, weights = (torch.tensor(column) for column in dataset.row(number))
        rows.append((ids.long(), torch.repeat_interleave(weights, lengths)[1:]))
    sizes = {name: settings[name] for name in ("epochs", "batch_tokens", "pack_tokens")}
    steps = plan(dataset.lengths, seed=0, **sizes)
    weight_sums = [sum(float(rows[row][1].sum()) for row in steps.step_rows(step)) for step in range(len(steps))]
    normaliser = sum(weight_sums) / len(steps)
    adamw = torch.optim.AdamW(model.parameters(), lr=0, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1, foreach=False)
    output.mkdir()
    with (output / LOG_FILE).open("w", encoding="utf-8") as log:
        for step, weight_sum in enumerate(weight_sums):
            loss_sum = 0.0
            for row in steps.step_rows(step):
                ids, weights = rows[row]
                logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
                loss = (weights * cross_entropy(logits, ids[1:], reduction="none")).sum()
                (loss / normaliser).backward()
                loss_sum += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.param_groups[0]["lr"] = learning_rate(step + 1, len(steps), settings["lr"])
            adamw.step()
            adamw.zero_grad()
            log.write(json.dumps({"step": step + 1, "loss": loss_sum / weight_sum}) + "\n")
    model.save_pretrained(output / FINAL_FOLDER)


def _in_process(function: Callable[..., None], *arguments: Any, log: Path) -> None:
    _in_processes(function, [arguments], log=log)


def _in_processes(function: Callable[..., None], arguments: list[tuple[Any, ...]], *, log: Path, status: int = 0) -> None:
    """Call the function with each tuple of arguments in a process of its own. Raises OchatError where one ends otherwise than
    with the status."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "ochat.training.loop", "transformers.models.llama.modeling_llama", "peft"])
    processes = [context.Process(target=_quietly, args=(log, function, *given)) for given in arguments]
    for process in processes:
        process.start()
    deadline = time.monotonic() + RUN_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    if any(code != status for code in codes):
        raise OchatError(f"it ended with status {codes}, not {status}: {_last_line(log)}")


def _quietly(log: Path, function: Callable[..., None], *arguments: Any) -> None:
    """Call the function with all that it prints going to a file."""
    with log.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(_ENVIRONMENT)
    import torch
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process would leave behind
    torch.set_num_threads(1)
    function(*arguments)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing"
