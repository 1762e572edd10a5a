"""Saved states: the newest whole one counts, and nothing that goes wrong costs an older one."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ochat.errors import ModelError
from ochat.training import state
from ochat.training.optimizer import MasterAdamW
from ochat.training.ranks import Ranks
from ochat.training.run_folder import remove_states
from ochat.training.state import checksum, restore, save_state

ALONE = Ranks(0, 1, torch.device("cpu"))


def trained(n_steps: int, *, width: int = 4) -> MasterAdamW:
    """An optimizer of two weights after so many steps, each of a gradient of its own."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, 3).to(torch.bfloat16)
    optimizer = MasterAdamW(layer.named_parameters())
    for step in range(n_steps):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, float(step + 1))
        optimizer.add_gradients()
        optimizer.gradient_norm()
        optimizer.step(1e-2)
    return optimizer


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_restored_optimizer_goes_on_to_the_bit(tmp_path: Path) -> None:
    save_state(tmp_path, 3, trained(3), ALONE)
    other = trained(0)
    assert restore(tmp_path, other, print) == 3
    expected = trained(3)
    for optimizer in (other, expected):
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.add_gradients()
        optimizer.gradient_norm()
        optimizer.step(1e-2)
    for name, master in expected.masters.items():
        assert torch.equal(master, other.masters[name])
        assert torch.equal(expected.parameters[name], other.parameters[name])


def test_two_states_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, step, trained(step), ALONE)
    assert states(tmp_path) == ["state-00000002", "state-00000003"]
    remove_states(tmp_path)
    assert states(tmp_path) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_bytes(b"\0" * 300)


def blank(path: Path) -> None:
    """Of the right length, with its end never written."""
    content = path.read_bytes()
    path.write_bytes(content[:-60] + b"\0" * 60)


@pytest.mark.parametrize("tear", [cut, lose, garble, blank])
def test_a_torn_state_falls_back_on_the_one_before(tmp_path: Path, tear: Callable[[Path], None]) -> None:
    for step in (1, 2):
        save_state(tmp_path, step, trained(step), ALONE)
    tear(tmp_path / "state-00000002" / "rank-00000.safetensors")
    told: list[str] = []
    other = trained(0)
    assert restore(tmp_path, other, told.append) == 1
    assert "state-00000002 isn't whole" in told[0]
    assert all(torch.equal(master, other.masters[name]) for name, master in trained(1).masters.items())
    remove_states(tmp_path, after=1)  # as the run does, so that the next save doesn't keep the torn one and drop this
    assert states(tmp_path) == ["state-00000001"]


def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state-backup").mkdir()
    for step in (1, 2, 3):
        save_state(tmp_path, step, trained(step), ALONE)
    assert restore(tmp_path, trained(0), print) == 3
    remove_states(tmp_path)
    assert states(tmp_path) == ["state-backup"]


def test_where_no_state_is_whole_the_run_stops(tmp_path: Path) -> None:
    save_state(tmp_path, 1, trained(1), ALONE)
    cut(tmp_path / "state-00000001" / "rank-00000.safetensors")
    with pytest.raises(ModelError, match=r"No state in .* is whole"):
        restore(tmp_path, trained(0), lambda _: None)


def test_a_state_of_another_model_is_not_taken(tmp_path: Path) -> None:
    save_state(tmp_path, 1, trained(1, width=5), ALONE)
    told: list[str] = []
    with pytest.raises(ModelError):
        restore(tmp_path, trained(0), told.append)
    assert "weight has another shape" in told[0]


def test_a_full_disk_loses_no_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, 1, trained(1), ALONE)

    def full(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(ModelError, match=r"No space left.*Make room and repeat"):
        save_state(tmp_path, 2, trained(2), ALONE)
    assert states(tmp_path) == ["state-00000001"]
    assert restore(tmp_path, trained(0), print) == 1


def test_a_state_is_renamed_only_when_it_is_whole(tmp_path: Path) -> None:
    save_state(tmp_path, 7, trained(1), ALONE)
    (tmp_path / ".state-00000008.part").mkdir()  # killed while it wrote the next one
    (tmp_path / ".state-00000008.part" / "rank-00000.safetensors").write_bytes(b"half")
    assert restore(tmp_path, trained(0), print) == 7


def test_slices_of_several_ranks_are_joined(tmp_path: Path) -> None:
    """A state of two ranks, made by cutting a whole one along the first axis as FSDP2 does."""
    from safetensors.torch import save_file

    save_state(tmp_path, 4, trained(4), ALONE)
    path = tmp_path / "state-00000004" / "rank-00000.safetensors"
    whole = load_file(path)
    for rank in range(2):
        part = {key: value.chunk(2)[rank].contiguous() for key, value in whole.items() if value.dim()}
        part |= {key: value for key, value in whole.items() if not value.dim() and rank == 0}
        crc = {"crc32": str(checksum(part.__getitem__, part))}
        save_file(part, path.with_name(f"rank-{rank:05}.safetensors"), crc)
    other = trained(0)
    assert restore(tmp_path, other, print) == 4
    assert all(torch.equal(master, other.masters[name]) for name, master in trained(4).masters.items())
