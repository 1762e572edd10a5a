"""`ochat data clean`: conversations -> the ones to learn from, with an account of what was changed and dropped, and why.

Rows go through the steps one after the other, in a fixed order: what mends a text comes before what judges it, and duplicates
come last, so that texts are compared as they will be learned. Nearly all of it streams; duplicates wait on disk, beside the
output, until all rows are seen."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from tqdm import tqdm

from ochat.conversation import read_conversations
from ochat.data.clean import heuristics, language, length, markup
from ochat.data.clean.contamination import Benchmarks, Match, drop_contaminated, question_files, read_benchmark
from ochat.data.clean.exact import drop_exact_duplicates
from ochat.data.clean.near import drop_near_duplicates
from ochat.data.clean.tally import Outcome, Rows, Tally, each_row
from ochat.data.clean.turns import in_turns
from ochat.data.import_rows import refuse_other_file
from ochat.data.problem import counted
from ochat.errors import DataError, OchatError
from ochat.files import new_file, refuse_twice
from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.tokenizer import load_tokenizer

StepName = Literal["markup", "turns", "refusals", "repetition", "short", "length", "language", "decontaminate", "exact", "near"]
# In data of any source these are faults. The other steps judge, and each takes a decision of the user's.
DEFAULT_STEPS: tuple[StepName, ...] = ("turns", "exact", "near")
MIN_JACCARD, MIN_QUESTION_WORDS = 0.6, 5


@dataclass(frozen=True)
class Options:
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """conversations, one JSON object a line (.gz too)"""
    output: Path
    """conversations to write, one a line"""
    steps: tuple[StepName, ...] = ()
    """steps to run; left out: turns, exact, near, and each step below that an option is given for. markup mends texts that were
    copied from a chat page (HTML, "Copy code"): not for other data, where HTML is what the talk is about"""
    jaccard: float = 0.8
    """near: overlap of five-word runs from which two rows count as one"""
    questions: tuple[Path, ...] = ()
    """decontaminate: jsonl files of benchmark questions, or folders of them"""
    question_words: int = 13
    """decontaminate: words in a row that a row shares with a question that it holds"""
    languages: tuple[str, ...] = ()
    """language: codes of those to keep, such as en de; Chinese is zh wuu yue"""
    max_length: int | None = None
    """length: the most that a conversation may have"""
    length_unit: Literal["letters", "words", "tokens"] = "letters"
    """length: what is counted; tokens are of --tokenizer, without the template's"""
    tokenizer: str = ""
    """length: folder or hub id of the tokenizer"""
    too_long: length.TooLong = "drop"
    """length: drop the row, cut it after its last exchange that fits, or split it between exchanges"""
    max_repetition: float | None = None
    """repetition: share of a reply's four-word runs that may be repeats, such as 0.5"""
    min_words: int | None = None
    """short: fewest words of the replies together"""
    show: int = 0
    """print so many examples of each reason"""
    json: bool = False
    """print the account as JSON, with every row that held a benchmark's question"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise OchatError("No input given. Name at least one conversation file.")
        refuse_twice(self.inputs)
        if self.output.suffix == ".gz":
            raise OchatError(f"{self.output}: rows are written as plain text. Leave out .gz.")
        if any(path.resolve() == self.output.resolve() for path in (*self.inputs, *self.questions)):
            raise OchatError(f"{self.output} is an input too. Choose another --output.")
        for step, (option, given) in self._asked_by().items():
            if step in self.steps and not given:
                raise OchatError(f"The step {step} needs {option}. Give it, or leave the step out of --steps.")
            if given and self.steps and step not in self.steps:
                raise OchatError(f"{option} is for the step {step}, which --steps leaves out. Add it there.")
        if not MIN_JACCARD <= self.jaccard <= 1:
            raise OchatError(
                f"--jaccard is {self.jaccard}. Give {MIN_JACCARD} to 1: below, near-duplicates aren't found reliably."
            )
        if self.question_words < MIN_QUESTION_WORDS:
            raise OchatError(
                f"--question-words is {self.question_words}. Give {MIN_QUESTION_WORDS} or more: fewer words are shared by chance."
            )
        if self.max_length is not None and self.max_length < 1:
            raise OchatError(f"--max-length is {self.max_length}. Give at least 1.")
        if (self.length_unit == "tokens") != bool(self.tokenizer):
            raise OchatError("--length-unit tokens and --tokenizer go together. Give both or neither.")
        if self.max_repetition is not None and not 0 <= self.max_repetition < 1:
            raise OchatError(f"--max-repetition is {self.max_repetition}. Give a share from 0 to below 1.")
        if self.min_words is not None and self.min_words < 1:
            raise OchatError(f"--min-words is {self.min_words}. Give at least 1.")
        if self.show < 0:
            raise OchatError(f"--show is {self.show}. Give 0 or more.")

    def _asked_by(self) -> dict[StepName, tuple[str, bool]]:
        """For each step that can't do without it: an option, and whether that is given."""
        return {
            "decontaminate": ("--questions", bool(self.questions)),
            "language": ("--languages", bool(self.languages)),
            "length": ("--max-length", self.max_length is not None),
            "repetition": ("--max-repetition", self.max_repetition is not None),
            "short": ("--min-words", self.min_words is not None),
        }

    def chosen_steps(self) -> list[StepName]:
        """The steps to run, in their order."""
        asked = {step for step, (_, given) in self._asked_by().items() if given}
        wanted = set(self.steps) or asked.union(DEFAULT_STEPS)
        return [name for name in get_args(StepName) if name in wanted]


