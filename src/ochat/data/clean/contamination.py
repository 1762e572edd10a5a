"""Drop rows that hold a benchmark's question, so that its grades measure what was learned and not what was seen.

A row holds a question where any of its messages, or its system prompt, shares a run of `n_words` words with it, 13 by default
(the rule of GPT-3's paper, arXiv:2005.14165, appendix C), in the words' normal form. A question of fewer words would match by
accident, so it counts only where a user's whole message is that question.

Benchmark files hold more than questions: few-shot examples, instructions, "Let's think step by step". Those may rightly stand in
training rows (GSM8K's few-shot examples are of its training split). So words that open or close all questions of a file aren't
the question's, nor is a run that stands in more than ten of them (GPT-3's rule too).

A table of bits says of nearly every run that it's in no question; the rest are looked up by their hash, and found ones
compared word by word, so a chance equality of hashes drops nothing."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ochat.conversation import Conversation, read_json_lines
from ochat.data.clean.exact import ROWS_PER_BATCH
from ochat.data.clean.tally import EXAMPLE_LETTERS, Rows, Tally
from ochat.data.clean.words import Hashes, run_hashes, words
from ochat.errors import DataError

MAX_SHARED = 10  # questions of a file that may share a run of words before it counts as the prompt's
_BITS = 24
_QUESTION_FILES = ("*.jsonl", "*.jsonl.gz")


class BenchmarkQuestion(NamedTuple):
    benchmark: str
    place: str
    text: list[str]  # its own words


class Match(NamedTuple):
    """A training row and the benchmark question that it holds."""

    benchmark: str
    question: str
    row: str
    words: str


def question_files(path: Path) -> list[tuple[str, Path]]:
    """The benchmark's name and path of a jsonl file, or of each one below a folder."""
    if not path.is_dir():
        return [(_name(Path(path.name)), path)]
    files = sorted(file for pattern in _QUESTION_FILES for file in path.rglob(pattern))
    if not files:
        raise DataError(f"{path} has no .jsonl or .jsonl.gz file. Name a folder of benchmark questions.")
    return [(_name(file.relative_to(path)), file) for file in files]


def _name(path: Path) -> str:
    return str(path).removesuffix(".gz").removesuffix(".jsonl")


def question_texts(value: object, place: str) -> list[str]:
    """The texts of a line: its `question` or `prompt`, or its `turns`."""
    for field in ("question", "prompt", "turns"):
        found = value.get(field) if isinstance(value, dict) else None
        texts = [text for text in (found if isinstance(found, list) else [found]) if isinstance(text, str)]
        if texts:
            return texts
    raise DataError(f'{place}: no question. A line has its text in "question" or "prompt", or texts in "turns".')


def read_benchmark(name: str, path: Path) -> list[BenchmarkQuestion]:
    """The questions of a file, without the words that open or close all of them; raises DataError for a line without one."""
    placed = [(place, text) for place, value in read_json_lines(path) for text in question_texts(value, place)]
    if not placed:
        raise DataError(f"{path} has no questions. Give one JSON object a line.")
    texts = [text for _, text in placed]
    if len(texts) > MAX_SHARED:
        texts = without_closing(without_opening(texts))
    return [BenchmarkQuestion(name, place, words(text)) for (place, _), text in zip(placed, texts, strict=True)]


def without_opening(texts: list[str]) -> list[str]:
    """The texts without the whole words that all of them open with."""
    first, last = min(texts), max(texts)  # what these two share, all share
    shared = first[: next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))]
    end = max((found.end() for found in re.finditer(r"\s", shared)), default=0)
    return [text[end:] for text in texts]


def without_closing(texts: list[str]) -> list[str]:
    """The texts without the whole words that all of them end with."""
    return [text[::-1] for text in without_opening([text[::-1] for text in texts])]


