"""`ochat data report`: what a model will learn from this data, before it does: a page of HTML, a table, JSON.

Rows are read once. Kept of each are some numbers; texts are looked at as they pass, and wait on disk for the comparison with each
other. Languages and form are of a sample of each class. So memory doesn't grow with the texts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from ochat.conversation import read_conversations
from ochat.data.classes import read_classes
from ochat.data.clean.contamination import Benchmarks, question_files, read_benchmark
from ochat.data.clean.exact import ROWS_PER_BATCH
from ochat.data.clean.language import load_detector
from ochat.data.clean.tally import Rows
from ochat.data.dataset import read_meta
from ochat.data.report.advice import HALF, advice, named
from ochat.data.report.findings import Advice, Findings, Source, findings
from ochat.data.report.report_page import report_page
from ochat.data.report.row_table import Measure, RowTable, TableMaker, in_letters, in_tokens, measured, of_dataset
from ochat.data.report.shares import losses_of_run, weight_for_share
from ochat.data.report.texts import Duplicates, Samples, Texts, find_duplicates
from ochat.data.sets import SETS
from ochat.errors import DataError, OchatError, require
from ochat.files import make_folder, refuse_twice, told_if_full, write_text
from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.registry import ModelType, detect_model_type, load_template, model_type

QUESTION_WORDS = 13
PAGE_SUFFIX = ".html"


@dataclass(frozen=True)
class Options:
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """conversations, one JSON object a line (.gz too), or one data-set folder"""
    output: Path | None = None
    """page to write; beside the first input when left out"""
    tokenizer: str = ""
    """folder or hub id of the tokenizer: tokens are counted, as training sees them; without one, letters"""
    model_type: str = ""
    """model type; read from the tokenizer's folder when left out"""
    max_tokens: int | None = None
    """rows are cut to so many tokens; the model type's context when left out"""
    questions: tuple[Path, ...] = ()
    """jsonl files of benchmark questions, or folders of them, to look for in the rows"""
    classes: Path | None = None
    """YAML file of classes (examples/classes.yaml), for their weights; without it a class's weight is the commonest of what is learned of it"""
    best: tuple[str, ...] = ()
    """the good classes, whatever they weigh; the heaviest when left out"""
    licences: dict[str, str] = field(default_factory=dict)
    """the classes' licences: CLASS LICENCE CLASS LICENCE …; those of known data sets' classes are known"""
    run: Path | None = None
    """folder of a training run on this data, whose losses make the shares of the loss exact"""
    json: bool = False
    """print all that was found as JSON"""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise OchatError("No input given. Name conversation files, or a data-set folder.")
        refuse_twice(self.inputs)
        if self.output and self.output.suffix != PAGE_SUFFIX:
            raise OchatError(f"--output is {self.output}. Name a page, such as report.html.")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise OchatError(f"--max-tokens is {self.max_tokens}. Give at least 2.")
        if not self.tokenizer and (self.model_type or self.max_tokens):
            raise OchatError("--model-type and --max-tokens are about tokens. Name a --tokenizer too.")
        if not self.is_dataset:
            return
        if len(self.inputs) > 1:
            raise OchatError(f"{self.inputs[0]} is a folder. Give one data-set folder alone, or conversation files.")
        if self.tokenizer or self.questions:
            raise OchatError("A data-set folder has its tokens, and no text. Leave out --tokenizer and --questions.")

    @property
    def is_dataset(self) -> bool:
        """Whether the input is a data-set folder."""
        return any(path.is_dir() for path in self.inputs)

    @property
    def page(self) -> Path:
        """Where the page is written."""
        first = self.inputs[0]
        name = first.name.removesuffix(".gz").removesuffix(".jsonl")
        return self.output or (first / "report.html" if self.is_dataset else first.with_name(f"{name}.report.html"))


@dataclass(frozen=True)
class Seen:
    """What was read of the rows."""

    table: RowTable
    texts: Texts | None = None
    duplicates: tuple[Duplicates, Duplicates] | None = None


def read_rows(rows: Rows, measure: Measure, max_tokens: int | None, benchmarks: Benchmarks | None, folder: Path) -> Seen:
    """One pass over conversations; they wait in `folder` meanwhile."""
    maker = TableMaker(max_tokens)
    texts = Texts(Samples(load_detector(())), benchmarks)

    def looked_at() -> Iterator[Any]:
        for batch in measured(rows, maker, measure, ROWS_PER_BATCH):
            texts.add(batch)
            yield from batch

    duplicates = find_duplicates(looked_at(), folder)
    return Seen(maker.table(), texts, duplicates)


