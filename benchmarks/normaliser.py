"""What dividing each step by its own sum of weights does to the classes' shares of the loss: a simulation.

No model is needed: with every token's loss alike, a class's share of Σ w·nll is its share of the weights. 5 % of the rows are an
expert's (weight 1), the others sub-optimal (weight 0.1), and steps are drawn at random. Printed is the expert's share of the
mean step's loss under both normalisers; the data's own share is what it should be."""

import argparse
import json

import numpy as np

EXPERT_ROWS, WEIGHTS = 0.05, (1.0, 0.1)
N_DRAWS = 4_000_000  # rows in all, whatever the size of a step


def shares(rows_a_step: int, lengths: str, seed: int) -> tuple[float, float]:
    """The expert's share of the loss, averaged over steps: each divided by its own sum of weights, and by the mean of the sums."""
    random = np.random.default_rng(seed)
    shape = (N_DRAWS // rows_a_step, rows_a_step)
    expert = random.random(shape) < EXPERT_ROWS
    tokens = random.lognormal(0.0, 0.9, shape) if lengths == "lognormal" else np.ones(shape)
    of_row = tokens * np.where(expert, *WEIGHTS)
    of_step = of_row.sum(axis=1)
    of_expert = (of_row * expert).sum(axis=1)
    by_step = float((of_expert / of_step).mean())
    by_run = float((of_expert / of_step.mean()).mean())
    return by_step, by_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    true_share = EXPERT_ROWS * WEIGHTS[0] / (EXPERT_ROWS * WEIGHTS[0] + (1 - EXPERT_ROWS) * WEIGHTS[1])
    rows = []
    for lengths in ("equal", "lognormal"):
        for rows_a_step in (8, 32, 128):
            by_step, by_run = shares(rows_a_step, lengths, options.seed)
            rows.append({"lengths": lengths, "rows_a_step": rows_a_step, "by_step": by_step, "by_run": by_run})
    if options.json:
        print(json.dumps({"true_share": true_share, "rows": rows}))
        return
    print(f"the expert's share of the data's weights: {true_share:.3f}\n")
    print("lengths     rows a step   each step by its own Σw   every step by the mean Σw")
    for row in rows:
        print(f"{row['lengths']:<11} {row['rows_a_step']:>11}   {row['by_step']:>23.3f}   {row['by_run']:>25.3f}")


if __name__ == "__main__":
    main()
