"""The report as a page of HTML: what was found, with plots, for someone who hasn't seen the command."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ochat.data.report.advice import percent
from ochat.data.report.findings import Advice, Findings
from ochat.data.report.row_table import Array, RowTable
from ochat.data.report.surface import FOLDS, Told
from ochat.data.report.texts import JACCARD, SAMPLE_ROWS, Duplicates
from ochat.page import COLOURS, caption, escaped, legend, one_line, page, plots, section, swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colours = Mapping[str, str]
Draw = Callable[["Axes"], None]

MAX_EXAMPLES = 8
N_BINS = 40


def report_page(name: str, found: Findings, warnings: Sequence[Advice], table: RowTable) -> str:
    """The page; `name` is what the data is called."""
    colours = {class_name: COLOURS[number % len(COLOURS)] for number, class_name in enumerate(found.classes)}
    sections = [
        _summary(found),
        section("What to look at", _warnings(warnings)),
        section("What will be learned from", _classes(found, colours)),
        section("Who drives the training", _loss(found, colours)),
        section("Lengths and turns", _lengths(found, colours, table)),
        section("The same prompts, the same texts", _same(found, colours)),
        section("Could form alone tell the class?", _form(found, colours)),
        section("What the texts show", _texts(found, colours)),
        section("Benchmark questions", _benchmarks(found)),
        section("How it was counted", _method(found)),
    ]
    return page(f"What this data teaches: {escaped(name)}", sections)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    lines += [f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _plots(draws: Sequence[Draw], height: float = 2.8) -> str:
    """Plots that keep their size on a narrow page, and can be moved in it."""
    return f'<div class="wide">{plots(draws, height)}</div>'


def _sentence(text: str) -> str:
    """A text of ours with words of users in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(one_line(text, 1000)))


def _class(name: str, colours: Colours) -> str:
    return f'<span class="name">{swatch(colours[name])}{escaped(name)}</span>'


def _summary(found: Findings) -> str:
    facts = {
        "rows": f"{found.total('rows'):,}",
        "classes": f"{len(found.classes):,}",
        found.unit: f"{found.total('tokens'):,}",
        f"{found.unit} to learn": f"{found.total('learned_tokens'):,}",
        "effective rows": f"{found.effective_rows:,.0f}",
    }
    boxes = "".join(f"<div><b>{value}</b><span>{what}</span></div>" for what, value in facts.items())
    return f'<p class="note">{", ".join(map(escaped, found.inputs))}</p><div class="facts">{boxes}</div>'


def _warnings(warnings: Sequence[Advice]) -> Iterator[str]:
    if not warnings:
        yield "<p>Nothing that this report looks for is the matter.</p>"
        return
    items = "".join(f"<li>{_sentence(one.problem)}<br><span>{_sentence(one.remedy)}</span></li>" for one in warnings)
    yield f'<ul class="warnings">{items}</ul>'


def _classes(found: Findings, colours: Colours) -> Iterator[str]:
    rows = found.total("rows")
    has_licences = any(of_class.licence for of_class in found.classes.values())
    head = [
        "class",
        "condition",
        "rows",
        "of all",
        found.unit,
        f"{found.unit} to learn",
        *(["licence"] if has_licences else []),
    ]
    cells = []
    for name, of_class in found.classes.items():
        conditions = ", ".join(escaped(condition) if condition else "none" for condition in of_class.conditions[:3])
        if len(of_class.conditions) > 3:
            conditions += f" and {len(of_class.conditions) - 3} more"
        numbers = [f"{of_class.rows:,}", percent(of_class.rows / rows), f"{of_class.tokens:,}", f"{of_class.learned_tokens:,}"]
        licence = [escaped(of_class.licence) if of_class.licence else "unknown"] if has_licences else []
        cells.append([_class(name, colours), conditions or "none", *numbers, *licence])
    yield _table(head, cells)
    if not has_licences:
        yield caption("Licences are unknown: <code>--licences CLASS LICENCE</code> tells them.")


