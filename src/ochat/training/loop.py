"""The training loop: the plan's steps in order, a line a step, a saved state now and then."""

import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import PreTrainedModel

from ochat.data.dataset import Dataset
from ochat.data.packing import Step, pack
from ochat.errors import ModelError
from ochat.files import new_file, write_text
from ochat.hub import model_folder
from ochat.registry import ModelType
from ochat.training import attention
from ochat.training.batch import pack_batch
from ochat.training.checkpoint import load_model, save_checkpoint
from ochat.training.config import FINAL_FOLDER, LOG_FILE, STATE_FILE, Options
from ochat.training.loss import batch_loss_sum
from ochat.training.optimizer import MasterAdamW, automatic_learning_rate, learning_rate

T = TypeVar("T", int, float)


def train(options: Options, kind: ModelType, dataset: Dataset, steps: list[Step]) -> None:
    """Run the steps that are left, write RUN/final, and remove the saved state."""
    folder = model_folder(options.model)
    heldout = Dataset(options.data, "heldout") if dataset.meta["heldout_rows"] else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(options.model, getattr(torch, options.dtype), attention.NAME).to(device).train()
    check_embeddings(model, dataset)
    optimizer = MasterAdamW(model.parameters())
    n_done = restore(options.output / STATE_FILE, optimizer)
    # A constant of the run, so that a step of cheap rows doesn't count as much as one of expert rows.
    mean_weight_sum = sum_over(dataset.weight_sums, steps) / len(steps)
    peak = options.lr or automatic_learning_rate(kind.learning_rate, sum_over(dataset.learned_tokens, steps) / len(steps))
    print(f"{len(steps):,} steps of at most {options.batch_tokens:,} tokens, peak learning rate {peak:.2g}, on {device}")
    if n_done:
        print(f"Going on after step {n_done:,}")
    saved_at = time.monotonic()
    rewind_log(options.output / LOG_FILE, n_done)
    with (
        (options.output / LOG_FILE).open("a", encoding="utf-8") as log,
        tqdm(total=len(steps), initial=n_done, unit="step", mininterval=0.5 if sys.stderr.isatty() else 15) as progress,
    ):
        for number, step in enumerate(steps[n_done:], start=n_done + 1):
            started = time.monotonic()
            nll_sum = 0.0
            for numbers in step.packs:
                loss = batch_loss_sum(model, pack_batch(dataset, numbers).to(device))
                (loss / mean_weight_sum).backward()
                optimizer.add_gradients()
                nll_sum += float(loss.detach())
            rate = learning_rate(number, len(steps), peak)
            norm = optimizer.step(rate)
            if not (math.isfinite(nll_sum) and math.isfinite(norm)):
                raise ModelError(
                    f"Step {number}: the loss is {nll_sum} and the gradient's norm {norm}. Start anew with a smaller --lr and "
                    "another --output, or look at the data."
                )
            weight_sum, n_tokens = sum_over(dataset.weight_sums, [step]), sum_over(dataset.lengths, [step])
            seconds = time.monotonic() - started
            line: dict[str, object] = {"step": number, "loss": nll_sum / weight_sum, "weight_sum": weight_sum, "lr": rate}
            line |= {"grad_norm": norm, "tokens": n_tokens, "seconds": round(seconds, 3)}
            if heldout and step.ends_epoch:
                line["heldout_nll"] = heldout_nll(model, heldout, options, device)
            log.write(json.dumps(line) + "\n")
            log.flush()
            progress.set_postfix_str(f"loss {nll_sum / weight_sum:.3f}, {n_tokens / seconds:.0f} tokens/s", refresh=False)
            progress.update()
            if number < len(steps) and time.monotonic() - saved_at >= 60 * options.save_minutes:
                save_state(options.output / STATE_FILE, optimizer, number)
                saved_at = time.monotonic()
    save_checkpoint(model, folder, kind, options.output / FINAL_FOLDER)
    (options.output / STATE_FILE).unlink(missing_ok=True)


def sum_over(values: Sequence[T], steps: list[Step]) -> T:
    """The sum of the rows' values over all rows of the steps."""
    return sum(values[row] for step in steps for row in step.rows)


def check_embeddings(model: PreTrainedModel, dataset: Dataset) -> None:
    """Raise ModelError where the data has token ids that the model has no embedding for."""
    n_embeddings = model.get_input_embeddings().weight.shape[0]
    if dataset.max_id >= n_embeddings:
        raise ModelError(
            f"The data's largest token id is {dataset.max_id}, but the model has {n_embeddings} embeddings. Give it the model "
            "type's tokens with `ochat model add-tokens`, and tokenize with that model's folder."
        )


@torch.no_grad()
def heldout_nll(model: PreTrainedModel, heldout: Dataset, options: Options, device: torch.device) -> dict[str, float]:
    """Mean nll of a learned token of the held-out rows, by class."""
    sums: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    classes = heldout.classes
    model.eval()
    for name in sorted(set(classes)):
        rows = [number for number, of_class in enumerate(classes) if of_class == name]
        for numbers in pack(heldout.lengths, rows, options.pack_tokens or options.batch_tokens):
            batch = pack_batch(heldout, numbers).to(device)
            batch.weights.fill_(1.0)
            sums[name] += float(batch_loss_sum(model, batch))
            counts[name] += len(batch.labels)
    model.train()
    return {name: sums[name] / counts[name] for name in sums}


def save_state(path: Path, optimizer: MasterAdamW, n_done: int) -> None:
    """Save what the next step needs, in place of the older state."""
    with new_file(path) as part:
        save_file(optimizer.state_dict() | {"n_done": torch.tensor(n_done)}, part)


def restore(path: Path, optimizer: MasterAdamW) -> int:
    """Load the saved state, if there is one; returns the number of steps that are done."""
    for rest in path.parent.glob(".tmp*"):  # safetensors' own, of a save that was killed
        rest.unlink()
    if not path.is_file():
        return 0
    try:
        state = load_file(path)
        optimizer.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path} can't be read ({error}). Remove it to start the run anew.") from error
    return int(state["n_done"])


def rewind_log(path: Path, n_done: int) -> None:
    """Drop the lines after the step that a run goes on from; they'll be written again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[:n_done]))
