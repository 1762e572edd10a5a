"""`ochat data tokenize`: conversations -> a data set of tokens and weights, ready to train on.

All of it goes through the template that serving uses. What doesn't fit is cut or left out, counted and told. The files are read once
and tokenized in blocks, by as many processes as there are cores; memory doesn't grow with the data. Killed and repeated, it goes on
with the blocks that are missing."""

import gc
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from ochat.conversation import Conversation, read_conversation
from ochat.data.blocks import Block, Totals, blocks, read_totals, token_row, totals_file, write_block
from ochat.data.dataset import META_FILE, ShardWriter, is_dataset, read_meta, release_unused
from ochat.data.problem import counted
from ochat.errors import DataError, OchatError
from ochat.files import file_sha256, new_folder, refuse_existing, refuse_twice, write_json
from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.processes import end_with_parent
from ochat.registry import detect_model_type, load_template, model_type
from ochat.template import ConversationTemplate, Run

COUNTERFACTUAL_CONDITIONS = 8
# Of the folder's content. A data set of another one is made anew.
FORMAT = 5


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
    per_message_loss: bool = False
    """divide each message's weight by its tokens, so that a long reply counts as much as a short one; otherwise each token does"""
    workers: int | None = None
    """processes; one a core when left out. The data set is the same for any number"""
    shard: str = ""
    """I/N: only the I-th of N parts, for several machines that share the output's folder; the command without it then finishes"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise OchatError("No input given. Name at least one conversation file.")
        if not 0 <= self.heldout < 1:
            raise OchatError(f"--heldout is {self.heldout}. Give a share from 0 to below 1.")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise OchatError(f"--max-tokens is {self.max_tokens}. Give at least 2.")
        if self.workers is not None and self.workers < 1:
            raise OchatError(f"--workers is {self.workers}. Give 1 or more.")
        parse_shard(self.shard)
        refuse_twice(self.inputs)


def parse_shard(text: str) -> tuple[int, int]:
    """The part, counted from 0, and the number of parts."""
    if not text:
        return 0, 1
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise OchatError(f"--shard is {text!r}. Give the part and the number of parts, such as 1/4.")
    return int(found[1]) - 1, int(found[2])


def counterfactual_split(number: int) -> str:
    """The split of the held-out sample under the data set's condition of this number."""
    return f"counterfactual-{number}"


def write_counterfactuals(folder: Path, totals: Totals, template: ConversationTemplate, max_tokens: int) -> list[str]:
    """Write the sample of held-out rows once for each condition, most frequent first; returns those.

    Nothing is written where there is no choice."""
    conditions = [condition for condition, _ in Counter(totals.condition_rows).most_common(COUNTERFACTUAL_CONDITIONS)]
    sample = [read_conversation(row.encode(), "a held-out row") for rows in totals.heldout_sample.values() for row in rows]
    if len(conditions) < 2 or not sample:
        return conditions
    asked = [[row.model_copy(update={"condition": condition}) for row in sample] for condition in conditions]
    runs = [template.runs(rows) for rows in asked]
    # A row that is cut under one condition and not under another would be another answer there.
    longest = [max(sum(len(run.ids) for run in of_row) for of_row in under) for under in zip(*runs, strict=True)]
    for number in range(len(conditions)):
        with ShardWriter(folder, counterfactual_split(number)) as writer:
            for row, of_row, n_tokens in zip(sample, runs[number], longest, strict=True):
                if n_tokens <= max_tokens:
                    writer.add(token_row(row, of_row, max_tokens))
    return conditions


@dataclass(frozen=True)
class Work:
    """What every block of a data set needs."""

    tokenizer: Path
    kind: str
    folder: Path
    heldout: float
    max_tokens: int
    per_message_loss: bool

    def do(self, block: Block) -> int:
        """Tokenize a block; the bytes that were read for it."""
        template = _template(self.kind, self.tokenizer, self.per_message_loss)
        gc.disable()  # rows are lists of lists without a cycle: looking for one takes a third of the time
        try:
            write_block(block, self.folder, template, heldout=self.heldout, max_tokens=self.max_tokens)
        finally:
            gc.enable()
            release_unused()
        return sum(len(text) for _, _, text in block.parts)


class PerMessageTemplate(ConversationTemplate):
    """A template whose messages weigh the same in all, however many tokens they have."""

    def runs(self, conversations: Sequence[Conversation], *, inference: bool = False) -> list[list[Run]]:
        """The runs of each conversation, with each weight divided by the run's tokens."""
        found = super().runs(conversations, inference=inference)
        return [[Run(run.ids, run.weight / len(run.ids)) for run in of_row] for of_row in found]


@cache
def _template(kind: str, tokenizer: Path, per_message_loss: bool) -> ConversationTemplate:
    """Loaded once a process."""
    template = load_template(model_type(kind), tokenizer)
    return PerMessageTemplate(template.format, template.tokenizer) if per_message_loss else template


