"""`ochat data export`: the way back, from conversations or a data set to what other trainers read.

Peers know a weight for a message, but no condition, and it isn't written into the text either: there it would be words of the user. What
a format can't hold is counted and told."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from ochat.conversation import Conversation, Message, read_conversations
from ochat.data.dataset import Dataset, is_dataset
from ochat.data.problem import counted
from ochat.errors import DataError, OchatError
from ochat.files import new_file

Format = Literal["openai", "llama-factory", "ms-swift", "ochat"]
# Of the original's pre-tokenized files (ochat 3.6.1, ochat/data/generate_dataset.py).
ORIGINAL_SCHEMA = pa.schema(
    {
        "total_length": pa.int32(),
        "num_seqs": pa.float32(),
        "seqlens": pa.list_(pa.int32()),
        "nz_input_ids": pa.list_(pa.int32()),
        "nz_position_ids": pa.list_(pa.int32()),
        "nz_shifted_label_ids": pa.list_(pa.int32()),
        "nz_shifted_loss_weights": pa.list_(pa.float32()),
    }
)
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Options:
    input: Annotated[Path, tyro.conf.Positional]
    """conversations, one JSON object a line (.gz too); for --format ochat a data-set folder"""
    output: Path
    """file to write: jsonl, or parquet for --format ochat"""
    format: Format = "openai"
    """openai: messages with a weight each; llama-factory: its loss_weight; ms-swift: its loss_scale; ochat: the original's parquet"""
    split: Literal["train", "heldout"] = "train"
    """with --format ochat: the split to write"""

    def __post_init__(self) -> None:
        if self.output.resolve() == self.input.resolve():
            raise OchatError(f"{self.output} is the input. Choose another --output.")


def main(options: Options) -> None:
    if options.format == "ochat":
        if not is_dataset(options.input):
            raise DataError(
                f"{options.input} is no data set, and the original's parquet is made of one. Make it with `ochat data tokenize`."
            )
        dataset = Dataset(options.input, options.split)
        metadata = {"metadata_json": json.dumps({"model_type": dataset.meta["model_type"]})}
        n_rows = 0
        with new_file(options.output) as part, pq.ParquetWriter(part, ORIGINAL_SCHEMA.with_metadata(metadata)) as writer:
            for start in range(0, len(dataset), _ROWS_AT_ONCE):
                rows = [original_row(*dataset.row(n)) for n in range(start, min(len(dataset), start + _ROWS_AT_ONCE))]
                writer.write_table(pa.Table.from_pylist(rows, ORIGINAL_SCHEMA))
                n_rows += len(rows)
        print(f"Wrote {options.output}: {counted(n_rows, 'row')} as the original's trainer reads them")
        return
    if options.input.is_dir():
        raise DataError(
            f"{options.input} is a folder. Give conversations, one JSON object a line; --format ochat takes a data set."
        )
    convert = _CONVERT[options.format]
    n_rows = n_conditions = n_classes = 0
    with new_file(options.output) as part, part.open("w", encoding="utf-8") as out:
        for _, row in read_conversations(options.input):
            n_rows += 1
            n_conditions += bool(row.condition)
            n_classes += bool(row.class_name)
            out.write(json.dumps(convert(row), ensure_ascii=False) + "\n")
        if not n_rows:
            raise DataError(f"{options.input}: no rows. Check the file.")
    print(f"Wrote {options.output}: {counted(n_rows, 'row')}")
    if options.format == "openai":
        return
    if n_conditions:
        print(
            f"{counted(n_conditions, 'of them has', 'of them have')} a condition, which {options.format} has no place for: its prompts will "
            "be without. A chat template that writes it is in every checkpoint of ochat."
        )
    if n_classes:
        print(f"{counted(n_classes, 'of them has', 'of them have')} a class, whose name isn't in it; its weight is.")


def messages_of(row: Conversation) -> Iterator[tuple[str, str, float]]:
    """Role, text and weight of each message, the system prompt first; a weight that is absent is an assistant's 1, others' 0."""
    if row.system:
        yield "system", row.system, 0.0
    for item in row.items:
        yield item.role, item.content, _weight(item)


def _weight(item: Message) -> float:
    return float(item.role == "assistant") if item.weight is None else item.weight


def to_openai(row: Conversation) -> dict[str, Any]:
    """OpenAI's and TRL's messages, each of the assistant with a weight; condition and class beside them, where our import reads them."""
    messages: list[dict[str, Any]] = []
    for role, content, weight in messages_of(row):
        # A user's message is never learned from there, and is written plain.
        messages.append({"role": role, "content": content} | ({"weight": weight} if role == "assistant" or weight else {}))
    own = {"condition": row.condition, "class": row.class_name}
    return {"messages": messages} | {name: value for name, value in own.items() if value}


def to_llama_factory(row: Conversation) -> dict[str, Any]:
    """LLaMA-Factory's v1 messages: parts of content, and a loss_weight each."""
    return {
        "messages": [
            {"role": role, "content": [{"type": "text", "value": content}], "loss_weight": weight}
            for role, content, weight in messages_of(row)
        ]
    }


def to_ms_swift(row: Conversation) -> dict[str, Any]:
    """ms-swift's messages (>= 4.2.0): a loss_scale each."""
    return {"messages": [{"role": r, "content": content, "loss_scale": weight} for r, content, weight in messages_of(row)]}


_CONVERT: dict[str, Callable[[Conversation], dict[str, Any]]] = {
    "openai": to_openai,
    "llama-factory": to_llama_factory,
    "ms-swift": to_ms_swift,
}


def original_row(ids: np.ndarray, run_lengths: np.ndarray, run_weights: np.ndarray) -> dict[str, Any]:
    """A row of the original's parquet: cut after its last weighted token, labels and weights one ahead, 0 where nothing is learned."""
    weights = np.repeat(run_weights, run_lengths)
    n = int(np.flatnonzero(weights)[-1]) + 1
    ids, weights = ids[:n], weights[:n]
    next_weights = np.append(weights[1:], np.float32(0))
    labels = np.append(np.where(weights[1:] != 0, ids[1:], 0), 0)
    return {
        "total_length": n,
        "num_seqs": float(next_weights.astype(np.float64).sum()),
        "seqlens": [n],
        "nz_input_ids": ids,
        "nz_position_ids": np.arange(n, dtype=np.int32),
        "nz_shifted_label_ids": labels.astype(np.int32),
        "nz_shifted_loss_weights": next_weights,
    }
