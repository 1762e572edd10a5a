"""Cut files of lines into blocks, and tokenize one block into a shard of a data set.

A block is some thousand lines that follow each other, whoever tokenizes it: shards, and so the data set, are the same bytes for any
number of processes. A shard's totals are written last, so a block is either done or not."""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from ochat.conversation import NO_CONDITION, Conversation, read_conversation, read_lines
from ochat.data.dataset import ShardWriter, TokenRow
from ochat.errors import DataError, TemplateError
from ochat.files import write_json
from ochat.template import ConversationTemplate, Run

BLOCK_ROWS, BLOCK_BYTES = 8_192, 32 * 2**20
# Rows of each class that the counterfactual loss is measured on: enough for its first two digits.
COUNTERFACTUAL_ROWS = 100
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Block:
    """Lines of one or more files, each part with its file, the number of its first line, and the text: one piece, which goes to
    another process faster than its lines, and in less memory."""

    number: int
    parts: list[tuple[Path, int, bytes]]


def blocks(paths: Sequence[Path]) -> Iterator[Block]:
    """The files' lines in their order, cut into blocks."""
    number = n_rows = n_bytes = 0
    parts: list[tuple[Path, int, bytes]] = []
    for path in paths:
        first, lines = 1, bytearray()
        for at, line in enumerate(read_lines(path), start=1):
            if n_rows == BLOCK_ROWS or (n_rows and n_bytes + len(line) > BLOCK_BYTES):
                yield Block(number, [*parts, (path, first, bytes(lines))])
                number, n_rows, n_bytes = number + 1, 0, 0
                parts, first, lines = [], at, bytearray()
            lines += line
            n_rows, n_bytes = n_rows + 1, n_bytes + len(line)
        parts.append((path, first, bytes(lines)))
    if n_rows:
        yield Block(number, parts)


@dataclass
class ClassTotals:
    """What one class brings to training, after cutting."""

    rows: int = 0
    learned_tokens: int = 0
    weight_sum: float = 0.0