def _loss(found: Findings, colours: Colours) -> Iterator[str]:
    head = ["class", "message weight", "× class weight", "= mean weight", "sum of weights", "share of the loss"]
    head += ["share, each answer alike", "rows", "effective rows", f"effective {found.unit}"]
    cells = []
    for name, of_class in found.classes.items():
        weights = of_class.weights
        factors = [weights.message_weight, weights.class_weight, weights.message_weight * weights.class_weight]
        numbers = [
            *(f"{factor:.3g}" for factor in factors),
            f"{weights.weight_sum:,.0f}",
            f"<b>{percent(weights.loss_share)}</b>",
        ]
        sizes = [f"{of_class.rows:,}", f"{weights.effective_rows:,.0f}", f"{weights.effective_tokens:,.0f}"]
        cells.append([_class(name, colours), *numbers, percent(weights.per_answer_share), *sizes])
    yield _table(head, cells)
    known = (
        "its weights times the mean loss of its tokens in the run that <code>--run</code> names."
        if found.losses
        else f"its part of the sum of weights over {found.unit} to learn, as if all were equally hard to predict. The log of a "
        "training run tells how hard they are; <code>--run RUN</code> takes that in."
    )
    yield caption(
        f"A class's share of the loss: {known} “Each answer alike” is the share under <code>--per-sequence-loss</code>. Effective "
        "rows, (Σw)² / Σw² with w a row's sum of weights: so many rows of equal weight would average as well."
    )
    if found.what_if:
        yield from _what_if(found, colours)


def _what_if(found: Findings, colours: Colours) -> Iterator[str]:
    now = {name: of_class.weights.loss_share for name, of_class in found.classes.items()}
    cases = {"now": now} | {f"{weight:g}": shares for weight, shares in found.what_if.items()}

    def draw(axes: "Axes") -> None:
        lefts = np.zeros(len(cases))
        for name, colour in colours.items():
            widths = 100 * np.array([shares[name] for shares in cases.values()])
            axes.barh(range(len(cases)), widths, left=lefts, color=colour, height=0.7)
            for place, (left, width) in enumerate(zip(lefts, widths, strict=True)):
                if width >= 5:
                    axes.text(left + width / 2, place, f"{width:.0f} %", ha="center", va="center", color="white", fontsize=8)
            lefts += widths
        axes.set_yticks(range(len(cases)), list(cases))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the loss, %")
        axes.set_ylabel("weight")
        axes.grid(axis="y", visible=False)

    names = ", ".join(map(escaped, found.sub_optimal))
    one = len(found.sub_optimal) == 1
    yield f"<p>If the sub-optimal class{'' if one else 'es'} {names} {'' if one else 'each '}weighed:</p>"
    yield _plots([draw], height=0.7 + 0.32 * len(cases))
    yield legend(colours)
    rows = [[_class(name, colours), *(percent(shares[name]) for shares in cases.values())] for name in found.classes]
    yield _table(["weight", *cases], rows)
    yield caption(
        "Sub-optimal are the classes that <code>--best</code> doesn't name."
        if found.best_named
        else "Sub-optimal are the classes that weigh less than the heaviest; <code>--best</code> names the good ones otherwise."
    )


def round_numbers(low: float, high: float) -> list[float]:
    """Where to mark an axis of powers: at 1, 2, 5 and 10 times them, at powers of ten alone where those are many, or at both ends."""
    powers = [10.0**power for power in range(8)]
    within = [digit * power for power in powers for digit in (1, 2, 5) if low <= digit * power <= high]
    return [mark for mark in within if len(within) <= 6 or mark in powers] if len(within) > 1 else [low, high]


