"""The page of an evaluation: scores with their intervals, every file's figures, and questions with their replies and grades.

One file without a script or another host, so that it can be kept with a paper or sent. Of GPQA it shows figures alone."""

import html
import random
from collections.abc import Mapping, Sequence

from ochat.evaluation.card import CARD, GROK
from ochat.evaluation.compare import OVERALL, differences, left_out
from ochat.evaluation.results import Row, Run, count
from ochat.evaluation.statistics import Estimate
from ochat.evaluation.tasks import BENCHMARKS, PRIVATE
from ochat.evaluation.view_results import by_file, card_rows, cells_of, subset_notes
from ochat.page import BLACK, COLOURS, caption, legend, one_line, page, section

_STYLE = """<style>
section details { margin: .4rem 0 } pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; font-size: .82rem;
background: #f4f6f8; padding: .4rem .6rem; border-radius: 4px; max-height: 22rem; overflow-y: auto }
.right { color: #00664a } .wrong { color: #a33c00 } .none { color: #666 } tr.reported td { color: #666 }
.question { border-left: 3px solid #e4e4e4; padding-left: .8rem; margin: .8rem 0 }
</style>"""
_WIDTH, _LEFT, _BAR = 860, 130, 15
_MAX_SHOWN = 8000  # characters of a reply


def results_page(runs: Sequence[Run], n_examples: int) -> str:
    """The whole page."""
    names = ", ".join(dict.fromkeys(run.model for run in runs))
    n = sum(len(run.rows) for run in runs)
    facts = f'<div class="facts"><div><b>{n:,}</b><span>replies graded</span></div><div><b>{len(runs)}</b><span>runs</span></div></div>'
    colours = {run.name: COLOURS[index % len(COLOURS)] for index, run in enumerate(runs)}
    return page(
        f"Evaluation of {html.escape(one_line(names))}",
        [
            _STYLE,
            facts,
            section("Scores", [legend(colours), _bars(runs), caption(_SCORES)]),
            section("Differences to the first", _differences(runs)),
            section("As the model card has them", _card(runs)),
            section("How they were answered", [_answered(runs)]),
            section("Every file", _files(runs)),
            section("Questions and replies", _questions(runs, n_examples)),
        ],
    )


_SCORES = (
    "The share of replies that are right, with its 95 % interval (Wilson’s). A dot is the original’s grader on the same replies, faults "
    "included: where it’s far from the bar’s end, the graders disagree."
)


def _bars(runs: Sequence[Run]) -> str:
    groups = {
        task_type: [(index, count(found[task_type])) for index, found in enumerate(_types(runs)) if task_type in found]
        for task_type in BENCHMARKS
    }
    parts, y = [], 6.0
    for task_type, counts in groups.items():
        if not counts:
            continue
        middle = y + len(counts) * _BAR / 2
        parts.append(_text(_LEFT - 8, middle + 4, BENCHMARKS[task_type].name, "end"))
        for index, of in counts:
            estimate, colour = of.accuracy, COLOURS[index % len(COLOURS)]
            parts.append(_rect(_x(0), y + 2, _x(estimate.value) - _x(0), _BAR - 4, colour))
            parts.append(_interval(estimate, y + _BAR / 2))
            if of.compatible is not None:
                parts.append(
                    f'<circle cx="{_x(of.compatible):.1f}" cy="{y + _BAR / 2:.1f}" r="3" fill="#fff" stroke="{BLACK}"/>'
                )
            parts.append(_text(_WIDTH - 4, y + _BAR - 3, f"{100 * estimate.value:.1f}", "end"))
            y += _BAR
        y += 10
    for tick in range(0, 101, 20):
        x = _x(tick / 100)
        parts.insert(0, f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{y:.0f}" stroke="#e4e4e4"/>')
        parts.append(_text(x, y + 12, f"{tick} %", "middle"))
    return f'<svg viewBox="0 0 {_WIDTH} {y + 18:.0f}" role="img" font-size="12" font-family="sans-serif">{"".join(parts)}</svg>'


def _types(runs: Sequence[Run]) -> list[Mapping[str, list[Row]]]:
    return [run.by(lambda row: row.task_type) for run in runs]


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - 50)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{BLACK}">{html.escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _interval(estimate: Estimate, y: float) -> str:
    low, high = _x(estimate.low), _x(estimate.high)
    return f'<path d="M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 3:.1f}v6M{high:.1f} {y - 3:.1f}v6" stroke="{BLACK}" fill="none"/>'


