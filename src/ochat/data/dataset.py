"""The data-set folder: what tokenizing writes and training reads.

A row is its token ids and, for each run of equal weight, a length and a weight; positions, labels and a weight for each token
are derived when a pack is made. Storage is 3 to 4 times smaller than with a value for each token."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ochat.errors import DataError
from ochat.files import new_file

Array = npt.NDArray[Any]
Row = tuple[Array, Array, Array]  # input_ids [n], run_lengths [runs], run_weights [runs]

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
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class TokenRow:
    """One conversation: input_ids [n], and runs whose lengths sum to n."""

    input_ids: list[int]
    run_lengths: list[int]
    run_weights: list[float]
    class_name: str
    prompt_hash: bytes

    @cached_property
    def weight_sum(self) -> float:
        """Sum of the weights of the tokens that are predicted: all but the first."""
        total = sum(length * weight for length, weight in zip(self.run_lengths, self.run_weights, strict=True))
        return total - self.run_weights[0]


class ShardWriter:
    """Writes one shard of a split, `SPLIT-00000.parquet`, when its block ends without an error; no file for no rows."""

    def __init__(self, folder: Path, split: str, number: int = 0) -> None:
        self._path = folder / f"{split}-{number:05}.parquet"
        self._rows: list[TokenRow] = []
        self._batches: list[pa.RecordBatch] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            return
        self._to_arrow()
        if not self._batches:
            return
        with new_file(self._path) as part:
            # Ids stand plain: zstd finds the words that come again (docs/decisions/0006).
            pq.write_table(
                pa.Table.from_batches(self._batches, SCHEMA),
                part,
                compression="zstd",
                compression_level=6,
                data_page_size=8 * 2**20,
                use_dictionary=["class"],
            )

    def add(self, row: TokenRow) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) == _ROWS_AT_ONCE:
            self._to_arrow()

    def _to_arrow(self) -> None:
        """The rows in an eighth of the memory that lists take."""
        if not self._rows:
            return
        arrays = [
            [row.input_ids for row in self._rows],
            [row.run_lengths for row in self._rows],
            [row.run_weights for row in self._rows],
            [len(row.input_ids) for row in self._rows],
            [row.weight_sum for row in self._rows],
            [row.class_name for row in self._rows],
            [row.prompt_hash for row in self._rows],
        ]
        columns = [pa.array(values, field.type) for values, field in zip(arrays, SCHEMA, strict=True)]
        self._batches.append(pa.record_batch(columns, SCHEMA))
        self._rows = []


def release_unused() -> None:
    """Give back the memory that writing a shard took, most of which Arrow would keep."""
    pa.default_memory_pool().release_unused()


class Dataset:
    """One split of a data-set folder, in memory. Rows are numbered in the order of the files."""

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.meta = read_meta(folder)
        shards = sorted(folder.glob(f"{split}-*.parquet"))
        if not shards:
            option = " --heldout" if split == "heldout" else ""
            raise DataError(f"{folder} has no {split} rows. Make it with `ochat data tokenize{option}`.")
        try:
            table = pa.concat_tables(pq.read_table(shard, schema=SCHEMA) for shard in shards)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{folder}: a shard can't be read ({error}). Run `ochat data tokenize` again.") from error
        expected = self.meta.get(f"{split}_rows", len(table))
        if len(table) != expected:
            raise DataError(f"{folder} has {len(table):,} {split} rows, and its {META_FILE} says {expected:,}. Make it again.")
        # A column is some chunks, since one holds at most 2^31 ids; a row is a slice of its chunk's values.
        self._ids, self._run_lengths, self._run_weights = (
            [_values_and_offsets(chunk) for chunk in table[name].chunks] for name in ("input_ids", "run_lengths", "run_weights")
        )
        self._chunk_starts = np.cumsum([0, *(len(chunk) for chunk in table["input_ids"].chunks)])
        self.lengths: Array = table["length"].to_numpy().astype(np.int64)
        """tokens of each row"""
        self.weight_sums: Array = table["weight_sum"].to_numpy().astype(np.float64)
        """of each row, over the tokens that are predicted: all but the first"""
        self.learned_tokens: Array = np.concatenate(
            [_learned_tokens(*of_chunk) for of_chunk in zip(self._run_lengths, self._run_weights, strict=True)]
        )
        """tokens with a weight above 0 that are predicted, of each row"""
        encoded = table["class"].combine_chunks().dictionary_encode()
        names: list[str] = encoded.dictionary.to_pylist()
        self.class_names = sorted(names)
        """the classes that the split has, in alphabetical order"""
        places = np.array([self.class_names.index(name) for name in names])
        self.class_codes: Array = places[encoded.indices.to_numpy()]
        """the place of each row's class in `class_names`"""

    @property
    def max_id(self) -> int:
        """The largest token id in any row."""
        return max(int(values.max()) for values, _ in self._ids)

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, number: int) -> Row:
        """input_ids [n] int32, run_lengths [runs] int32, run_weights [runs] float32 of one row."""
        chunk = int(np.searchsorted(self._chunk_starts, number, side="right")) - 1
        at = number - int(self._chunk_starts[chunk])
        columns = (self._ids, self._run_lengths, self._run_weights)
        ids, lengths, weights = (values[offsets[at] : offsets[at + 1]] for values, offsets in (c[chunk] for c in columns))
        return ids, lengths, weights


def _values_and_offsets(chunk: pa.ListArray) -> tuple[Array, Array]:
    """The values of all lists of a chunk [all], and where each list starts and the last ends [lists + 1]."""
    return chunk.values.to_numpy(), chunk.offsets.to_numpy()


def _learned_tokens(lengths: tuple[Array, Array], weights: tuple[Array, Array]) -> Array:
    """For each row of a chunk the number of its tokens with a weight, but for the first token, which nothing predicts."""
    starts = lengths[1][:-1]
    learned = np.where(weights[0] > 0, lengths[0], 0)
    return np.add.reduceat(learned, starts).astype(np.int64) - (weights[0][starts] > 0)


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
