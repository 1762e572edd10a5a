"""A line of numbers for each row: what it brings to the loss, and how long it is. All that the report tells of weights and lengths
is counted from this table, whether it comes of conversations or of a data-set folder.

The numbers are those that training works with: a row is cut to the most tokens. Its first token, which nothing predicts, is a mark and
weighs nothing.
A row costs 52 bytes of memory, whatever its text."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ochat.conversation import NO_CONDITION, Conversation
from ochat.data.blocks import class_of, prompt_hash, tokenized
from ochat.data.clean.tally import Rows
from ochat.data.clean.turns import effective_weight
from ochat.data.dataset import read_meta
from ochat.errors import DataError
from ochat.template import ConversationTemplate

Array = npt.NDArray[Any]

MAX_WEIGHTS = 1000  # different weights of a class that are counted apart
_COLUMNS = ("run_lengths", "run_weights", "length", "class", "prompt_hash")
_KINDS = {
    "classes": np.int32,
    "uncut": np.int64,
    "lengths": np.int32,
    "learned": np.int32,
    "replies": np.int32,
    "weight_sums": np.float64,
    "square_sums": np.float64,
    "n_replies": np.int32,
    "prompts": np.uint64,
}


class MessageWeights(NamedTuple):
    """The weights of a class's messages that are learned."""

    tokens: int
    sum: float  # over these tokens
    by_weight: Counter[float]  # messages


@dataclass(frozen=True)
class RowTable:
    """Numbers of n rows."""

    class_names: list[str]  # C
    conditions: dict[str, list[str]]  # of each class
    message_weights: dict[str, MessageWeights]
    classes: Array  # [n], the number of the row's class
    uncut: Array  # [n], tokens before cutting
    lengths: Array  # [n], tokens
    learned: Array  # [n], tokens that are predicted and have a weight above 0
    replies: Array  # [n], tokens of replies, whatever their weight; of a data-set folder, the learned ones
    weight_sums: Array  # [n], over the learned tokens
    square_sums: Array  # [n], of the squared weights
    n_replies: Array  # [n]
    prompts: Array  # [n], a hash of the first message and system prompt

    def __len__(self) -> int:
        return len(self.classes)

    def sums(self, values: Array) -> Array:
        """Sums by class of one value a row, [n] -> [C]."""
        return np.bincount(self.classes, values, len(self.class_names))


class Runs(NamedTuple):
    """Consecutive tokens of one weight, of some rows one after the other: [R] each, and where each row starts [n]."""

    lengths: Array
    weights: Array
    are_replies: Array
    starts: Array


class TableMaker:
    """Makes a table as batches of rows are added."""

    def __init__(self, max_tokens: int | None = None) -> None:
        self._max_tokens = max_tokens or np.iinfo(np.int64).max
        self._parts: dict[str, list[Array]] = {name: [] for name in _KINDS}
        self._names: dict[str, int] = {}
        self._conditions: dict[str, list[str]] = {}
        self._weights: dict[int, MessageWeights] = {}

    def class_number(self, name: str) -> int:
        """The number of the class, a new one for a new name."""
        return self._names.setdefault(name, len(self._names))

    def add_condition(self, class_name: str, condition: str) -> None:
        """Note that the class has rows of the condition."""
        known = self._conditions.setdefault(class_name, [])
        if condition not in known and len(known) < MAX_WEIGHTS:
            known.append(condition)

    def add(self, classes: Array, prompts: Array, runs: Runs, *, per_message: bool = False) -> None:
        """Add rows: their classes' numbers, their prompts' hashes, their runs. With `per_message` each message's weight has been
        divided by its tokens."""
        starts, weights = runs.starts, runs.weights.astype(np.float32).astype(np.float64)  # as they are stored
        ends = np.cumsum(runs.lengths)
        n_runs = np.diff(starts, append=len(ends))
        before = np.repeat((ends - runs.lengths)[starts], n_runs)
        kept = np.diff(np.minimum(ends - before, self._max_tokens), prepend=0)
        kept[starts] = np.minimum(runs.lengths[starts], self._max_tokens)
        learns = weights > 0

        def sums(values: Array) -> Array:
            return np.add.reduceat(values, starts)

        values = {
            "classes": classes,
            "uncut": sums(runs.lengths),
            "lengths": sums(kept),
            "learned": sums(kept * learns),
            "replies": sums(kept * runs.are_replies),
            "weight_sums": sums(kept * weights),
            "square_sums": sums(kept * weights**2),
            "n_replies": sums(runs.are_replies.astype(np.int64)),
            "prompts": prompts,
        }
        for name, kind in _KINDS.items():
            self._parts[name].append(np.asarray(values[name]).astype(kind))
        of_messages = (runs.weights * np.where(per_message, runs.lengths, 1)).astype(np.float32)
        learned = learns & (kept > 0)
        self._add_weights(np.repeat(classes, n_runs)[learned], of_messages[learned], kept[learned])

    def _add_weights(self, classes: Array, weights: Array, tokens: Array) -> None:
        for number in np.unique(classes).tolist():
            mine = classes == number
            found, counts = np.unique(weights[mine], return_counts=True)
            n_tokens, total, by_weight = self._weights.get(number, MessageWeights(0, 0.0, Counter()))
            for weight, count in zip(found.tolist(), counts.tolist(), strict=True):
                rounded = float(f"{weight:.6g}")  # 0.1, not float32's 0.10000000149
                if rounded in by_weight or len(by_weight) < MAX_WEIGHTS:
                    by_weight[rounded] += count
            n_tokens, total = n_tokens + int(tokens[mine].sum()), total + float(weights[mine].astype(np.float64) @ tokens[mine])
            self._weights[number] = MessageWeights(n_tokens, total, by_weight)

    def table(self) -> RowTable:
        """The table of all rows that were added."""
        columns = {
            name: np.concatenate(self._parts[name]) if self._parts[name] else np.zeros(0, kind) for name, kind in _KINDS.items()
        }
        names = list(self._names)
        weights = {names[number]: of_class for number, of_class in self._weights.items()}
        return RowTable(names, self._conditions, weights, **columns)


