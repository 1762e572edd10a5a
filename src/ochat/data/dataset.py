"""The data-set folder: what tokenizing writes and training reads.

A row is its token ids and, for each run of equal weight, a length and a weight; positions, labels and a weight for each token
are derived when a pack is made. Storage is 3 to 4 times smaller than with a value for each token."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ochat.errors import DataError

SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "run_lengths": pa.list_(pa.int32()),
        "run_weights": pa.list_(pa.float32()),
        "length": pa.int32(),
        "weight_sum": pa.float32(),
        "class": pa.string(),
        "prompt_hash": pa.binary(16),
    }
)
META_FILE = "meta.json"
ROWS_PER_SHARD = 1_000_000


@dataclass(frozen=True)
class TokenRow:
    """One conversation: input_ids [n], and runs whose lengths sum to n."""

    input_ids: list[int]
    run_lengths: list[int]
    run_weights: list[float]
    class_name: str
    prompt_hash: bytes

    @property
    def weight_sum(self) -> float:
        """Sum of the weights of the tokens that are predicted: all but the first."""
        total = sum(length * weight for length, weight in zip(self.run_lengths, self.run_weights, strict=True))
        return total - self.run_weights[0]


class SplitWriter:
    """Writes one split's rows to `SPLIT-00000.parquet` and on, a batch at a time."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._shard = self._n_in_shard = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: list[TokenRow]) -> None:
        """Append a batch of rows; nothing for none."""
        if not rows:
            return
        if self._writer is None or self._n_in_shard >= ROWS_PER_SHARD:
            if self._writer is not None:
                self._writer.close()
            # Byte-stream split with zstd: a third smaller than a dictionary for ids.
            columns = {"input_ids.list.element": "BYTE_STREAM_SPLIT"}
            self._writer = pq.ParquetWriter(
                self._folder / f"{self._split}-{self._shard:05}.parquet",
                SCHEMA,
                compression="zstd",
                use_dictionary=["class"],
                column_encoding=columns,
            )
            self._shard, self._n_in_shard = self._shard + 1, 0
        arrays = [
            [row.input_ids for row in rows],
            [row.run_lengths for row in rows],
            [row.run_weights for row in rows],
            [len(row.input_ids) for row in rows],
            [row.weight_sum for row in rows],
            [row.class_name for row in rows],
            [row.prompt_hash for row in rows],
        ]
        self._writer.write_batch(
            pa.record_batch([pa.array(a, field.type) for a, field in zip(arrays, SCHEMA, strict=True)], SCHEMA)
        )
        self._n_in_shard += len(rows)


class Dataset:
    """One split of a data-set folder, in memory. Rows are numbered in the order of the files."""

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.meta = read_meta(folder)
        shards = sorted(folder.glob(f"{split}-*.parquet"))
        if not shards:
            raise DataError(f"{folder} has no {split} rows. Make it with `ochat data tokenize`.")
        try:
            self._table = pa.concat_tables(pq.read_table(shard, schema=SCHEMA) for shard in shards)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{folder}: a shard can't be read ({error}). Run `ochat data tokenize` again.") from error
        self.lengths: list[int] = self._table["length"].to_pylist()
        self.weight_sums: list[float] = self._table["weight_sum"].to_pylist()

    @property
    def classes(self) -> list[str]:
        """The class of each row."""
        names: list[str] = self._table["class"].to_pylist()
        return names

    @property
    def learned_tokens(self) -> list[int]:
        """The number of tokens with a weight above 0, of each row."""
        runs = zip(self._table["run_lengths"].to_pylist(), self._table["run_weights"].to_pylist(), strict=True)
        return [sum(n for n, weight in zip(*row, strict=True) if weight > 0) for row in runs]

    @property
    def max_id(self) -> int:
        """The largest token id in any row."""
        return int(pc.max(pc.list_flatten(self._table["input_ids"])).as_py())

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, number: int) -> tuple[list[int], list[int], list[float]]:
        """input_ids [n], run_lengths [runs], run_weights [runs] of one row."""
        return tuple(self._table[name][number].as_py() for name in ("input_ids", "run_lengths", "run_weights"))


def read_meta(folder: Path) -> dict[str, Any]:
    """The data set's meta.json; raises DataError where the folder is no data set."""
    path = folder / META_FILE
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if not {"model_type", "tokenizer_sha256", "heldout_rows"} <= set(meta):
            raise ValueError("it isn't of this command")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder} is no data set: {META_FILE} is missing or not whole. Make one with `ochat data tokenize`."
        ) from error
    return dict(meta)


def is_dataset(folder: Path) -> bool:
    """Whether the folder is a data set, which may be made anew."""
    try:
        read_meta(folder)
    except DataError:
        return False
    return True