def do_all(work: Work, todo: Iterator[Block], n_workers: int, bar: "tqdm[None]") -> None:
    """Tokenize the blocks in so many processes; in this one where there is but one block, since processes take a second to start."""
    first = list(islice(todo, 2))
    is_alone = n_workers == 1 or len(first) < 2
    todo = chain(first, todo)
    del first  # it would keep two blocks
    if is_alone:
        for block in todo:
            bar.update(work.do(block))
        return
    with _pool(n_workers) as pool:
        waiting: set[Future[int]] = set()
        for block in todo:
            if len(waiting) > n_workers:  # one more than is worked on, and no more are read ahead: memory stays flat
                waiting = _wait(waiting, bar)
            waiting.add(pool.submit(work.do, block))
        while waiting:
            waiting = _wait(waiting, bar)


def _wait(waiting: set[Future[int]], bar: "tqdm[None]") -> set[Future[int]]:
    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        bar.update(future.result())
    return waiting


@contextmanager
def _pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    # Those of a killed parent would wait for blocks for ever.
    pool = ProcessPoolExecutor(n_workers, mp_context=get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OchatError("A process was killed, perhaps for want of memory. Repeat to go on, with fewer --workers.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def main(options: Options) -> None:
    if not is_dataset(options.output):
        refuse_existing(options.output)
    if absent := [path for path in options.inputs if not path.is_file()]:
        raise DataError(f"{absent[0]} is no file. Name files of conversations, such as `ochat data import` writes.")
    folder = model_folder(options.tokenizer, TOKENIZER_FILES)
    kind = detect_model_type(folder, options.model_type)
    template = _template(kind.name, folder, options.per_message_loss)
    max_tokens = options.max_tokens or kind.max_context
    sources = {str(path): file_sha256(path) for path in options.inputs}
    made_from = {
        "format": FORMAT,
        "model_type": kind.name,
        "max_tokens": max_tokens,
        "heldout_share": options.heldout,
        "per_message_loss": options.per_message_loss,
        "tokenizer_sha256": file_sha256(folder / "tokenizer.json"),
        "template_sha256": template.sha256(),
        "sources": sources,
    }
    if is_dataset(options.output):
        before = read_meta(options.output)
        if made_from.items() <= before.items() and list(before["sources"]) == list(sources):  # in this order
            print(f"{options.output} is made of just this already.")
            return
    part_number, n_parts = parse_shard(options.shard)
    n_workers = options.workers or len(os.sched_getaffinity(0))
    with new_folder(options.output, resume=[made_from, list(sources)], shared=bool(options.shard)) as part:
        work = Work(folder, kind.name, part, options.heldout, max_tokens, options.per_message_loss)
        n_blocks = n_before = 0

        def todo() -> Iterator[Block]:
            nonlocal n_blocks, n_before
            for block in blocks(options.inputs):
                n_blocks += 1
                if totals_file(part, block.number).is_file():
                    n_before += 1
                elif block.number % n_parts == part_number:
                    yield block

        mininterval = 0.5 if sys.stderr.isatty() else 15
        n_bytes = sum(path.stat().st_size for path in options.inputs)
        total = None if any(path.suffix == ".gz" for path in options.inputs) else n_bytes
        with tqdm(total=total, unit="B", unit_scale=True, mininterval=mininterval, delay=2) as bar:
            do_all(work, todo(), n_workers, bar)
        if n_before:
            print(f"{n_before:,} of {n_blocks:,} shards are from before")
        if options.shard:
            n_done = sum(totals_file(part, number).is_file() for number in range(n_blocks))
            print(
                f"{n_done:,} of {n_blocks:,} shards are done. When all are, the command without --shard finishes the data set."
            )
            return
        totals = Totals()
        for number in range(n_blocks):
            path = totals_file(part, number)
            totals.add(read_totals(path))
        if not totals.train_rows:
            names = ", ".join(map(str, options.inputs))
            raise DataError(
                f"{names}: no row to train on ({totals.dropped_rows:,} without a weight above 0, {totals.cut_rows:,} cut to "
                f"{max_tokens:,} tokens, {totals.heldout_rows:,} held out). Change the weights, --max-tokens or --heldout."
            )
        conditions = write_counterfactuals(part, totals, template, max_tokens)
        told = {name: value for name, value in asdict(totals).items() if name not in ("condition_rows", "heldout_sample")}
        write_json(
            part / META_FILE, {**made_from, **told, "conditions": conditions, "made_by": f"ochat {version('ochat-crlft')}"}
        )
        for number in range(n_blocks):
            totals_file(part, number).unlink()
    print(report(totals, max_tokens))
    without = [name or "(none)" for name in sorted(totals.classes) if name not in totals.heldout_sample]
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
    lines.append(
        f"{counted(totals.train_rows, 'row')} to train on, {totals.heldout_rows:,} held out, {totals.tokens:,} tokens in all"
    )
    if totals.cut_rows:
        lines.append(f"{counted(totals.cut_rows, 'row')} cut to {max_tokens:,} tokens, losing {totals.cut_tokens:,} tokens")
    if totals.dropped_rows:
        lines.append(f"{counted(totals.dropped_rows, 'row')} left out: no token there has a weight above 0")
    return "\n".join(lines)
