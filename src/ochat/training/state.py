"""A run's saved state: a folder for a step, written aside and renamed, from which the run goes on with any number of ranks.

Each rank writes what it holds: the whole state where every rank has it all (rank 0 alone writes then), its slice along the
first axis where the weights are sharded. Two states are kept, so that a torn one costs some minutes and not the run."""

import errno
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from ochat.errors import ModelError
from ochat.training.optimizer import MasterAdamW
from ochat.training.ranks import Ranks
from ochat.training.run_folder import n_done, states

Pieces = dict[str, list[Any]]  # the open files that hold a tensor's slices: safetensors gives them no types


def save_state(folder: Path, step: int, optimizer: MasterAdamW, ranks: Ranks) -> None:
    """Write the state after `step` steps to FOLDER/state-STEP and drop the states before the last two.

    Raises ModelError where it can't be written; older states stay."""
    part, target = folder / f".state-{step:08}.part", folder / f"state-{step:08}"
    if ranks.is_first:
        for old in states(folder)[1:]:
            shutil.rmtree(old)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    ranks.wait()
    tensors = {
        key: (value.to_local() if isinstance(value, DTensor) else value).contiguous().cpu()
        for key, value in optimizer.state_dict().items()
        if ranks.is_first or isinstance(value, DTensor)
    }
    failure = ""
    if tensors:
        try:
            file = part / f"rank-{ranks.rank:05}.safetensors"
            save_file(tensors, file, {"crc32": str(checksum(tensors.__getitem__, tensors))})
            _to_disk(file)
        except (OSError, SafetensorError) as error:
            failure = str(error)
    if not ranks.all_true(not failure):
        if ranks.is_first:
            shutil.rmtree(part, ignore_errors=True)
        size = sum(value.nbytes for value in tensors.values()) / 1e9
        raise ModelError(
            f"{folder}: the state after step {step} can't be written ({failure or 'by another rank'}); it takes {size:.1f} GB a "
            "rank. Make room and repeat the command: it goes on from the state before."
        )
    if ranks.is_first:
        part.rename(target)
        _to_disk(folder)
    ranks.wait()


def restore(folder: Path, optimizer: MasterAdamW, say: Callable[[str], None]) -> int:
    """Load the newest whole state, if there is one; returns the number of steps that are done. Torn ones are left for the caller
    to remove, when all ranks are done with them."""
    torn: list[Path] = []
    for path in states(folder):
        try:
            with ExitStack() as stack:
                files = [
                    stack.enter_context(safe_open(file, framework="pt")) for file in sorted(path.glob("rank-*.safetensors"))
                ]
                pieces: Pieces = {}
                for file in files:
                    for key in file.keys():  # noqa: SIM118 (the file itself can't be iterated over)
                        pieces.setdefault(key, []).append(file)
                _check(pieces, optimizer)
                for file in files:
                    if (file.metadata() or {}).get("crc32") != str(checksum(file.get_tensor, file.keys())):
                        raise ValueError("its checksum is another")

                def read(key: str, pieces: Pieces = pieces) -> torch.Tensor:
                    parts = [file.get_tensor(key) for file in pieces[key]]
                    return torch.cat(parts) if len(parts) > 1 else parts[0]

                optimizer.load(pieces, read)
            return n_done(path)
        except (SafetensorError, ValueError, OSError, RuntimeError) as error:
            torn.append(path)
            say(f"{path} isn't whole ({error}); going back to what was before it.")
    if torn:
        raise ModelError(f"No state in {folder} is whole. Remove {folder} to start the run anew.")
    return 0


def _check(pieces: Pieces, optimizer: MasterAdamW) -> None:
    """Raise ValueError where a tensor is missing or has another shape than the run's, before anything is loaded."""
    missing = {f"{kind}:{name}" for name in optimizer.masters for kind in ("master", "step")} - set(pieces)
    if missing:
        raise ValueError(f"it lacks {len(missing)} tensors, {min(missing)} the first")
    for name, master in optimizer.masters.items():
        shapes = [file.get_slice(f"master:{name}").get_shape() for file in pieces[f"master:{name}"]]
        rows = sum(shape[0] for shape in shapes) if shapes[0] else 0
        if [rows, *shapes[0][1:]][: master.dim()] != list(master.shape):
            raise ValueError(f"{name} has another shape than the model's, {list(master.shape)}")


def checksum(read: Callable[[str], torch.Tensor], keys: Iterable[str]) -> int:
    """CRC-32 of tensors, in the order of their names: a file of the right length may still be torn."""
    crc = 0
    for key in sorted(keys):
        crc = zlib.crc32(read(key).reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _to_disk(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk: a rename may be there before it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't
            raise
    finally:
        os.close(handle)
