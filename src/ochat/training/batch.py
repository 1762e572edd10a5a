"""Make the tensors of a forward: rows joined end to end, positions restarting at each, labels and weights one ahead."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ochat.data.dataset import Array, Dataset, Row


@dataclass(frozen=True)
class Batch:
    """One forward's rows. Only the L tokens whose successor is learned from reach the loss."""

    input_ids: torch.Tensor  # [1, T]
    position_ids: torch.Tensor  # [1, T], restarting
    row_lengths: list[int]  # sums to T
    cu_seqlens: torch.Tensor  # [S + 1] int32: where each row starts, and the last ends
    learned: torch.Tensor  # [L], indices into T
    labels: torch.Tensor  # [L]
    weights: torch.Tensor  # [L], float32: bfloat16 would make 0.1 into 0.1001
    classes: torch.Tensor  # [L], the number of the row's class

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                values[name] = value.to(device)
        return Batch(**values)


def make_batch(rows: Sequence[Row], classes: Sequence[int] | None = None, *, per_sequence: bool = False) -> Batch:
    """Join rows of (input_ids, run_lengths, run_weights), of the classes with these numbers.

    A row's first token is predicted by nothing, its last predicts none. With `per_sequence` each row's weights are divided by
    the number of its learned tokens, so that a long answer counts as much as a short one."""
    next_weights = []
    for _, run_lengths, run_weights in rows:
        weights = np.append(np.repeat(np.asarray(run_weights, np.float32), run_lengths)[1:], np.float32(0))
        next_weights.append(weights / max(1, np.count_nonzero(weights)) if per_sequence else weights)
    lengths = [len(weights) for weights in next_weights]
    ids = np.concatenate([np.asarray(row[0], np.int64) for row in rows])
    of_token = np.concatenate(next_weights).astype(np.float32)
    learned = np.flatnonzero(of_token)
    row_of_token = np.repeat(np.arange(len(rows)), lengths)
    class_of_row = np.zeros(len(rows), np.int64) if classes is None else np.asarray(classes, np.int64)
    return Batch(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        row_lengths=lengths,
        cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32)),
        learned=torch.from_numpy(learned),
        labels=torch.from_numpy(ids[learned + 1]),  # a row's last token is never learned's
        weights=torch.from_numpy(of_token[learned]),
        classes=torch.from_numpy(class_of_row[row_of_token[learned]]),
    )


def dataset_batch(dataset: Dataset, numbers: Array, *, per_sequence: bool = False) -> Batch:
    """The batch of rows by their numbers; of none, one token of which nothing is learned: a rank's part where others have more
    to do."""
    if len(numbers) == 0:
        return make_batch([(np.zeros(1, np.int32), np.ones(1, np.int32), np.zeros(1, np.float32))])
    return make_batch(
        [dataset.row(n) for n in numbers.tolist()], dataset.class_codes[numbers].tolist(), per_sequence=per_sequence
    )
