"""All that the report tells, as values: the page, the terminal's table and the JSON are three ways to show them."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from ochat.data.clean.contamination import Match
from ochat.data.clean.language import NO_LANGUAGE
from ochat.data.report.row_table import Array, RowTable
from ochat.data.report.shares import WHAT_IF, ClassWeights, class_weights, effective_size, shares_if, sub_optimal
from ochat.data.report.surface import Told, told_apart
from ochat.data.report.texts import Duplicates, Texts

PERCENTILES = (5, 25, 50, 75, 95, 99, 100)
MAX_OVERLAP_CLASSES = 12  # those with the most rows; the table grows with their square


@dataclass(frozen=True)
class ClassTexts:
    """What the texts of a class show."""

    exact_duplicates: int
    near_duplicates: int
    contaminated: int | None  # None: not looked for
    refusals: int
    empty_replies: int
    system_prompts: int
    sample_rows: int
    languages: dict[str, float]  # shares of the sample; "unsure" and "none" too


@dataclass(frozen=True)
class ClassFindings:
    """What one class brings."""

    conditions: list[str]
    licence: str
    rows: int
    unlearned_rows: int
    tokens: int
    learned_tokens: int
    weights: ClassWeights
    lengths: dict[int, float]  # by percentile; the same of the next
    learned_lengths: dict[int, float]
    replies_a_row: float
    multi_turn_share: float
    prompts: int
    cut_rows: int
    cut_tokens: int
    texts: ClassTexts | None


@dataclass(frozen=True)
class Advice:
    """A warning: what is the matter, and what to do about it."""

    problem: str
    remedy: str


@dataclass(frozen=True)
class Contamination:
    """Benchmark questions in rows."""

    n_questions: int
    rows_by_benchmark: dict[str, int]
    matches: list[Match]


@dataclass(frozen=True)
class Findings:
    """All of it."""

    inputs: list[str]
    unit: str  # "tokens" or "letters"
    model_type: str
    default_condition: str | None  # of the model type; None where that isn't known
    max_tokens: int | None
    heldout_rows: int
    cut_rows: int
    cut_tokens: int
    dropped_rows: int  # with nothing to learn, which a data-set folder lacks
    effective_rows: float
    effective_tokens: float
    classes: dict[str, ClassFindings]
    losses: dict[str, float] | None
    best_named: bool
    sub_optimal: list[str]
    what_if: dict[float, dict[str, float]]  # each class's share of the loss, by the sub-optimal classes' weight
    overlap: dict[str, dict[str, float]]  # the share of a class's prompts that another has too
    exact: Duplicates | None
    near: Duplicates | None
    contamination: Contamination | None
    told_by_replies: dict[str, Told] = field(default_factory=dict)
    told_by_prompts: dict[str, Told] = field(default_factory=dict)
    unknown_classes: list[str] = field(default_factory=list)  # that --classes lacks

    def total(self, name: str) -> int:
        """The sum of one of the classes' numbers."""
        return sum(getattr(of_class, name) for of_class in self.classes.values())


@dataclass(frozen=True)
class Source:
    """Where the rows came from, and what was given beside them."""

    inputs: list[str]
    unit: str
    model_type: str = ""
    default_condition: str | None = None
    max_tokens: int | None = None
    meta: Mapping[str, int] = field(default_factory=dict)  # of a data-set folder
    licences: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)  # of classes, by a table
    losses: dict[str, float] | None = None
    best: Collection[str] = ()


def percentiles(values: Array) -> dict[int, float]:
    """The values' percentiles."""
    found = np.percentile(values, PERCENTILES) if len(values) else np.zeros(len(PERCENTILES))
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


def prompt_sets(table: RowTable) -> dict[str, Array]:
    """The different prompts of each class, sorted."""
    return {name: np.unique(table.prompts[table.classes == number]) for number, name in enumerate(table.class_names)}


