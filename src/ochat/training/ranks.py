"""The processes of a run, as torchrun and `accelerate launch` start them: one, or several that divide each step's packs."""

import os
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Ranks:
    """This process's place among them."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line, once."""
        if self.is_first:
            print(text, flush=True)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the ranks, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def all_true(self, claim: bool) -> bool:
        """Whether it holds on each."""
        return int(self.sum(torch.tensor(int(claim), device=self.device))) == self.count


def join_ranks() -> Ranks:
    """Find the others by the launcher's environment variables, RANK, WORLD_SIZE and LOCAL_RANK; alone without them."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(device)
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
    return Ranks(int(os.environ.get("RANK", "0")) if count > 1 else 0, count, device)


def leave_ranks() -> None:
    """Part from the others, at the run's end."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
