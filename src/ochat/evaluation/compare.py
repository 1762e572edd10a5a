"""`ochat eval compare`: is one evaluation better than another on the same questions, or is it chance?

Two scores on the same questions are no two scores: most of the noise is the questions', and a paired comparison takes it out. So
every run is set beside the first, question by question; conditions of one model, checkpoints and models in the same way."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ochat.errors import OchatError
from ochat.evaluation.results import Row, Run, find_runs
from ochat.evaluation.statistics import Estimate, mcnemar, mean_paired_difference, mean_share, share
from ochat.evaluation.tasks import BENCHMARKS, PLUS
from ochat.files import write_json

OVERALL = "mean of benchmarks"


@dataclass(frozen=True)
class Options:
    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """folders of `ochat eval run`, or one that holds several; the first is what the others are compared with"""
    json: Path | None = None
    """write the figures to this file too"""


def main(options: Options) -> None:
    runs = find_runs(options.results)
    if len(runs) < 2:
        raise OchatError(f"{', '.join(map(str, options.results))} hold one evaluation. Name two folders, or a sweep's.")
    table, figures = comparison(runs)
    print(table)
    if options.json:
        write_json(options.json, figures)


@dataclass(frozen=True)
class Difference:
    """One run beside the first, on the questions that both have."""

    benchmark: str
    n: int
    accuracy: Estimate
    difference: Estimate | None  # to the first; None for the first itself
    p: float | None  # McNemar's; None over several benchmarks, which count alike there and not by their questions


def differences(first: Run, run: Run) -> list[Difference]:
    """The differences of a run to the first, a benchmark each and then over all of them; none where they share no question."""
    pairs = _pairs(first, run)
    rows = []
    for benchmark, both in pairs.items():
        one = Difference(benchmark, len(both), share(sum(new.correct for _, new in both), len(both)), None, None)
        if run is not first:
            only_first = sum(old.correct > new.correct for old, new in both)
            only_new = sum(new.correct > old.correct for old, new in both)
            one = Difference(benchmark, one.n, one.accuracy, _difference([both]), mcnemar(only_first, only_new))
        rows.append(one)
    pairs.pop(BENCHMARKS[PLUS].name, None)  # the same replies as HumanEval's
    if len(pairs) > 1:
        accuracy = mean_share([[new.correct for _, new in both] for both in pairs.values()])
        difference = None if run is first else _difference(list(pairs.values()))
        rows.append(Difference(OVERALL, sum(map(len, pairs.values())), accuracy, difference, None))
    return rows


def _difference(groups: Sequence[Sequence[tuple[Row, Row]]]) -> Estimate:
    return mean_paired_difference([([new.correct for _, new in both], [old.correct for old, _ in both]) for both in groups])


def _pairs(first: Run, run: Run) -> dict[str, list[tuple[Row, Row]]]:
    """The rows of both runs for the same question, by benchmark."""
    old = {(row.place, row.question): row for row in first.rows}
    pairs = {}
    for task_type, rows in run.by(lambda row: row.task_type).items():
        both = [(old[row.place, row.question], row) for row in rows if (row.place, row.question) in old]
        if both:
            pairs[BENCHMARKS[task_type].name] = both
    return pairs


def left_out(first: Run, run: Run) -> str:
    """How many questions a comparison leaves out since one of the two runs doesn't have them; "" for none."""
    old, new = ({(row.place, row.question) for row in one.rows} for one in (first, run))
    counts = ((len(old - new), "the first"), (len(new - old), "it"))
    parts = [f"{n:,} that only {whose} has" for n, whose in counts if n]
    return f"left out are questions, {' and '.join(parts)}" if parts else ""


def comparison(runs: Sequence[Run]) -> tuple[str, list[dict[str, object]]]:
    """A table of every run beside the first, and its figures. Raises OchatError where one shares no question with the first."""
    compared = [(run, differences(runs[0], run)) for run in runs]
    for run, rows in compared:
        if not rows:
            raise OchatError(
                f"{runs[0].folder} and {run.folder} have no question in common. Compare runs of the same benchmarks."
            )
    figures: list[dict[str, object]] = [
        {"folder": str(run.folder), "model": run.model, "condition": run.condition, "rows": [asdict(row) for row in rows]}
        for run, rows in compared
    ]
    width = max(len(run.name) for run in runs)
    lines = []
    for benchmark in dict.fromkeys(row.benchmark for _, rows in compared for row in rows):
        lines += ["", f"{benchmark}", f"  {'':{width}}  questions  right [95 % interval]   minus the first, same questions"]
        for run, rows in compared:
            for row in rows:
                if row.benchmark == benchmark:
                    lines.append(f"  {run.name:{width}}  {row.n:>9}  {row.accuracy}{_beside(row)}")
    lines += [
        "",
        f"Each is compared with the first, {runs[0].name}; p is McNemar's, of one comparison. A difference whose interval holds 0 may be chance.",
        *(f"{run.name}: {told}" for run in runs[1:] if (told := left_out(runs[0], run))),
    ]
    return "\n".join(lines), figures


def _beside(row: Difference) -> str:
    if row.difference is None:
        return ""
    chance = "" if row.p is None else f"  p {row.p:.3f}" if row.p >= 0.001 else "  p < 0.001"
    return f"   {row.difference.signed()}{chance}"
