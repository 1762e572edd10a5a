"""`ochat train report`: a run's log as one page of HTML that anyone can open, keep or send.

The page needs no script and no other host: the plots are SVG inside of it. Classes and conditions are words of users, so each
is escaped where it's shown; their legends are HTML, and the plots hold hardly any text but ours."""

import html
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from ochat.errors import OchatError, require
from ochat.files import write_text
from ochat.page import (
    BLACK,
    COLOURS,
    CONDITION_COLOURS,
    caption,
    draw_line,
    duration,
    escaped,
    legend,
    one_line,
    page,
    plots,
    quoted,
    section,
    swatch,
    thinned,
)
from ochat.training.card import DATA_FILE
from ochat.training.config import CONFIG_FILE, FINAL_FOLDER, LOG_FILE
from ochat.training.read_log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Below this many nats a token we say that the condition does next to nothing: a token's probability changes by 2 %.
NOTICEABLE = 0.02


@dataclass(frozen=True)
class Options:
    run: Annotated[Path, tyro.conf.Positional]
    """folder of a training run, finished or not"""
    output: Path | None = None
    """page to write; RUN/report.html when left out"""


def main(options: Options) -> None:
    require("matplotlib", "train", "The report")
    log = options.run / LOG_FILE
    if not log.is_file():
        raise OchatError(
            f"{options.run} has no {LOG_FILE}, so it's no training run. Give the folder of `ochat train run --output`."
        )
    lines = read_log(log)
    if not any(line["step"] > 0 for line in lines):
        raise OchatError(f"{log} has no step yet. Wait for the first one, and repeat.")
    settings, data = (_read_if_there(options.run / name) for name in (CONFIG_FILE, DATA_FILE))
    output = options.output or options.run / "report.html"
    finished = (options.run / FINAL_FOLDER).is_dir()
    name = options.run.resolve().name
    write_text(output, report_page(name, lines, settings, data.get("class_conditions") or {}, finished=finished))
    print(f"Report: {output}")


def _read_if_there(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}  # the page tells less


def report_page(
    name: str,
    lines: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    class_conditions: Mapping[str, Sequence[str]],
    *,
    finished: bool,
) -> str:
    """The page of a log with at least one step."""
    steps = [line for line in lines if line["step"] > 0]
    evaluations = [line for line in lines if line.get("heldout")]
    classes = _classes(lines)
    series = Series(steps)
    sections = [
        _summary(steps, series, finished),
        _class_table(classes, series, evaluations),
        section("Loss in training", _training_loss(classes, series)),
        section("Held-out rows", _heldout(classes, evaluations)),
        section("Does the condition do anything?", _counterfactual(classes, lines, class_conditions)),
        section("Share of the loss", _loss_share(classes, series)),
        section("Learning rate and gradient", _optimizer(series)),
        section("Speed and memory", _speed(series)),
        _settings(settings),
    ]
    title = f"Training report: {html.escape(name)}"
    return page(title, sections)