def _lengths(found: Findings, colours: Colours, table: RowTable) -> Iterator[str]:
    def histogram(values: Array, label: str) -> "Draw":
        low = max(1, int(values.min(initial=1 << 30)))
        edges = np.unique(np.round(np.geomspace(low, max(low + 1, int(values.max(initial=1)) + 1), N_BINS)))

        def draw(axes: "Axes") -> None:
            for name, colour in colours.items():
                mine = values[table.classes == table.class_names.index(name)]
                counts, _ = np.histogram(np.maximum(1, mine), edges)
                # per factor of a length, so that bins of unlike width compare
                heights = counts / max(1, len(mine)) / np.diff(np.log10(edges))
                axes.stairs(heights, edges, color=colour, linewidth=1.6)
            axes.set_xscale("log")
            ticks = round_numbers(float(edges[0]), float(edges[-1]))
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
            axes.minorticks_off()  # matplotlib would name them 6×10^1 where there's no power of ten
            axes.set_yticks([])
            axes.set_xlabel(label)
            axes.set_ylabel("rows of the class")

        return draw

    yield _plots(
        [histogram(table.lengths, f"{found.unit} of a row"), histogram(table.learned, f"{found.unit} to learn in a row")]
    )
    yield legend(colours)
    shown = (5, 50, 95, 99, 100)
    titles = {50: "median", 100: "longest"}
    head = ["class"] + [titles.get(part, f"{part}&nbsp;%") for part in shown]
    head += [f"to learn: {titles.get(part, f'{part}&nbsp;%')}" for part in (5, 50, 95)]
    head += ["replies a row", "several turns"]
    if found.max_tokens:
        head += ["rows cut", f"{found.unit} lost"]
    cells = []
    for name, one in found.classes.items():
        numbers = [f"{one.lengths[part]:,.0f}" for part in shown] + [
            f"{one.learned_lengths[part]:,.0f}" for part in (5, 50, 95)
        ]
        numbers += [f"{one.replies_a_row:.2f}", percent(one.multi_turn_share)]
        cells.append(
            [_class(name, colours), *numbers, *([f"{one.cut_rows:,}", f"{one.cut_tokens:,}"] if found.max_tokens else [])]
        )
    yield _table(head, cells)
    text = "Each curve has the same area, whatever the class's number of rows. 5 % of the rows are no longer than the first figure, and so on."
    if found.max_tokens:
        text += f" Rows are cut to {found.max_tokens:,} tokens: {found.cut_rows:,} are, and lose {found.cut_tokens:,} tokens."
    yield caption(text)


def _same(found: Findings, colours: Colours) -> Iterator[str]:
    if found.overlap:
        names = [name for name in found.classes if name in found.overlap]
        cells = [
            [_class(one, colours), f"{found.classes[one].prompts:,}"]
            + [percent(found.overlap[one][other]) if one != other else "" for other in names]
            for one in names
        ]
        yield _table(["prompts of …", "different ones", *(f"also in {escaped(name)}" for name in names)], cells)
        yield caption(
            "Prompts that several classes answer show the difference that the classes are about, and nothing else. A prompt is the "
            "first message with the system prompt."
        )
    if found.exact is None or found.near is None:
        return
    cells = []
    for title, one in (("the same, word for word", found.exact), ("nearly the same", found.near)):
        own, across = (
            sum(n for reason, n in one.by_reason.items() if ("another" in reason) == is_across) for is_across in (False, True)
        )
        by_class = ", ".join(f"{escaped(name)} {n:,}" for name, n in one.by_class.items())
        cells.append([title, f"{own:,}", f"{across:,}", by_class or "–"])
    yield _table(["rows that say", "as another of their class", "as one of another class", "by class"], cells)
    yield caption(
        f"Of rows that say the same, the heaviest isn't counted. Nearly the same: runs of five words overlap by {JACCARD} or more, in the "
        "whole and in the replies. This is what <code>ochat data clean</code> drops."
    )
    yield _examples("Some of them", [*_first(found.exact), *_first(found.near)])


def _first(duplicates: Duplicates) -> list[tuple[str, str, str]]:
    return [(example.reason, example.place, example.text) for example in duplicates.examples[:MAX_EXAMPLES]]