@dataclass
class Totals:
    """What became of rows."""

    train_rows: int = 0
    heldout_rows: int = 0
    tokens: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0
    dropped_rows: int = 0  # nothing to learn in them
    classes: dict[str, ClassTotals] = field(default_factory=dict)
    class_conditions: dict[str, list[str]] = field(default_factory=dict)
    condition_rows: dict[str, int] = field(default_factory=dict)
    heldout_sample: dict[str, list[str]] = field(default_factory=dict)  # of each class the first held-out rows, as JSON

    def keep(self, row: TokenRow, n_uncut: int) -> bool:
        """Count a row that had `n_uncut` tokens before it was cut; whether there is anything to learn in it."""
        n_cut = n_uncut - len(row.input_ids)
        self.cut_rows += n_cut > 0
        self.cut_tokens += n_cut
        if row.weight_sum <= 0:
            self.dropped_rows += 1
            return False
        self.tokens += len(row.input_ids)
        return True

    def count(self, conversation: Conversation, row: TokenRow, *, heldout: bool) -> None:
        """Count a row that is kept; the classes' totals are of those to train on."""
        condition = conversation.condition or NO_CONDITION
        self.condition_rows[condition] = self.condition_rows.get(condition, 0) + 1
        known = self.class_conditions.setdefault(row.class_name, [])
        if condition not in known:
            known.append(condition)
        if heldout:
            self.heldout_rows += 1
            sample = self.heldout_sample.setdefault(row.class_name, [])
            if len(sample) < COUNTERFACTUAL_ROWS:
                sample.append(conversation.to_json())
            return
        self.train_rows += 1
        of_class = self.classes.setdefault(row.class_name, ClassTotals())
        of_class.rows += 1
        of_class.learned_tokens += sum(n for n, w in zip(row.run_lengths, row.run_weights, strict=True) if w > 0)
        of_class.weight_sum += row.weight_sum

    def add(self, other: "Totals") -> None:
        """Add the totals of the rows that follow these."""
        for name in ("train_rows", "heldout_rows", "tokens", "cut_rows", "cut_tokens", "dropped_rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, of_class in other.classes.items():
            own = self.classes.setdefault(name, ClassTotals())
            own.rows += of_class.rows
            own.learned_tokens += of_class.learned_tokens
            own.weight_sum += of_class.weight_sum
        for name, conditions in other.class_conditions.items():
            known = self.class_conditions.setdefault(name, [])
            known += [condition for condition in conditions if condition not in known]
        for name, n_rows in other.condition_rows.items():
            self.condition_rows[name] = self.condition_rows.get(name, 0) + n_rows
        for name, rows in other.heldout_sample.items():
            sample = self.heldout_sample.setdefault(name, [])
            sample += rows[: COUNTERFACTUAL_ROWS - len(sample)]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Totals":
        """The totals that `asdict` gave."""
        classes = {name: ClassTotals(**of_class) for name, of_class in value["classes"].items()}
        return cls(**{**value, "classes": classes})


def prompt_hash(conversation: Conversation) -> bytes:
    """16 bytes that rows with the same system prompt and first message share, whatever their class or answer."""
    text = f"{conversation.system}\0{conversation.items[0].content}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def is_heldout(hash: bytes, share: float) -> bool:
    """Whether rows of this prompt are held out; depends on the prompt alone, so its answers never straddle the splits."""
    return int.from_bytes(hash[:8], "big") < share * 2**64


@lru_cache
def as_float32(weight: float) -> float:
    """The weight as it will be stored: one too small for float32 is 0, and nothing is learned from it."""
    stored: float = struct.unpack("f", struct.pack("f", weight))[0]
    return stored


def token_row(conversation: Conversation, runs: list[Run], max_tokens: int) -> TokenRow:
    """The row, cut to its first `max_tokens` tokens."""
    ids, lengths, weights, room = [], [], [], max_tokens
    for run in runs:
        part = run.ids if len(run.ids) <= room else run.ids[:room]
        if part:
            ids += part
            lengths.append(len(part))
            weights.append(as_float32(run.weight))
            room -= len(part)
    return TokenRow(ids, lengths, weights, class_of(conversation), prompt_hash(conversation))


def class_of(conversation: Conversation) -> str:
    """The row's class: its own, or else its condition."""
    return conversation.class_name or conversation.condition


def tokenized(
    rows: Iterable[tuple[str, Conversation]], template: ConversationTemplate
) -> Iterator[tuple[Conversation, list[Run]]]:
    """Yield each conversation with its runs, tokenized in batches; raises DataError at the row that the template refuses."""
    batch: list[tuple[str, Conversation]] = []
    for place_and_row in rows:
        batch.append(place_and_row)
        if len(batch) == _ROWS_AT_ONCE:
            yield from _tokenized_batch(batch, template)
            batch = []
    yield from _tokenized_batch(batch, template)


def _tokenized_batch(
    batch: list[tuple[str, Conversation]], template: ConversationTemplate
) -> Iterator[tuple[Conversation, list[Run]]]:
    conversations = [row for _, row in batch]
    try:
        yield from zip(conversations, template.runs(conversations), strict=True)
    except TemplateError:
        for place, row in batch:  # one by one, to name the line
            try:
                template.runs([row])
            except TemplateError as error:
                raise DataError(f"{place}: {error}") from error
        raise


def rows_of(block: Block) -> Iterator[tuple[str, Conversation]]:
    """The block's conversations, each with its place."""
    for path, first, text in block.parts:
        for number, line in enumerate(BytesIO(text), start=first):
            place = f"{path}:{number}"
            yield place, read_conversation(line, place)


def totals_file(folder: Path, number: int) -> Path:
    """The file that says that a block is done."""
    return folder / f"totals-{number:05}.json"


def write_block(block: Block, folder: Path, template: ConversationTemplate, *, heldout: float, max_tokens: int) -> None:
    """Tokenize a block into its shards of both splits, then write its totals."""
    totals = Totals()
    with ShardWriter(folder, "train", block.number) as train, ShardWriter(folder, "heldout", block.number) as held:
        for conversation, runs in tokenized(rows_of(block), template):
            row = token_row(conversation, runs, max_tokens)
            if totals.keep(row, sum(len(run.ids) for run in runs)):
                of_heldout = is_heldout(row.prompt_hash, heldout)
                totals.count(conversation, row, heldout=of_heldout)
                (held if of_heldout else train).add(row)
    write_json(totals_file(folder, block.number), asdict(totals))


def read_totals(path: Path) -> Totals:
    """The totals of a block that is done."""
    return Totals.from_json(json.loads(path.read_text(encoding="utf-8")))