def _table(rows: Sequence[Sequence[str]], marks: Sequence[str] = ()) -> str:
    """Rows of HTML cells, the first being the head; marks are the rows' classes."""
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in rows[0])}</tr>"]
    for index, row in enumerate(rows[1:]):
        mark = f' class="{marks[index]}"' if marks and marks[index] else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _differences(runs: Sequence[Run]) -> list[str]:
    differing = {run.name: {row.benchmark: row for row in differences(runs[0], run)} for run in runs[1:]}
    compared = [found for found in differing.values() if found]
    if not compared:
        return []
    rows = [["", *(html.escape(name) for name, found in differing.items() if found)]]
    for benchmark in dict.fromkeys(name for found in compared for name in found):
        cells = []
        for found in compared:
            row = found.get(benchmark)
            if row is None or row.difference is None:
                cells.append("-")
                continue
            sure = row.difference.low > 0 or row.difference.high < 0
            p = "" if row.p is None else f", p {row.p:.3f}" if row.p >= 0.001 else ", p &lt; 0.001"
            told = f"{100 * row.difference.value:+.1f} [{100 * row.difference.low:+.1f}, {100 * row.difference.high:+.1f}]{p}"
            cells.append(f"<b>{told}</b>" if sure else told)
        rows.append([f"<b>{benchmark}</b>" if benchmark == OVERALL else benchmark, *cells])
    return [
        _table(rows),
        caption(
            f"Points above or below {html.escape(runs[0].name)} on the same questions, with the 95 % interval of a paired bootstrap and "
            "McNemar’s p of one comparison. Bold: the interval doesn’t hold 0. Among twenty comparisons one is bold by chance."
        ),
        *(
            caption(html.escape(f"{run.name}: {left_out(runs[0], run)}"))
            for run in runs[1:]
            if differing[run.name] and left_out(runs[0], run)
        ),
    ]


def _card(runs: Sequence[Run]) -> list[str]:
    parts = []
    for table in (CARD, GROK):
        shown = card_rows(table, runs)
        if not all(row.reported for row in shown):
            rows = [[html.escape(row.name) + (" *" if row.reported else ""), *row.cells] for row in shown]
            marks = ["reported" if row.reported else "" for row in shown]
            parts.append(_table([["", "Average", *table.columns.values()], *rows], marks))
            parts += [caption(html.escape(note)) for note in subset_notes(table, runs)]
    return (
        [*parts, caption("* As reported by others, not measured here. An average stands only where every column does.")]
        if parts
        else []
    )


def _answered(runs: Sequence[Run]) -> str:
    rows = [["", "questions", "right [95 %]", "original’s grader", "no answer found", "cut by length"]]
    for run in runs:
        for task_type, some in run.by(lambda row: row.task_type).items():
            benchmark = BENCHMARKS[task_type]
            cells = [benchmark.counted(len(some)), *cells_of(count(some))]
            rows.append([f"{html.escape(run.name)}: {benchmark.name}", *cells])
    return _table(rows)


def _files(runs: Sequence[Run]) -> list[str]:
    parts = []
    for task_type, files in by_file(runs).items():
        rows = [["", "questions", *(html.escape(run.name) for run in runs)]]
        for name, counts in files.items():
            cells = [cells_of(counts[i])[0] if i in counts else "-" for i in range(len(runs))]
            rows.append([html.escape(name.removeprefix(f"{task_type}/")), str(next(iter(counts.values())).n), *cells])
        parts.append(
            f"<details><summary>{BENCHMARKS[task_type].name}: {len(files)} file{'s' * (len(files) != 1)}</summary>{_table(rows)}</details>"
        )
    return parts


def _questions(runs: Sequence[Run], n_examples: int) -> list[str]:
    parts, left_out = [], 0
    for name in dict.fromkeys(row.task_name for run in runs for row in run.rows):
        places: dict[tuple[str, int], list[tuple[Run, Row]]] = {}
        for run in runs:
            for row in run.rows:
                if row.task_name == name and row.task_type != PRIVATE:
                    places.setdefault(row.place, []).append((run, row))
        chosen = sorted(places)
        if n_examples and len(chosen) > n_examples:
            left_out += len(chosen) - n_examples
            chosen = sorted(random.Random(name).sample(chosen, n_examples))
        if chosen:
            body = "".join(_question(places[place]) for place in chosen)
            parts.append(f"<details><summary>{html.escape(name)}: {len(chosen)} of {len(places)}</summary>{body}</details>")
    told = f"{left_out:,} questions are left out here, drawn at random; <code>grades.jsonl</code> has all, and <code>--examples 0</code> shows them."
    return [*parts, caption(told if left_out else "All questions are here.")] if parts else []


def _question(given: Sequence[tuple[Run, Row]]) -> str:
    first = given[0][1]
    parts = [
        f'<p class="note">question {first.row + 1}, expected {html.escape(str(first.label))}</p>',
        f"<pre>{_shortened(first.question)}</pre>",
    ]
    for run, row in given:
        mark = "right" if row.correct else "wrong" if row.found else "none"
        taken = "" if isinstance(row.answer, bool) or not row.answer else f", taken as {html.escape(one_line(str(row.answer)))}"
        verdict = ("right" if row.correct else "wrong") + taken if row.found else "no answer found"
        if row.compatible is not None and row.compatible != row.correct:
            verdict += f"; the original’s grader says {'right' if row.compatible else 'wrong'}"
        verdict += "; cut by its length" if row.cut else ""
        parts.append(
            f'<p class="note">{html.escape(run.name)}: <b class="{mark}">{verdict}</b></p><pre>{_shortened(row.reply)}</pre>'
        )
    return f'<div class="question">{"".join(parts)}</div>'


def _shortened(text: str) -> str:
    """A text in HTML, the middle of a long one left out, as nobody reads a reply that looped; half characters as they can be shown."""
    if len(text) > _MAX_SHOWN:
        half = _MAX_SHOWN // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
    return html.escape(text.encode("utf-8", "replace").decode())