def _examples(title: str, examples: Sequence[tuple[str, str, str]]) -> str:
    if not examples:
        return ""
    rows = "".join(
        f"<tr><td>{_sentence(reason)}</td><td>{_sentence(place)}</td><td>{_sentence(text)}</td></tr>"
        for reason, place, text in examples
    )
    return f"<details><summary>{title}</summary><table>{rows}</table></details>"


def _form(found: Findings, colours: Colours) -> Iterator[str]:
    parts = (("replies", found.told_by_replies), ("prompts", found.told_by_prompts))
    names = [name for name in found.classes if any(name in told for _, told in parts)]
    if not names:
        return
    cells = []
    for name in names:
        for what, told in parts:
            if name in told:
                of_class: Told = told[name]
                signs = "<br>".join(
                    f"{escaped(sign.name)}: {sign.auc:.2f} ({_mean(sign.in_class)} against {_mean(sign.in_others)})"
                    for sign in of_class.signs[:4]
                )
                cells.append([_class(name, colours), what, f"<b>{of_class.auc:.2f}</b>", signs])
    table = _table(["class", "by its", "AUC", "what tells most: each sign's AUC alone (its mean against the others')"], cells)
    yield table.replace('class="wide"', 'class="wide text"')
    yield caption(
        "A small classifier sees only form, such as lengths, lists, signs and the first word, and says of which class a text is. AUC: the "
        "chance that it gives a text of the class the higher score of two; 0.5 is a guess, 1 certainty. Where the replies' is high, that form is "
        "the first thing that the condition will teach. Where the prompts' is high, the classes were asked different things. Logistic "
        f"regression, {FOLDS} folds by prompt, on at most {SAMPLE_ROWS:,} rows of each class; a sign alone below 0.5 speaks against the class."
    )


def _mean(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _texts(found: Findings, colours: Colours) -> Iterator[str]:
    cells = []
    for name, of_class in found.classes.items():
        texts = of_class.texts
        if texts is None:
            continue
        counts = (texts.refusals, texts.empty_replies, texts.system_prompts)
        languages = ", ".join(
            f"{escaped(language)} {percent(share)}" for language, share in texts.languages.items() if share >= 0.005
        )
        cells.append([_class(name, colours), *(f"{n:,} ({percent(n / of_class.rows)})" for n in counts), languages])
    if cells:
        yield _table(["class", "rows with a refusal", "with an empty reply", "with a system prompt", "languages"], cells)
        yield caption(
            "A refusal is known by how a reply opens, which is wrong at times. Languages are of the sample; “none” are numbers and code, and "
            "“unsure” mostly short texts."
        )


def _benchmarks(found: Findings) -> Iterator[str]:
    if found.contamination is None:
        if any(of_class.texts for of_class in found.classes.values()):
            yield caption("Not looked for: name files of benchmark questions with <code>--questions</code>.")
        return
    one = found.contamination
    if not one.rows_by_benchmark:
        yield f"<p>None of {one.n_questions:,} questions is in a row.</p>"
        return
    yield _table(
        ["benchmark", "rows with a question of it"], [[escaped(name), f"{n:,}"] for name, n in one.rows_by_benchmark.items()]
    )
    yield caption(f"Of {one.n_questions:,} questions; a row holds one where they share 13 words in a row.")
    yield _examples("Some of them", [(m.benchmark, m.row, f"{m.question}: {m.words}") for m in one.matches[: 2 * MAX_EXAMPLES]])


def _method(found: Findings) -> Iterator[str]:
    if found.unit == "letters":
        yield caption("Lengths are letters, a guess at tokens: <code>--tokenizer</code> counts tokens, as training does.")
    elif found.model_type:
        yield caption(f"Tokens are those that training sees, in the template of {escaped(found.model_type)}.")
    if not any(of_class.texts for of_class in found.classes.values()):
        yield caption(
            "A data-set folder has tokens, not texts. The report of the conversations that it was made of shows duplicates, benchmark "
            f"questions, refusals, languages and form too. {found.heldout_rows:,} rows are held out, and not counted here."
        )