@dataclass(frozen=True)
class Benchmarks:
    """Questions, to be found in rows."""

    questions: list[BenchmarkQuestion]
    n_words: int
    hashes: Hashes  # of the runs in questions, sorted; beside each, the question's number and the word it starts at
    owners: NDArray[np.int32]
    starts: NDArray[np.int32]
    bits: NDArray[np.bool_]  # whether any of the hashes opens with these bits
    short: dict[tuple[str, ...], int]

    @classmethod
    def of(cls, files: Iterable[Sequence[BenchmarkQuestion]], n_words: int) -> "Benchmarks":
        """The questions of each file, by their runs of `n_words` words."""
        questions: list[BenchmarkQuestion] = []
        short: dict[tuple[str, ...], int] = {}
        parts = [(np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int32))]
        for of_file in files:
            long = []
            for number, question in enumerate(of_file, start=len(questions)):
                if len(question.text) >= n_words:
                    long.append((number, question.text))
                elif question.text:
                    short.setdefault(tuple(question.text), number)
            questions += of_file
            if long:
                hashes, counts = run_hashes([text for _, text in long], n_words)
                owners = np.repeat(np.array([number for number, _ in long], np.int32), counts)
                starts = (np.arange(len(hashes)) - np.repeat(counts.cumsum() - counts, counts)).astype(np.int32)
                parts.append(own_runs(hashes, owners, starts))
        hashes, owners, starts = (np.concatenate(column) for column in zip(*parts, strict=True))
        hashes, firsts = np.unique(hashes, return_index=True)
        bits = np.zeros(1 << _BITS, bool)
        bits[hashes >> np.uint64(64 - _BITS)] = True
        return cls(questions, n_words, hashes, owners[firsts], starts[firsts], bits, short)

    def find(self, rows: Sequence[Conversation]) -> list[tuple[BenchmarkQuestion, str] | None]:
        """For each row the first question found in it, and the words that show it."""
        found: list[tuple[BenchmarkQuestion, str] | None] = [None] * len(rows)
        texts, row_of_text = [], []
        for number, row in enumerate(rows):
            for role, content in (("system", row.system), *((item.role, item.content) for item in row.items)):
                text = words(content)
                if len(text) >= self.n_words:
                    texts.append(text)
                    row_of_text.append(number)
                if role == "user" and found[number] is None and (short := self.short.get(tuple(text))) is not None:
                    found[number] = (self.questions[short], " ".join(text))
        hashes, counts = run_hashes(texts, self.n_words)
        hits = np.flatnonzero(self.bits[hashes >> np.uint64(64 - _BITS)])
        known = np.searchsorted(self.hashes, hashes[hits])
        ends = counts.cumsum()
        for hit, at in zip(hits.tolist(), known.tolist(), strict=True):
            if at == len(self.hashes) or self.hashes[at] != hashes[hit]:
                continue
            text_number = int(np.searchsorted(ends, hit, side="right"))
            start = hit - int(ends[text_number] - counts[text_number])
            run = texts[text_number][start : start + self.n_words]
            question, first = self.questions[self.owners[at]], int(self.starts[at])
            if found[row_of_text[text_number]] is None and run == question.text[first : first + self.n_words]:
                found[row_of_text[text_number]] = (question, " ".join(run))
        return found


def own_runs(
    hashes: Hashes, owners: NDArray[np.int32], starts: NDArray[np.int32]
) -> tuple[Hashes, NDArray[np.int32], NDArray[np.int32]]:
    """The runs of a file's questions, without those that more than MAX_SHARED of them hold."""
    order = np.lexsort((owners, hashes))
    hashes, owners, starts = hashes[order], owners[order], starts[order]
    first = np.ones(len(hashes), bool)  # of its hash in its question
    first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    hashes, owners, starts = hashes[first], owners[first], starts[first]
    _, of_hash, n_holding = np.unique(hashes, return_inverse=True, return_counts=True)
    own = n_holding[of_hash] <= MAX_SHARED
    return hashes[own], owners[own], starts[own]


def drop_contaminated(rows: Rows, tally: Tally, benchmarks: Benchmarks, matches: list[Match]) -> Rows:
    """The rows that hold no benchmark question; each that does is added to `matches`."""
    while batch := list(islice(rows, ROWS_PER_BATCH)):
        found = benchmarks.find([row for _, row in batch])
        for (place, row), hit in zip(batch, found, strict=True):
            if hit is None:
                tally.keep(place)
                yield place, row
            else:
                question, shown = hit
                matches.append(Match(question.benchmark, question.place, place, shown[:EXAMPLE_LETTERS]))
                tally.drop(f"question of {question.benchmark}", place, f"{question.place}: {shown}")