def overlaps(prompts: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """For each class, the share of its prompts that each other one has too."""
    largest = sorted(prompts, key=lambda name: -len(prompts[name]))[:MAX_OVERLAP_CLASSES]
    found: dict[str, dict[str, float]] = {}
    for one, other in permutations(largest, 2):
        shared = found.get(other, {}).get(one)
        n_shared = (
            len(np.intersect1d(prompts[one], prompts[other], assume_unique=True))
            if shared is None
            else round(shared * len(prompts[other]))
        )
        found.setdefault(one, {})[other] = n_shared / len(prompts[one])
    return found


def languages_of(texts: Texts, name: str) -> dict[str, float]:
    """The share of each language in the class's sample, the most frequent first."""
    names = {NO_LANGUAGE: "none", "": "unsure"}
    found = Counter(names.get(row.language, row.language) for row in texts.samples.of_class.get(name, []))
    return {language: count / found.total() for language, count in found.most_common()}


def findings(
    table: RowTable, source: Source, texts: Texts | None, duplicates: tuple[Duplicates, Duplicates] | None
) -> Findings:
    """Everything, from the rows' numbers and their texts."""
    weights = class_weights(table, source.weights, source.losses)
    names = sorted(table.class_names, key=lambda name: (-weights[name].class_weight, -weights[name].weight_sum))
    prompts = prompt_sets(table)
    classes = {}
    for name in names:
        number = table.class_names.index(name)
        mine = table.classes == number
        cut = table.uncut[mine] - table.lengths[mine]
        classes[name] = ClassFindings(
            conditions=table.conditions.get(name, []),
            licence=source.licences.get(name, ""),
            rows=int(mine.sum()),
            unlearned_rows=int((table.weight_sums[mine] <= 0).sum()),
            tokens=int(table.lengths[mine].sum(dtype=np.int64)),
            learned_tokens=int(table.learned[mine].sum(dtype=np.int64)),
            weights=weights[name],
            lengths=percentiles(table.lengths[mine]),
            learned_lengths=percentiles(table.learned[mine]),
            replies_a_row=float(table.n_replies[mine].mean()),
            multi_turn_share=float((table.n_replies[mine] > 1).mean()),
            prompts=len(prompts[name]),
            cut_rows=int((cut > 0).sum()),
            cut_tokens=int(cut.sum()),
            texts=_class_texts(name, texts, duplicates) if texts and duplicates else None,
        )
    less = sub_optimal({name: weights[name] for name in names}, source.best)
    total = float(table.weight_sums.sum())
    tellings = [{}, {}] if texts is None else [_told(texts, names, part) for part in ("reply", "prompt")]
    benchmarks = texts.benchmarks if texts else None
    return Findings(
        inputs=source.inputs,
        unit=source.unit,
        model_type=source.model_type,
        default_condition=source.default_condition,
        max_tokens=source.max_tokens,
        heldout_rows=source.meta.get("heldout_rows", 0),
        cut_rows=source.meta.get("cut_rows", 0) + sum(of_class.cut_rows for of_class in classes.values()),
        cut_tokens=source.meta.get("cut_tokens", 0) + sum(of_class.cut_tokens for of_class in classes.values()),
        dropped_rows=source.meta.get("dropped_rows", 0),
        effective_rows=effective_size(total, float((table.weight_sums**2).sum())),
        effective_tokens=effective_size(total, float(table.square_sums.sum())),
        classes=classes,
        losses=source.losses,
        best_named=bool(source.best),
        sub_optimal=less,
        what_if={weight: shares_if(table, weights, source.losses, less, weight) for weight in WHAT_IF} if less else {},
        overlap=overlaps({name: prompts[name] for name in names}),
        exact=duplicates[0] if duplicates else None,
        near=duplicates[1] if duplicates else None,
        contamination=(
            Contamination(len(benchmarks.questions), dict(texts.of_benchmark.most_common()), texts.matches)
            if texts and benchmarks
            else None
        ),
        told_by_replies=tellings[0],
        told_by_prompts=tellings[1],
        unknown_classes=[name for name in names if source.weights and name not in source.weights],
    )


def _class_texts(name: str, texts: Texts, duplicates: tuple[Duplicates, Duplicates]) -> ClassTexts:
    exact, near = duplicates
    return ClassTexts(
        exact_duplicates=exact.by_class.get(name, 0),
        near_duplicates=near.by_class.get(name, 0),
        contaminated=texts.contaminated[name] if texts.benchmarks else None,
        refusals=texts.refusals[name],
        empty_replies=texts.empty[name],
        system_prompts=texts.systems[name],
        sample_rows=len(texts.samples.of_class.get(name, [])),
        languages=languages_of(texts, name),
    )


def _told(texts: Texts, names: list[str], part: str) -> dict[str, Told]:
    return {names[number]: told for number, told in told_apart(*texts.samples.texts(names, part)).items()}
