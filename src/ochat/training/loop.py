"""The training loop: the plan's steps in order, a line a step, a saved state now and then."""

import hashlib
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import PreTrainedModel

from ochat.data.dataset import Dataset
from ochat.data.packing import Step, pack
from ochat.errors import DataError, ModelError
from ochat.files import new_file, write_text
from ochat.hub import model_folder
from ochat.registry import ModelType
from ochat.training import attention
from ochat.training.batch import pack_batch
from ochat.training.checkpoint import load_model, save_checkpoint
from ochat.training.config import FINAL_FOLDER, LOG_FILE, STATE_PREFIX, Options
from ochat.training.loss import batch_loss_sum
from ochat.training.optimizer import MasterAdamW, automatic_learning_rate, learning_rate


def train(options: Options, kind: ModelType, dataset: Dataset, steps: list[Step]) -> None:
    """Run the steps that are left, write RUN/final, and remove the saved states."""
    folder = model_folder(options.model)
    check_tokenizer(folder, dataset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(options.model, getattr(torch, options.dtype), attention.NAME).to(device).train()
    check_embeddings(model, dataset)
    optimizer = MasterAdamW(model.parameters())
    n_done = restore(options.output, optimizer)
    # A constant of the run, so that a step of cheap rows doesn't count as much as one of expert rows.
    mean_weight_sum = sum(dataset.weight_sums[row] for step in steps for row in step.rows) / len(steps)
    peak = options.lr or automatic_learning_rate(kind.learning_rate, learned_tokens(dataset, steps) / len(steps))
    print(f"{len(steps):,} steps of at most {options.batch_tokens:,} tokens, peak learning rate {peak:.2g}, on {device}")
    if n_done:
        print(f"Going on after step {n_done:,}")
    last_of_epoch = {len(steps) * epoch // options.epochs for epoch in range(1, options.epochs + 1)}
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
            if not torch.isfinite(torch.tensor([nll_sum, norm])).all():
                raise ModelError(
                    f"step {number}: the loss is {nll_sum} and the gradient {norm}. Lower --lr, or look at the data."
                )
            weight_sum = sum(dataset.weight_sums[row] for row in step.rows)
            n_tokens = sum(dataset.lengths[row] for row in step.rows)
            seconds = time.monotonic() - started
            line: dict[str, object] = {
                "step": number,
                "loss": nll_sum / weight_sum,
                "weight_sum": weight_sum,
                "lr": rate,
                "grad_norm": norm,
            }
            line |= {"tokens": n_tokens, "seconds": round(seconds, 3)}
            if number in last_of_epoch:
                line["heldout_nll"] = heldout_nll(model, options, device)
            log.write(json.dumps(line) + "\n")
            log.flush()
            progress.set_postfix_str(f"loss {nll_sum / weight_sum:.3f}, {n_tokens / seconds:.0f} tokens/s", refresh=False)
            progress.update()
            if number < len(steps) and time.monotonic() - saved_at >= 60 * options.save_minutes:
                save_state(options.output, optimizer, number)
                saved_at = time.monotonic()
    save_checkpoint(model, folder, kind, options.output / FINAL_FOLDER)
    for state in options.output.glob(f"{STATE_PREFIX}*"):
        state.unlink()


def check_tokenizer(folder: Path, dataset: Dataset) -> None:
    """Raise ModelError where the data was tokenized with another tokenizer than the model's."""
    path = folder / "tokenizer.json"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != dataset.meta["tokenizer_sha256"]:
        raise ModelError(
            f"The data was not tokenized with {path}, so its ids mean other tokens there. Run `ochat data tokenize` again "
            f"with --tokenizer {folder}."
        )


def check_embeddings(model: PreTrainedModel, dataset: Dataset) -> None:
    """Raise ModelError where the data has token ids that the model has no embedding for."""
    n_embeddings = model.get_input_embeddings().weight.shape[0]
    if dataset.max_id >= n_embeddings:
        raise ModelError(
            f"The data's largest token id is {dataset.max_id}, but the model has {n_embeddings} embeddings. Give it the model "
            "type's tokens with `ochat model add-tokens`, and tokenize with that model's folder."
        )


def learned_tokens(dataset: Dataset, steps: list[Step]) -> int:
    """Tokens with a weight above 0, over all steps."""
    per_row = dataset.learned_tokens
    return sum(per_row[row] for step in steps for row in step.rows)


@torch.no_grad()
def heldout_nll(model: PreTrainedModel, options: Options, device: torch.device) -> dict[str, float]:
    """Mean nll of a learned token of the held-out rows, by class; empty where no rows are held out."""
    try:
        heldout = Dataset(options.data, "heldout")
    except DataError:
        return {}
    sums: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    classes = heldout.classes
    model.eval()
    for name in set(classes):
        rows = [number for number, of_class in enumerate(classes) if of_class == name]
        for numbers in pack(heldout.lengths, rows, options.pack_tokens or options.batch_tokens):
            batch = pack_batch(heldout, numbers).to(device)
            batch.weights.fill_(1.0)
            sums[name] += float(batch_loss_sum(model, batch))
            counts[name] += len(batch.labels)
    model.train()
    return {name: sums[name] / counts[name] for name in sorted(sums)}


def save_state(output: Path, optimizer: MasterAdamW, n_done: int) -> None:
    """Save what the next step needs; the older state goes when the new one is whole."""
    path = output / f"{STATE_PREFIX}{n_done:08}.safetensors"
    with new_file(path) as part:
        save_file(optimizer.state_dict(), part)
    for older in output.glob(f"{STATE_PREFIX}*"):
        if older != path:
            older.unlink()


def restore(output: Path, optimizer: MasterAdamW) -> int:
    """Load the newest saved state, if there is one; returns the number of steps that are done."""
    states = sorted(output.glob(f"{STATE_PREFIX}*.safetensors"))
    if not states:
        return 0
    optimizer.load_state_dict(load_file(states[-1]))
    return int(states[-1].stem.removeprefix(STATE_PREFIX))


def rewind_log(path: Path, n_done: int) -> None:
    """Drop the lines after the step that a run goes on from; they'll be written again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[:n_done]))
