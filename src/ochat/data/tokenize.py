"""`ochat data tokenize`: conversations -> a data set of tokens and weights, ready to train on.

All of it goes through the template that serving uses. What doesn't fit is cut or left out, counted and told."""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from ochat.conversation import NO_CONDITION, Conversation, read_conversations
from ochat.data.dataset import META_FILE, SplitWriter, TokenRow, is_dataset, read_meta
from ochat.errors import DataError, OchatError, TemplateError
from ochat.files import file_sha256, new_folder, refuse_existing, write_json
from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.registry import detect_model_type, load_template
from ochat.template import ConversationTemplate, Run

T = TypeVar("T")

ROWS_PER_BATCH = 1000
# Rows of each class, and conditions, that the counterfactual loss is measured on: enough for its first two digits.
COUNTERFACTUAL_ROWS, COUNTERFACTUAL_CONDITIONS = 100, 8
# Of the folder's content. A data set of another one is made anew.
FORMAT = 2


@dataclass(frozen=True)
class Options:
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """conversations, one JSON object a line (.gz too)"""
    tokenizer: str
    """folder or hub id of the tokenizer"""
    output: Path
    """data-set folder to write"""
    model_type: str = ""
    """model type; read from the tokenizer's folder when left out"""
    heldout: float = 0.0
    """share of prompts whose rows are kept from training, for its loss curve"""
    max_tokens: int | None = None
    """rows are cut to so many tokens; the model type's context when left out"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise OchatError("No input given. Name at least one conversation file.")
        if not 0 <= self.heldout < 1:
            raise OchatError(f"--heldout is {self.heldout}. Give a share from 0 to below 1.")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise OchatError(f"--max-tokens is {self.max_tokens}. Give at least 2.")


@dataclass
class ClassTotals:
    """What one class brings to training, after cutting."""

    rows: int = 0
    learned_tokens: int = 0
    weight_sum: float = 0.0


@dataclass
class Totals:
    """What became of the rows."""

    train_rows: int = 0
    heldout_rows: int = 0
    tokens: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0
    dropped_rows: int = 0  # nothing to learn in them
    classes: dict[str, ClassTotals] = field(default_factory=dict)
    class_conditions: dict[str, list[str]] = field(default_factory=dict)

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

    def count_condition(self, class_name: str, condition: str) -> None:
        """Note a condition of a class."""
        known = self.class_conditions.setdefault(class_name, [])
        if condition not in known:
            known.append(condition)

    def count_split(self, train_rows: list[TokenRow], heldout_rows: list[TokenRow]) -> None:
        """Count rows of both splits; the classes' totals are of those to train on."""
        self.train_rows += len(train_rows)
        self.heldout_rows += len(heldout_rows)
        for row in train_rows:
            of_class = self.classes.setdefault(row.class_name, ClassTotals())
            of_class.rows += 1
            of_class.learned_tokens += sum(n for n, w in zip(row.run_lengths, row.run_weights, strict=True) if w > 0)
            of_class.weight_sum += row.weight_sum


def prompt_hash(conversation: Conversation) -> bytes:
    """16 bytes that rows with the same system prompt and first message share, whatever their class or answer."""
    text = f"{conversation.system}\0{conversation.items[0].content}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def is_heldout(hash: bytes, share: float) -> bool:
    """Whether rows of this prompt are held out; depends on the prompt alone, so its answers never straddle the splits."""
    return int.from_bytes(hash[:8], "big") < share * 2**64


def as_float32(weight: float) -> float:
    """The weight as it will be stored: one too small for float32 is 0, and nothing is learned from it."""
    stored: float = struct.unpack("f", struct.pack("f", weight))[0]
    return stored


def token_row(conversation: Conversation, runs: list[Run], max_tokens: int) -> TokenRow:
    """The row, cut to its first `max_tokens` tokens."""
    ids, lengths, weights, room = [], [], [], max_tokens
    for run in runs:
        part = run.ids[:room]
        if part:
            ids += part
            lengths.append(len(part))
            weights.append(as_float32(run.weight))
            room -= len(part)
    return TokenRow(ids, lengths, weights, class_of(conversation), prompt_hash(conversation))


@dataclass
class Counterfactuals:
    """A sample of held-out rows, to be scored under every condition of the data."""

    n_rows: Counter[str] = field(default_factory=Counter)  # by condition, of all rows
    rows: list[Conversation] = field(default_factory=list)
    n_sampled: Counter[str] = field(default_factory=Counter)  # by class

    def add(self, conversation: Conversation, class_name: str, *, is_heldout: bool) -> None:
        """Count a row, and keep it if it's one of its class's first held-out ones."""
        self.n_rows[conversation.condition or NO_CONDITION] += 1
        if is_heldout and self.n_sampled[class_name] < COUNTERFACTUAL_ROWS:
            self.n_sampled[class_name] += 1
            self.rows.append(conversation)

    def write(self, folder: Path, template: ConversationTemplate, max_tokens: int) -> list[str]:
        """Write the sample once for each condition, most frequent first; returns those. Nothing where there is no choice."""
        conditions = [condition for condition, _ in self.n_rows.most_common(COUNTERFACTUAL_CONDITIONS)]
        if len(conditions) < 2 or not self.rows:
            return conditions
        asked = [[row.model_copy(update={"condition": condition}) for row in self.rows] for condition in conditions]
        runs = [template.runs(rows) for rows in asked]
        # A row that is cut under one condition and not under another would be another answer there.
        longest = [max(sum(len(run.ids) for run in of_row) for of_row in under) for under in zip(*runs, strict=True)]
        for number in range(len(conditions)):
            with SplitWriter(folder, counterfactual_split(number)) as writer:
                for row, of_row, n_tokens in zip(self.rows, runs[number], longest, strict=True):
                    if n_tokens <= max_tokens:
                        writer.write([token_row(row, of_row, max_tokens)])
        return conditions


