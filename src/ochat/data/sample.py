"""Draw a part of a file of rows by their prompts: the same rows whatever their order, and all answers of a prompt or none."""

import hashlib
import os
from array import array
from pathlib import Path

import numpy as np

from ochat.conversation import Conversation
from ochat.data.blocks import prompt_hash


def sample_key(row: Conversation) -> int:
    """A random number of the row's prompt. It's hashed once more, since the hash itself decides on held-out prompts: a sample holds as
    many of them as the rest."""
    return int.from_bytes(hashlib.blake2b(prompt_hash(row), digest_size=8).digest(), "little")


def keep_sample(path: Path, keys: "array[int]", n_kept: int) -> None:
    """Leave the file those lines, in their order, whose keys are least; `keys` has one a line. The last prompt may lose
    answers."""
    kept = np.zeros(len(keys), bool)
    kept[np.argsort(np.frombuffer(keys, np.uint64), kind="stable")[:n_kept]] = True
    sample = path.with_name(f"{path.name}.sample")
    try:
        with path.open("rb") as lines, sample.open("wb") as out:
            out.writelines(line for line, is_kept in zip(lines, kept, strict=True) if is_kept)
        os.replace(sample, path)
    finally:
        sample.unlink(missing_ok=True)