# The lengths, weights and roles of each row's runs, one row after the other.
Measure = Callable[[Sequence[tuple[str, Conversation]]], Iterator[list[tuple[int, float, bool]]]]


def in_tokens(template: ConversationTemplate) -> Measure:
    """Runs of tokens, as `ochat data tokenize` makes them. Raises DataError at the row that the template refuses."""

    def measure(batch: Sequence[tuple[str, Conversation]]) -> Iterator[list[tuple[int, float, bool]]]:
        for row, runs in tokenized(batch, template):
            is_reply = [False] * (len(runs) - 2 * len(row.items))  # a first token, a system prompt
            for item in row.items:
                is_reply += [False, item.role == "assistant"]  # its mark, its text
            yield [(len(run.ids), run.weight, reply) for run, reply in zip(runs, is_reply, strict=True)]

    return measure


def in_letters(batch: Sequence[tuple[str, Conversation]]) -> Iterator[list[tuple[int, float, bool]]]:
    """Runs of letters, the end of a turn counted as one: a guess at tokens where there is no tokenizer."""
    for _, row in batch:
        yield [
            (len(row.system), 0.0, False),
            *((len(item.content) + 1, effective_weight(item), item.role == "assistant") for item in row.items),
        ]


def add_rows(maker: TableMaker, batch: Sequence[tuple[str, Conversation]], measure: Measure) -> None:
    """Add conversations to a table."""
    starts: list[int] = []
    flat: list[tuple[int, float, bool]] = []
    for runs in measure(batch):
        starts.append(len(flat))
        flat += runs
    for _, row in batch:
        maker.add_condition(class_of(row), row.condition)
    lengths, weights, are_replies = (np.array(column) for column in zip(*flat, strict=True))
    hashes = b"".join(prompt_hash(row)[:8] for _, row in batch)
    maker.add(
        np.array([maker.class_number(class_of(row)) for _, row in batch]),
        np.frombuffer(hashes, "<u8"),
        Runs(lengths, weights, are_replies, np.array(starts)),
    )


def measured(rows: Rows, maker: TableMaker, measure: Measure, rows_at_once: int) -> Iterator[list[tuple[str, Conversation]]]:
    """Batches of the rows, each added to the table before it's passed on."""
    batch: list[tuple[str, Conversation]] = []
    for place_and_row in rows:
        batch.append(place_and_row)
        if len(batch) == rows_at_once:
            add_rows(maker, batch, measure)
            yield batch
            batch = []
    if batch:
        add_rows(maker, batch, measure)
        yield batch


def of_dataset(folder: Path) -> RowTable:
    """The table of a data-set folder's rows to train on; their ids aren't read."""
    meta = read_meta(folder)
    maker = TableMaker()
    for shard in sorted(folder.glob("train-*.parquet")):
        try:
            for batch in pq.ParquetFile(shard).iter_batches(columns=list(_COLUMNS)):
                _add_stored(maker, batch, per_message=meta.get("per_message_loss", False))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{folder}: a shard can't be read ({error}). Run `ochat data tokenize` again.") from error
    for name, conditions in meta.get("class_conditions", {}).items():
        for condition in conditions:
            maker.add_condition(name, "" if condition == NO_CONDITION else condition)
    table = maker.table()
    if len(table) != meta["train_rows"]:
        raise DataError(f"{folder} has {len(table):,} rows, and its meta.json says {meta['train_rows']:,}. Make it again.")
    return table


def _add_stored(maker: TableMaker, batch: pa.RecordBatch, *, per_message: bool) -> None:
    """Add rows as a data-set folder has them. What isn't learned isn't told from a prompt there, so only learned runs count as
    replies."""
    lengths, weights = (batch[name].flatten().to_numpy() for name in ("run_lengths", "run_weights"))
    n_runs = batch["run_lengths"].value_lengths().to_numpy()
    encoded = batch["class"].dictionary_encode()
    numbers = np.array([maker.class_number(name) for name in encoded.dictionary.to_pylist()])
    hashes = b"".join(hash[:8] for hash in batch["prompt_hash"].to_pylist())
    runs = Runs(lengths.astype(np.int64), weights, weights > 0, np.cumsum(n_runs) - n_runs)
    maker.add(numbers[encoded.indices.to_numpy()], np.frombuffer(hashes, "<u8"), runs, per_message=per_message)