def _classes(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The colour of each class, the one with the most learned tokens first."""
    tokens: dict[str, float] = {}
    for line in lines:
        for part in ("classes", "heldout"):
            for name, of_class in (line.get(part) or {}).items():
                tokens[name] = tokens.get(name, 0) + of_class.get("tokens", 0)
    ordered = sorted(tokens, key=lambda name: (-tokens[name], name))
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(ordered)}


class Series:
    """The steps' values as arrays, and means over a window of steps around each."""

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        self._steps = steps
        self.numbers = np.array([line["step"] for line in steps], dtype=float)
        self.window = max(1, len(steps) // 25)

    @property
    def told(self) -> str:
        """The window in words."""
        return "the last step" if self.window == 1 else f"the last {self.window:,} steps"

    def of(self, name: str) -> np.ndarray:
        """One value a step [n]; nan where a line lacks it."""
        return np.array([_number(line.get(name)) for line in self._steps])

    def of_class(self, class_name: str, name: str) -> np.ndarray:
        """One value a step [n] of a class; nan where the step has none of the class."""
        return np.array([_number(((line.get("classes") or {}).get(class_name) or {}).get(name)) for line in self._steps])

    def smooth(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted means over the window that ends at each step [n]; nan where it holds nothing."""
        known = np.isfinite(values) & np.isfinite(weights)
        sums = [np.concatenate([[0.0], np.cumsum(np.where(known, part, 0.0))]) for part in (values * weights, weights)]
        ends = np.arange(1, len(values) + 1)
        starts = np.maximum(0, ends - self.window)
        total, weight = (part[ends] - part[starts] for part in sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(weight > 1e-12, total / weight, np.nan)

    def shares(self, class_name: str) -> np.ndarray:
        """The class's share of the loss over the window, a step without the class counting as 0 [n]."""
        of_step = np.nan_to_num(self.of_class(class_name, "loss_share"))
        return self.smooth(of_step, self.of("loss") * self.of("weight_sum"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# --- numbers


class Fact(NamedTuple):
    what: str
    value: str


def _summary(steps: Sequence[Mapping[str, Any]], series: Series, finished: bool) -> str:
    last = steps[-1]
    seconds, tokens = np.nansum(series.of("seconds")), np.nansum(series.of("tokens"))
    facts = [Fact("steps", f"{int(last['step']):,}")]
    if "epoch" in last:
        facts.append(Fact("epochs", f"{last['epoch']:.2f}"))
    facts.append(Fact("tokens", f"{int(tokens):,}"))
    if "learned_tokens" in last:
        facts.append(Fact("learned tokens", f"{int(np.nansum(series.of('learned_tokens'))):,}"))
    facts.append(Fact("time in steps", duration(seconds)))
    if seconds > 0:
        facts.append(Fact("tokens a second", f"{tokens / seconds:,.0f}"))
    mfu = series.smooth(series.of("mfu"), series.of("seconds"))
    if np.isfinite(mfu).any():
        weights = np.where(np.isfinite(series.of("mfu")), series.of("seconds"), np.nan)
        mean = np.nansum(series.of("mfu") * weights) / np.nansum(weights)
        facts.append(Fact("of the device's peak (MFU)", f"{mean:.1%}"))
    memory = series.of("memory_gb")
    if np.isfinite(memory).any():
        facts.append(Fact("most memory", f"{np.nanmax(memory):.1f} GB"))
    loss = series.smooth(series.of("loss"), series.of("weight_sum"))
    facts.append(Fact("loss, at the end", _shown(loss[-1])))
    boxes = "".join(f"<div><b>{fact.value}</b><span>{fact.what}</span></div>" for fact in facts)
    state = "The run is finished." if finished else "The run is not finished: this is what it has done so far."
    left = last.get("seconds_left")
    if not finished and left:
        state += f" At its last step it had about {duration(float(left))} left."
    return f'<p>{state}</p><div class="facts">{boxes}</div>'


def _class_table(classes: Mapping[str, str], series: Series, evaluations: Sequence[Mapping[str, Any]]) -> str:
    if not classes:
        return ""
    head = ["class", "learned tokens", "loss", "accuracy", "share of the loss"]
    head += ["first held-out loss", "last held-out loss", "held-out accuracy"] if evaluations else []
    rows = []
    for name, colour in classes.items():
        tokens = series.of_class(name, "tokens")
        values = [f"{int(np.nansum(tokens)):,}", _shown(_last(series.smooth(series.of_class(name, "nll"), tokens)))]
        values.append(_percent(_last(series.smooth(series.of_class(name, "accuracy"), tokens))))
        values.append(_percent(series.shares(name)[-1]))
        if evaluations:
            seen = [line["heldout"][name] for line in evaluations if name in line["heldout"]]
            first, last = (seen[0], seen[-1]) if seen else ({}, {})
            values += [_shown(_number(one.get("nll"))) for one in (first, last)]
            values.append(_percent(_number(last.get("accuracy"))))
        cells = "".join(f"<td>{value}</td>" for value in values)
        rows.append(f"<tr><th>{swatch(colour)}{escaped(name)}</th>{cells}</tr>")
    note = (
        f"Training figures are of {series.told}. Loss: the mean of −ln p of the tokens to learn, "
        "without weights; 0 is certainty. Accuracy: how often the model's first choice was the token. "
        "Share of the loss: how much of the weighted loss, so of what drives the training, is of this class."
    )
    table = f"<table><tr>{''.join(f'<th>{escaped(cell)}</th>' for cell in head)}</tr>{''.join(rows)}</table>"
    return f'<div class="wide">{table}</div><p class="note">{note}</p>'


def _last(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else math.nan


def _shown(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "–"


# --- sections with plots


def _training_loss(classes: Mapping[str, str], series: Series) -> Iterator[str]:
    shown = list(classes)[: len(COLOURS)]

    def draw(axes: "Axes") -> None:
        drawn = [(classes[name], series.of_class(name, "nll"), series.of_class(name, "tokens")) for name in shown]
        for colour, raw, weights in drawn or [(BLACK, series.of("loss"), series.of("weight_sum"))]:
            draw_line(axes, series.numbers, raw, color=colour, alpha=0.25, linewidth=0.8)
            draw_line(axes, series.numbers, series.smooth(raw, weights), color=colour, linewidth=1.8)
        axes.set_ylabel("loss, nats a token")

    yield plots([draw])
    yield legend({name: classes[name] for name in shown} or {"all classes": BLACK})
    yield caption(
        f"The mean loss of a token to learn, by class, at each step (faint) and as the mean of {series.told} (strong). It "
        "should fall fast and then slowly. The classes may settle at different heights: a less regular source is harder to predict."
    )
    yield _left_out(classes)


def _heldout(classes: Mapping[str, str], evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not evaluations:
        yield caption(
            "No rows were held out, so nothing tells whether the model learned more than these rows. "
            "<code>ochat data tokenize --heldout 0.02</code> holds some out."
        )
        return
    shown = [name for name in classes if any(name in line["heldout"] for line in evaluations)][: len(COLOURS)]

    def draw(part: str, label: str, scale: float) -> Callable[["Axes"], None]:
        def on(axes: "Axes") -> None:
            for name in shown:
                lines = [line for line in evaluations if name in line["heldout"]]
                values = [scale * _number(line["heldout"][name].get(part)) for line in lines]
                axes.plot([line["step"] for line in lines], values, color=classes[name], marker="o", markersize=4)
            axes.set_ylabel(label)

        return on

    yield plots([draw("nll", "loss, nats a token", 1), draw("accuracy", "accuracy, %", 100)])
    yield legend({name: classes[name] for name in shown})
    yield caption(
        "Rows whose prompts training never sees. Step 0 is the model before training. Where this loss turns and rises while the one "
        "in training falls on, the model learns the rows by heart: fewer epochs or more data help."
    )


def _counterfactual(
    classes: Mapping[str, str], lines: Sequence[Mapping[str, Any]], class_conditions: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    measured = [line for line in lines if line.get("counterfactual")]
    if not measured:
        yield caption("Not measured: it needs held-out rows and at least one condition.")
        return
    table: dict[str, dict[str, float]] = measured[-1]["counterfactual"]
    conditions = sorted({condition for losses in table.values() for condition in losses})
    colours = {condition: CONDITION_COLOURS[n % len(CONDITION_COLOURS)] for n, condition in enumerate(conditions)}
    names = [name for name in classes if name in table] + sorted(set(table) - set(classes))
    yield f"<p><b>{condition_sentence(table)}</b>{_before(measured)}</p>"
    if len(names) * len(conditions) <= 60:
        yield plots([lambda axes: _bars(axes, names, table, colours)], height=0.8 + 0.22 * len(names) * (len(conditions) + 1))
        yield legend(colours)
    head = "".join(f"<th>{escaped(condition) or 'no condition'}</th>" for condition in conditions)
    rows = ""
    for name in names:
        lowest = min(table[name].values(), default=math.nan)
        cells = ""
        for condition in conditions:
            value = _number(table[name].get(condition))
            shown = f"<b>{_shown(value)}</b>" if value == lowest else _shown(value)
            cells += f"<td>{shown}{' *' if condition in class_conditions.get(name, ()) else ''}</td>"
        rows += f"<tr><th>{escaped(name)}</th>{cells}</tr>"
    yield f'<div class="wide"><table><tr><th>answers of the class</th>{head}</tr>{rows}</table></div>'
    own = " A star marks the condition that the class was trained under." if class_conditions else ""
    yield caption(
        "The same held-out answers, scored under each condition: their mean loss in nats a token, lowest in bold."
        f"{own} Where the condition works, each class's answers are likeliest under its own one. Where the numbers of a row are "
        "alike, the model doesn't read the condition."
    )


def _bars(axes: "Axes", names: Sequence[str], table: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]) -> None:
    height = 1 / (len(colours) + 1)
    for number, (condition, colour) in enumerate(colours.items()):
        places = [row + (number - (len(colours) - 1) / 2) * height for row in range(len(names))]
        values = [_number(table[name].get(condition)) for name in names]
        axes.barh(places, values, height=0.9 * height, color=colour)
        for place, value in zip(places, values, strict=True):
            if math.isfinite(value):
                axes.annotate(f"{value:.2f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set_yticks(range(len(names)), [one_line(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("loss of held-out answers, nats a token")
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1)


class Contrast(NamedTuple):
    """From condition `before` to `after`, the loss of class `up` changes by `up_by` and that of class `down` by `down_by`."""

    up: str
    down: str
    before: str
    after: str
    up_by: float
    down_by: float

    @property
    def size(self) -> float:
        return self.up_by - self.down_by


def largest_contrast(table: Mapping[str, Mapping[str, float]]) -> Contrast | None:
    """The change of condition that tells two classes apart most; None where there's no pair of classes and conditions.

    A change that moves all classes alike only says that the words of the prompt are unusual; here that cancels."""
    classes = list(table)
    found = [
        Contrast(up, down, before, after, table[up][after] - table[up][before], table[down][after] - table[down][before])
        for number, up in enumerate(classes)
        for down in classes[number + 1 :]
        for before in table[up]
        for after in table[up]
        if before != after and {before, after} <= table[down].keys()
    ]
    found = [one for one in found if math.isfinite(one.size)]
    return max(found, key=lambda one: one.size, default=None)


def condition_sentence(table: Mapping[str, Mapping[str, float]]) -> str:
    """Whether the condition does anything, from the losses of each class's answers under each condition. HTML."""
    found = largest_contrast(table)
    if found is None:
        return "It takes held-out answers of two classes and two conditions to tell."
    change = f"from {quoted(found.before)} to {quoted(found.after)}"
    told = f"{escaped(found.up)}'s loss changes by {found.up_by:+.3f} and {escaped(found.down)}'s by {found.down_by:+.3f} nats a token"
    if found.size < NOTICEABLE:
        return f"The condition does next to nothing: at most, {change}, {told}."
    if found.down_by < 0 < found.up_by:
        return (
            f"Yes: each class's answers are likelier under a condition of their own. {change[0].upper()}{change[1:]}, {told}."
        )
    return f"Partly: {change}, {told}. The condition tells the classes apart, yet one condition makes both likelier."


def _before(measured: Sequence[Mapping[str, Any]]) -> str:
    """How far the same contrast was before training, if that was measured."""
    now, first = largest_contrast(measured[-1]["counterfactual"]), measured[0]
    if now is None or first["step"] != 0 or len(measured) < 2:
        return ""
    then = first["counterfactual"]
    try:
        changes = [then[name][now.after] - then[name][now.before] for name in (now.up, now.down)]
    except KeyError:
        return ""
    return f" Before training these changes were {changes[0]:+.3f} and {changes[1]:+.3f}."


def _loss_share(classes: Mapping[str, str], series: Series) -> Iterator[str]:
    shown = list(classes)[: len(COLOURS)]
    shares = {name: series.shares(name) for name in shown}
    if not any(np.isfinite(series.of_class(name, "loss_share")).any() for name in shown):
        return

    def draw(axes: "Axes") -> None:
        places = thinned(series.numbers, series.numbers)[0]
        stacked = np.nan_to_num([thinned(series.numbers, shares[name])[1] for name in shown])
        axes.stackplot(places, 100 * stacked, colors=[classes[name] for name in shown], alpha=0.75)
        axes.set_ylabel("share of the loss, %")
        axes.set_ylim(0, 100)

    yield plots([draw], height=2.2)
    yield legend({name: classes[name] for name in shown})
    yield caption(
        f"Each class's part of the weighted loss, in {series.told}: its weight times its tokens times how "
        "badly it's predicted. A class with next to no share teaches next to nothing; a larger weight gives it more."
    )
    yield _left_out(classes)


def _optimizer(series: Series) -> Iterator[str]:
    def draw(name: str, label: str) -> Callable[["Axes"], None]:
        def on(axes: "Axes") -> None:
            draw_line(axes, series.numbers, series.of(name), color=BLACK, linewidth=1.2)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))

        return on

    yield plots([draw("lr", "learning rate"), draw("grad_norm", "norm of the gradient")])
    yield caption(
        "The learning rate rises, then falls along a cosine. The gradient's norm is taken before it's clipped: it should stay "
        "of one size. High peaks mean rows that fit nothing else, or too high a rate."
    )


def _speed(series: Series) -> Iterator[str]:
    wanted = (("tokens_per_second", "tokens a second"), ("memory_gb", "memory, GB"), ("mfu", "MFU, %"))
    values = {name: series.of(name) for name, _ in wanted}
    if not np.isfinite(values["tokens_per_second"]).any():
        with np.errstate(invalid="ignore", divide="ignore"):
            values["tokens_per_second"] = series.of("tokens") / series.of("seconds")
    there = [(name, label) for name, label in wanted if np.isfinite(values[name]).any()]
    if not there:
        return

    def draw(name: str, label: str) -> Callable[["Axes"], None]:
        def on(axes: "Axes") -> None:
            scale = 100 if name == "mfu" else 1
            draw_line(axes, series.numbers, scale * values[name], color=BLACK, linewidth=1.2)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)

        return on

    yield plots([draw(name, label) for name, label in there])
    yield caption(
        "Real tokens, prompts too; there is no padding."
        + (" MFU is the share of the device's peak arithmetic that the model's own work takes." if "mfu" in dict(there) else "")
    )


def _settings(settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    rows = "".join(
        f"<tr><th>{escaped(str(name))}</th><td>{escaped(_plain(value))}</td></tr>" for name, value in settings.items()
    )
    return f"<details><summary>Settings of the run</summary><table>{rows}</table></details>"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _left_out(classes: Mapping[str, str]) -> str:
    n_more = len(classes) - len(COLOURS)
    return caption(f"The {n_more} classes with the fewest tokens are in the table alone.") if n_more > 0 else ""
