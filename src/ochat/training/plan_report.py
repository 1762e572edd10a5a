"""What a plan says before it runs: its steps as JSON, how full they are, what a normaliser does to the classes' shares."""

import json
from collections.abc import Iterator

import numpy as np

from ochat.data.dataset import Array, Dataset
from ochat.data.packing import Plan, assign_ranks
from ochat.training.config import Options
from ochat.training.objective import weight_sums


def packs_with_ranks(plan: Plan, step: int, row_costs: Array, n_ranks: int) -> list[tuple[Array, int]]:
    """The packs of a step, 0 … S - 1, as row numbers, each with the rank that takes it."""
    packs = plan.packs(step)
    of_rank = assign_ranks([float(row_costs[rows].sum()) for rows in packs], n_ranks)
    return list(zip(packs, of_rank.tolist(), strict=True))


def plan_lines(plan: Plan, row_costs: Array, n_ranks: int) -> Iterator[str]:
    """Yield each step as JSON: {"step", "packs": [{"rows", "rank"}, …]}, rows by their number in the data set, from 0."""
    for step in range(len(plan)):
        told = [{"rows": rows.tolist(), "rank": rank} for rows, rank in packs_with_ranks(plan, step, row_costs, n_ranks)]
        yield json.dumps({"step": step + 1, "packs": told}) + "\n"


def plan_summary(options: Options, dataset: Dataset, plan: Plan) -> str:
    """Steps, rows and tokens, and how full the packs are."""
    n_packs, n_tokens = len(plan.pack_starts) - 1, int(plan.sums(dataset.lengths).sum())
    slots = len(plan) * options.batch_tokens
    per_step = plan.sums(np.ones(len(dataset)))
    return (
        f"{len(plan):,} steps of at most {options.batch_tokens:,} tokens, {options.batch_tokens // options.tokens_per_pack:,} x "
        f"{options.tokens_per_pack:,}; "
        f"{len(dataset):,} rows x {options.epochs:,} epochs, {n_tokens:,} tokens in {n_packs:,} packs, {n_tokens / slots:.1%} of the "
        f"room; {per_step.mean():,.1f} rows a step"
    )


def normaliser_bias(options: Options, dataset: Dataset, plan: Plan) -> str:
    """What dividing each step by its own weight sum does to the classes' shares of the weight."""
    sums = weight_sums(dataset, per_sequence=options.per_sequence_loss)
    of_step = plan.sums(sums)
    lines = ["--normalise step changes the classes' shares of the weight, since a step of cheap rows counts as much as any:"]
    for number, name in enumerate(dataset.class_names):
        of_class = plan.sums(np.where(dataset.class_codes == number, sums, 0.0))
        data_share, step_share = of_class.sum() / of_step.sum(), (of_class / of_step).mean()
        lines.append(f"  {name or '(none)'}: {step_share:.3f} instead of the data's {data_share:.3f}")
    return "\n".join(lines)
