"""Rows set down on disk, for steps that must have seen all rows before they can say which to keep.

Memory holds 8 bytes a row. The file goes with the process, however it ends."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ochat.conversation import Conversation


class Spool:
    """A list of `(place, conversation)` on disk: first filled, then read."""

    def __init__(self, folder: Path) -> None:
        self._file = TemporaryFile(dir=folder, buffering=1 << 20)  # noqa: SIM115 - closed by __exit__
        self._starts: list[NDArray[np.int64]] = []
        self._end = 0
        self._offsets: NDArray[np.int64] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def extend(self, batch: list[tuple[str, Conversation]]) -> None:
        """Set rows down."""
        starts = []
        for place, row in batch:
            line = (
                json.dumps(place).encode() + b"\0" + row.model_dump_json(by_alias=True, exclude_defaults=True).encode() + b"\n"
            )
            starts.append(self._end)
            self._end += len(line)
            self._file.write(line)
        self._starts.append(np.array(starts, np.int64))

    @staticmethod
    def _parse(line: bytes) -> tuple[str, Conversation]:
        place, _, row = line.partition(b"\0")
        return json.loads(place), Conversation.model_validate_json(row)

    def __getitem__(self, number: int) -> tuple[str, Conversation]:
        if self._offsets is None:
            self._file.flush()
            self._offsets = np.concatenate([*self._starts, [self._end]])
            self._starts.clear()
        start, end = self._offsets[number : number + 2].tolist()
        return self._parse(os.pread(self._file.fileno(), end - start, start))  # leaves an iteration where it is

    def __iter__(self) -> Iterator[tuple[str, Conversation]]:
        self._file.seek(0)
        return map(self._parse, self._file)