def counterfactual_split(number: int) -> str:
    """The split of the held-out sample under the data set's condition of this number."""
    return f"counterfactual-{number}"


def class_of(conversation: Conversation) -> str:
    """The row's class: its own, or else its condition."""
    return conversation.class_name or conversation.condition


def in_batches(values: Iterable[T]) -> Iterator[list[T]]:
    """The values in lists of ROWS_PER_BATCH, the last one shorter."""
    iterator = iter(values)
    while batch := list(islice(iterator, ROWS_PER_BATCH)):
        yield batch


def tokenized(
    rows: Iterator[tuple[str, Conversation]], template: ConversationTemplate
) -> Iterator[tuple[Conversation, list[Run]]]:
    """Yield each conversation with its runs, tokenized in batches; raises DataError at the row that the template refuses."""
    for batch in in_batches(rows):
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


def main(options: Options) -> None:
    if not is_dataset(options.output):
        refuse_existing(options.output)
    folder = model_folder(options.tokenizer, TOKENIZER_FILES)
    kind = detect_model_type(folder, options.model_type)
    template = load_template(kind, folder)
    max_tokens = options.max_tokens or kind.max_context
    made_from = {
        "format": FORMAT,
        "model_type": kind.name,
        "max_tokens": max_tokens,
        "heldout_share": options.heldout,
        "tokenizer_sha256": file_sha256(folder / "tokenizer.json"),
        "template_sha256": template.sha256(),
        "sources": {str(path): file_sha256(path) for path in options.inputs},
    }
    if is_dataset(options.output) and made_from.items() <= read_meta(options.output).items():
        print(f"{options.output} is made of just this already.")
        return
    totals, counterfactuals = Totals(), Counterfactuals()
    with new_folder(options.output) as part:
        with ExitStack() as stack:
            train, heldout = (stack.enter_context(SplitWriter(part, split)) for split in ("train", "heldout"))
            rows = chain.from_iterable(map(read_conversations, options.inputs))
            for batch in in_batches(tokenized(rows, template)):
                train_rows: list[TokenRow] = []
                heldout_rows: list[TokenRow] = []
                for conversation, runs in batch:
                    row = token_row(conversation, runs, max_tokens)
                    if totals.keep(row, sum(len(run.ids) for run in runs)):
                        of_heldout = is_heldout(row.prompt_hash, options.heldout)
                        (heldout_rows if of_heldout else train_rows).append(row)
                        counterfactuals.add(conversation, row.class_name, is_heldout=of_heldout)
                        totals.count_condition(row.class_name, conversation.condition or NO_CONDITION)
                totals.count_split(train_rows, heldout_rows)
                train.write(train_rows)
                heldout.write(heldout_rows)
        if not totals.train_rows:
            names = ", ".join(map(str, options.inputs))
            raise DataError(
                f"{names}: no row to train on ({totals.dropped_rows:,} without a weight above 0, {totals.cut_rows:,} cut to "
                f"{max_tokens:,} tokens, {totals.heldout_rows:,} held out). Change the weights, --max-tokens or --heldout."
            )
        conditions = counterfactuals.write(part, template, max_tokens)
        write_json(part / META_FILE, {**made_from, **asdict(totals), "conditions": conditions})
    print(report(totals, max_tokens))
    without = [name or "(none)" for name in sorted(totals.classes) if not counterfactuals.n_sampled[name]]
    if totals.heldout_rows and without:
        print(
            f"no row held out of {', '.join(without)}: what is learned of it won't be measured; a larger --heldout takes more"
        )
    print(f"Wrote {options.output} for {kind.name}")


def report(totals: Totals, max_tokens: int) -> str:
    """A table of the classes: what each brings, and its share of the loss's weights."""
    all_weights = sum(of_class.weight_sum for of_class in totals.classes.values()) or 1.0
    lines = [f"{'class':<20} {'rows':>9} {'learned tokens':>15} {'weight sum':>12} {'share of weight':>16}"]
    for name, of_class in sorted(totals.classes.items()):
        share = of_class.weight_sum / all_weights
        numbers = f"{of_class.rows:>9,} {of_class.learned_tokens:>15,} {of_class.weight_sum:>12,.1f} {share:>16.1%}"
        lines.append(f"{name or '(none)':<20} {numbers}")
    lines.append(f"{totals.train_rows:,} rows to train on, {totals.heldout_rows:,} held out, {totals.tokens:,} tokens in all")
    if totals.cut_rows:
        lines.append(f"{totals.cut_rows:,} rows cut to {max_tokens:,} tokens, losing {totals.cut_tokens:,} tokens")
    if totals.dropped_rows:
        lines.append(f"{totals.dropped_rows:,} rows left out: no token in them has a weight above 0")
    return "\n".join(lines)
