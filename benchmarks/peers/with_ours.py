"""Our trainer for one optimizer step over all rows of a case, or a step for each row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gradients import run_cases

from ochat.data.dataset import META_FILE, Dataset, ShardWriter, TokenRow
from ochat.data.packing import Plan, plan
from ochat.training.config import Options
from ochat.training.ranks import join_ranks, leave_ranks
from ochat.training.trainer import Trainer


def run(case: dict[str, Any]) -> None:
    """One case."""
    rows = [json.loads(line) for line in Path(case["rows"]).read_text().splitlines()]
    ranks = join_ranks()

    folder = Path(case["rows"]).parent / f"data.{ranks.rank}"
    folder.mkdir(exist_ok=True)
    (folder / META_FILE).write_text(json.dumps({"model_type": "none", "tokenizer_sha256": "", "heldout_rows": 0}))
    with ShardWriter(folder, "train") as writer:
        for row in rows:
            weights = [row["weight"] if label != -100 else 0.0 for label in row["labels"]]
            writer.add(TokenRow(row["input_ids"], [1] * len(weights), weights, row["class"], bytes(16)))
    dataset = Dataset(folder)

    if case["packing"] == "block":
        step_tokens = case["accumulation"] * case["batch"] * case["ranks"] * case["max_tokens"]
        steps = plan(dataset.lengths, epochs=1, batch_tokens=step_tokens, pack_tokens=case["max_tokens"], seed=0)
        packs_per_forward = case["batch"]
    else:  # no user divides rows so by hand: the plan's packs are as many rows as the other trainers' forwards have
        a_pack = 1 if case["batch"] == len(rows) else case["batch"]
        packs_per_forward = case["batch"] // a_pack
        starts = np.append(np.arange(0, len(rows), a_pack), len(rows))
        n_packs = len(starts) - 1
        step_starts = np.arange(case["steps"] + 1) * n_packs // case["steps"]
        steps = Plan(np.arange(len(rows)), starts, step_starts, np.arange(case["steps"]) == case["steps"] - 1)
    options = Options(
        model=case["model"],
        data=folder,
        output=folder / "run",
        packs_per_forward=packs_per_forward,
        pack_tokens=case["max_tokens"],
        batch_tokens=case["max_tokens"] * 8,
        normalise=case["normalise"],
        weight_decay=0.0,
        max_grad_norm=0.0,
        dtype="float32",
    )
    trainer = Trainer(options, dataset, steps, ranks)
    for step in range(len(steps)):
        trainer.gradients(step)
        trainer.optimizer.gradient_norm()  # sums over the ranks
        trainer.optimizer.step(case["lr"])
    leave_ranks()


if __name__ == "__main__":
    run_cases(run)
