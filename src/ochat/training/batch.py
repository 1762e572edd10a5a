"""Make the tensors of a pack: tokens joined end to end, positions restarting at each row, labels and weights one ahead."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ochat.data.dataset import Dataset


@dataclass(frozen=True)
class Batch:
    """One forward's rows. Only the L tokens whose successor is learned from reach the loss."""

    input_ids: torch.Tensor  # [1, T]
    position_ids: torch.Tensor  # [1, T], restarting
    row_lengths: list[int]  # sums to T
    learned: torch.Tensor  # [L], indices into T
    labels: torch.Tensor  # [L]
    weights: torch.Tensor  # [L], float32: bfloat16 would make 0.1 into 0.1001

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        tensors = {
            name: getattr(self, name).to(device) for name in ("input_ids", "position_ids", "learned", "labels", "weights")
        }
        return replace(self, **tensors)


def make_batch(rows: Sequence[tuple[list[int], list[int], list[float]]]) -> Batch:
    """Join rows of (input_ids, run_lengths, run_weights). A row's first token is predicted by nothing, its last predicts none."""
    ids = [torch.tensor(input_ids) for input_ids, _, _ in rows]
    weights = [torch.repeat_interleave(torch.tensor(w), torch.tensor(n)) for _, n, w in rows]
    none = torch.zeros(1)
    next_ids = torch.cat([torch.cat([row[1:], none.long()]) for row in ids])
    next_weights = torch.cat([torch.cat([row[1:], none]) for row in weights])
    (learned,) = torch.nonzero(next_weights, as_tuple=True)
    return Batch(
        input_ids=torch.cat(ids)[None],
        position_ids=torch.cat([torch.arange(len(row)) for row in ids])[None],
        row_lengths=[len(row) for row in ids],
        learned=learned,
        labels=next_ids[learned],
        weights=next_weights[learned],
    )


def pack_batch(dataset: Dataset, pack: Sequence[int]) -> Batch:
    """The batch of a pack of row numbers."""
    return make_batch([dataset.row(number) for number in pack])