Step = Callable[[Rows, Tally], Rows]


def make_steps(options: Options, folder: Path, matches: list[Match]) -> dict[StepName, Step]:
    """The chosen steps by name, each ready to run: questions read, models loaded. Rows that must wait do so in `folder`;
    `matches` gets every benchmark question that is found."""

    def of_row(clean: Callable[..., Outcome], *values: object) -> Step:
        return lambda rows, tally: each_row(rows, tally, lambda row: clean(row, *values))

    def make(name: StepName) -> Step:
        match name:
            case "markup":
                return of_row(markup.mended, markup.load_converter())
            case "turns":
                return of_row(in_turns)
            case "refusals":
                return of_row(heuristics.without_refusal)
            case "repetition":
                return of_row(heuristics.without_repetition, options.max_repetition)
            case "short":
                return of_row(heuristics.long_enough, options.min_words)
            case "length":
                return of_row(length.fitting, options.max_length, options.too_long, load_measure(options))
            case "language":
                detect = language.load_detector(options.languages)
                return partial(language.keep_languages, languages=options.languages, detect=detect)
            case "decontaminate":
                files = [named for path in options.questions for named in question_files(path)]
                benchmarks = Benchmarks.of((read_benchmark(name, path) for name, path in files), options.question_words)
                return partial(drop_contaminated, benchmarks=benchmarks, matches=matches)
            case "exact":
                return partial(drop_exact_duplicates, folder=folder)
            case "near":
                return partial(drop_near_duplicates, folder=folder, jaccard=options.jaccard)

    return {name: make(name) for name in options.chosen_steps()}


def load_measure(options: Options) -> length.Measure:
    """What --length-unit counts."""
    if options.length_unit == "letters":
        return length.letters
    if options.length_unit == "words":
        return length.blank_separated_words
    tokenizer = load_tokenizer(model_folder(options.tokenizer, TOKENIZER_FILES))
    return lambda texts: [len(ids) for ids in tokenizer.encode_text(texts)]


def printable(text: str) -> str:
    """The text on one line, its control characters escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def table(tallies: dict[StepName, Tally]) -> str:
    """What each step read, kept, changed and dropped, and why."""
    lines = [f"{'step':<14} {'in':>11} {'out':>11} {'changed':>11} {'dropped':>11}"]
    for name, tally in tallies.items():
        numbers = (tally.n_read, tally.n_kept, tally.n_changed, tally.n_dropped)
        lines.append(f"{name:<14}" + "".join(f" {number:>11,}" for number in numbers))
        for what, counts in (("dropped", tally.drops), ("changed", tally.changes), ("", tally.notes)):
            lines += [
                f"  {count:>11,} {what + ': ' if what else ''}{printable(reason)}" for reason, count in counts.most_common()
            ]
        if tally.n_added:
            lines.append(f"  {tally.n_added:>11,} more by splitting")
    return "\n".join(lines)


def examples(tallies: dict[StepName, Tally], n_shown: int) -> Iterator[str]:
    """Lines that show `n_shown` rows of each reason."""
    for name, tally in tallies.items() if n_shown else ():
        for reason in (*tally.drops, *tally.changes, *tally.notes):
            yield f"{name}: {printable(reason)}"
            for example in [example for example in tally.examples if example.reason == reason][:n_shown]:
                yield f"  {printable(example.place)}  {printable(example.text)}"


def account(tallies: dict[StepName, Tally], matches: list[Match]) -> dict[str, object]:
    """The table as values, with every benchmark question that was found."""
    steps = [
        {
            "step": name,
            "in": tally.n_read,
            "out": tally.n_kept,
            "added": tally.n_added,
            "changed": tally.n_changed,
            "dropped": tally.n_dropped,
            "changed_by_reason": dict(tally.changes),
            "dropped_by_reason": dict(tally.drops),
            "noted": dict(tally.notes),
            "examples": [example._asdict() for example in tally.examples],
        }
        for name, tally in tallies.items()
    ]
    return {"steps": steps, "contaminated": [match._asdict() for match in matches]}


def main(options: Options) -> None:
    refuse_other_file(options.output)
    matches: list[Match] = []
    with new_file(options.output) as part:
        steps = make_steps(options, part.parent, matches)
        tallies = {name: Tally() for name in steps}
        n_written = 0
        with part.open("w", encoding="utf-8") as out:
            read = chain.from_iterable(map(read_conversations, options.inputs))
            rows: Rows = iter(tqdm(read, unit="row", mininterval=1, disable=None))
            for name, step in steps.items():
                rows = step(rows, tallies[name])
            for _, row in rows:
                out.write(row.to_json() + "\n")
                n_written += 1
        n_expected = None
        for tally in tallies.values():
            assert n_expected in (None, tally.n_read), "a row was lost between two steps"
            assert tally.n_read + tally.n_added == tally.n_kept + tally.n_dropped, "a row wasn't counted"
            n_expected = tally.n_kept
        assert n_written == n_expected, "a row was lost after the last step"
        first = next(iter(tallies.values()))
        if not first.n_read:
            raise DataError(f"{', '.join(map(str, options.inputs))}: no rows. Check the files.")
        if options.json:
            print(json.dumps(account(tallies, matches), indent=2, ensure_ascii=False))
        else:
            print(table(tallies))
            for line in examples(tallies, options.show):
                print(line)
        if not n_written:
            raise DataError(
                f"None of {counted(first.n_read, 'row')} is left, so nothing was written. See the reasons; change the steps."
            )
    if not options.json:
        print(f"Wrote {options.output}: {n_written:,} of {counted(first.n_read, 'row')}")