def main(options: Options) -> None:
    for module in ("matplotlib", "py3langid"):
        require(module, "data", "The report")
    weights = {}
    if options.classes:
        weights = {name: quality.weight for name, quality in read_classes(options.classes).classes.items()}
    make_folder(options.page.parent)
    kind: ModelType | None = None
    max_tokens: int | None = None
    meta: dict[str, Any] = {}
    if options.is_dataset:
        meta = read_meta(options.inputs[0])
        kind, max_tokens = model_type(meta["model_type"]), meta.get("max_tokens")
        seen = Seen(of_dataset(options.inputs[0]))
    else:
        measure: Measure = in_letters
        if options.tokenizer:
            tokens = model_folder(options.tokenizer, TOKENIZER_FILES)
            kind = detect_model_type(tokens, options.model_type)
            max_tokens = options.max_tokens or kind.max_context
            measure = in_tokens(load_template(kind, tokens))
        benchmarks = None
        if options.questions:
            files = [of_file for path in options.questions for of_file in question_files(path)]
            benchmarks = Benchmarks.of((read_benchmark(name, path) for name, path in files), QUESTION_WORDS)
        read = chain.from_iterable(map(read_conversations, options.inputs))
        rows: Rows = iter(tqdm(read, unit="row", mininterval=1, disable=None))
        with told_if_full(options.page), TemporaryDirectory(dir=options.page.parent, prefix=".report-") as folder:
            seen = read_rows(rows, measure, max_tokens, benchmarks, Path(folder))
    table = seen.table
    if not len(table):
        raise DataError(f"{', '.join(map(str, options.inputs))}: no rows. Check the files.")
    check_names(options, table.class_names)
    source = Source(
        inputs=list(map(str, options.inputs)),
        unit="tokens" if kind else "letters",
        model_type=kind.name if kind else "",
        default_condition=kind.format.default_condition if kind and kind.format.takes_condition else None,
        max_tokens=max_tokens,
        meta=meta,
        licences=known_licences() | options.licences,
        weights=weights,
        losses=losses_of_run(options.run, table.class_names) if options.run else None,
        best=options.best,
    )
    found = findings(table, source, seen.texts, seen.duplicates)
    of_classes = {name: one.weights for name, one in found.classes.items()}
    warnings = advice(found, weight_for_share(table, of_classes, source.losses, found.sub_optimal, HALF))
    write_text(options.page, report_page(title(options.inputs), found, warnings, table))
    if options.json:
        print(json.dumps(as_json(found, warnings), indent=2, ensure_ascii=False))
    else:
        print(terminal_table(found, warnings))
        print(f"Report: {options.page}")


def title(inputs: Sequence[Path]) -> str:
    """What the data is called."""
    return inputs[0].name + (f" and {len(inputs) - 1} more" if len(inputs) > 1 else "")


def known_licences() -> dict[str, str]:
    """The licences of the known data sets, by the names of their classes."""
    return {of_class.name: one.licence for one in SETS for of_class in one.classes}


def check_names(options: Options, known: Sequence[str]) -> None:
    """Raise OchatError where an option names a class that isn't there."""
    for option, names in (("--best", options.best), ("--licences", options.licences)):
        if unknown := [name for name in names if name not in known]:
            raise OchatError(f"{option} names {', '.join(unknown)}. The rows' classes: {', '.join(map(named, known))}.")


def as_json(found: Findings, warnings: Sequence[Advice]) -> dict[str, Any]:
    """All of it as JSON has it."""
    value = asdict(found)
    for part in ("exact", "near"):
        if value[part]:
            value[part]["examples"] = [example._asdict() for example in getattr(found, part).examples]
    if found.contamination:
        value["contamination"]["matches"] = [match._asdict() for match in found.contamination.matches]
    return value | {"warnings": [asdict(one) for one in warnings]}


def terminal_table(found: Findings, warnings: Sequence[Advice]) -> str:
    """The most of it in lines of text."""
    width = max(len("class"), *(len(named(name)) for name in found.classes))
    unit = found.unit
    lines = [
        f"{'class':<{width}} {'rows':>9} {unit:>12} {'to learn':>12} {'message x class = weight':>26} {'weight sum':>12} "
        f"{'share of loss':>13} {'effective rows':>14}"
    ]
    for name, one in found.classes.items():
        weights = one.weights
        product = weights.message_weight * weights.class_weight
        factors = f"{weights.message_weight:.3g} x {weights.class_weight:.3g} = {product:.3g}"
        lines.append(
            f"{named(name):<{width}} {one.rows:>9,} {one.tokens:>12,} {one.learned_tokens:>12,} {factors:>26} "
            f"{weights.weight_sum:>12,.0f} {weights.loss_share:>13.1%} {weights.effective_rows:>14,.0f}"
        )
    if found.what_if:
        lines += ["", f"Share of the loss if {', '.join(map(named, found.sub_optimal))} weighed:"]
        lines.append(f"{'':<{width}}" + "".join(f" {weight:>7g}" for weight in found.what_if))
        for name in found.classes:
            lines.append(f"{named(name):<{width}}" + "".join(f" {shares[name]:>7.1%}" for shares in found.what_if.values()))
    for title, told in (("replies", found.told_by_replies), ("prompts", found.told_by_prompts)):
        for name, of_class in told.items():
            sign = of_class.signs[0].name
            lines += ["", f"{named(name)} told by the form of its {title}: AUC {of_class.auc:.2f}, most by {sign}"]
    for warning in warnings:
        lines += ["", f"! {warning.problem}", f"  {warning.remedy}"]
    return "\n".join(lines)
