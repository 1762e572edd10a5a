"""The ablation's page: bars with intervals over seeds, what the condition does, curves, sweeps, and what doesn't carry over.

Each plot is also written as a file beside the page, so that it can be shown elsewhere."""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ochat.evaluation.statistics import Estimate, mean_of_runs
from ochat.experiment.ablation_results import (
    NOT_NOTED,
    ArmRun,
    Results,
    SweepValue,
    accuracy,
    difference,
    sweep_verdict,
    verdict,
)
from ochat.experiment.ablation_run import STATES_FILE
from ochat.experiment.arms import BY_NAME, C_RLFT, EXPERT_CLASS, NEITHER, SHUFFLED, SUBOPTIMAL_CLASS
from ochat.files import write_text
from ochat.page import BLACK, COLOURS, CONDITION_COLOURS, caption, draw_line, escaped, page, plots, section
from ochat.training.config import LOG_FILE
from ochat.training.read_log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMITS = (
    "A small model on arithmetic shows the mechanism: the condition separates what the sources do, and the weight decides whose way "
    "counts where they share parameters. It doesn't say how much a 7B model gains on open-ended chat. There the base model knows "
    "most of the task, sources differ in style more than in a systematic mistake, answers are judged rather than checked, and a share "
    "of expert data is thousands of conversations."
)


def write_report(path: Path, results: Results, command: str) -> None:
    """Write the page, and its plots in the folder `figures` beside it; `command` is what makes them."""
    figures: dict[str, str] = {}
    sections = [
        "".join(f"<p>{html.escape(line)}</p>" for line in verdict(results)),
        section("Every arm", _arms(results, figures)),
        section("Does the condition do anything?", _condition(results, figures)),
        section("Inside the model", _states(results, figures)),
        section("Curves", _curves(results, figures)),
        *(section(f"Sweep: {_words(name)}", _sweep(name, values, figures)) for name, values in results.sweeps.items()),
        section("What doesn't carry over", iter([f"<p>{LIMITS}</p>"])),
        _settings(results, command),
    ]
    write_text(path, page(f"Ablation: {escaped(results.setting.name)}", sections))
    for name, svg in figures.items():
        write_text(path.parent / "figures" / f"{name}.svg", svg + "\n")


def _words(name: str) -> str:
    return {"expert_share": "share of expert rows", "weight": "weight of the sub-optimal class"}.get(
        name, "share of the sub-optimal answers that keep the carries"
    )


def _arms(results: Results, figures: dict[str, str]) -> Iterator[str]:
    names = list(results.arms)
    estimates = [accuracy(runs) for runs in results.arms.values()]

    def draw(axes: "Axes") -> None:
        for place, (name, estimate) in enumerate(zip(names, estimates, strict=True)):
            colour = COLOURS[0] if name == C_RLFT.name else "#9aa5b1"
            axes.barh(place, estimate.value, color=colour, height=0.62)
            _whisker(axes, estimate, place)
            points = [run.accuracy[run.conditions[0]] for run in results.arms[name]]
            axes.plot(points, [place + 0.2] * len(points), "o", color=BLACK, markersize=2.5)
        axes.set_yticks(range(len(names)), [BY_NAME[name].title for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("share of right answers")
        axes.grid(axis="y", visible=False)

    figures["arms"] = plots([draw], height=0.9 + 0.34 * len(names))
    yield figures["arms"]
    n = len(results.seeds)
    yield caption(
        f"Mean over {n} seeds with its 95 % interval (Student's, over seeds: {_drawn(results)} are drawn anew; not corrected "
        "for looking at many arms), and each seed as a dot. An interval that goes past 0 or 1 is cut there. "
        f"{results.setting.n_test} questions each that no row answers; greedy replies of at most "
        f"{results.setting.max_reply_tokens} tokens: for a model that wasn't trained to answer shortly its share is a lower bound."
    )
    yield from _arms_table(results, estimates)


def _arms_table(results: Results, estimates: Sequence[Estimate]) -> Iterator[str]:
    """The same figures, with what each arm took; `estimates` in the order of the arms."""
    head = "".join(
        f"<th>{cell}</th>"
        for cell in (
            "arm",
            "right",
            "carries forgotten",
            "under the other condition",
            "C-RLFT's lead",
            "share of the full length",
            "steps",
            "seconds",
        )
    )
    full, rows = results.arms.get(C_RLFT.name), ""
    for (name, runs), estimate in zip(results.arms.items(), estimates, strict=True):
        other = runs[0].conditions[1:]
        cells = [
            _unbroken(str(estimate)),
            f"{mean_of_runs([run.mistaken[run.conditions[0]] for run in runs]).value:.3f}",
            f"{mean_of_runs([run.accuracy[other[0]] for run in runs]).value:.3f}" if other else "–",
            _unbroken(difference(full, runs).signed()) if full and name != C_RLFT.name else "–",
            ", ".join(dict.fromkeys("+".join(f"{share:g}" for share in run.shares) for run in runs)) or "–",
            f"{mean_of_runs([run.steps for run in runs]).value:,.0f}",
            f"{mean_of_runs([run.seconds for run in runs]).value:.0f}",
        ]
        rows += f"<tr><th>{escaped(BY_NAME[name].title)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
    yield caption(
        "Carries forgotten: of the questions with a carry, the share answered as the sub-optimal source does. Of the full length: by "
        f"stage; where there was a choice, what {results.setting.n_validation} other questions preferred, each length trained by "
        "itself. Steps: of the chosen ones. The lead is the mean of each seed's own difference."
    )


def _drawn(results: Results) -> str:
    return "rows, beginning and questions" if results.setting.shape is not None else "rows and questions"


def _unbroken(text: str) -> str:
    return text.replace(" ", "&nbsp;")


def _whisker(axes: "Axes", estimate: Estimate, place: float, *, upright: bool = False) -> None:
    """An interval's line, as far as it lies between 0 and 1."""
    ends = [min(1.0, max(0.0, end)) for end in (estimate.low, estimate.high)]
    if not np.isfinite(estimate.high):
        return  # one seed
    if upright:
        axes.plot([place, place], ends, color=BLACK, linewidth=1.2)
    else:
        axes.plot(ends, [place, place], color=BLACK, linewidth=1.2)


def _with_losses(results: Results) -> dict[str, Sequence[ArmRun]]:
    return {name: runs for name, runs in results.arms.items() if all(run.losses for run in runs)}


def _condition_colours(results: Results) -> dict[str, str]:
    """What the colours of the conditions stand for."""
    expert, other = results.setting.conditions
    return {
        f"under {expert}, the expert's condition": CONDITION_COLOURS[0],
        f"under {other}, the other": CONDITION_COLOURS[1],
    }


def _condition(results: Results, figures: dict[str, str]) -> Iterator[str]:
    arms = _with_losses(results)
    if not arms:
        return
    colours = dict(zip(results.setting.conditions, CONDITION_COLOURS, strict=False))
    sources = (EXPERT_CLASS, SUBOPTIMAL_CLASS)
    estimates = {
        (name, source, condition): mean_of_runs([run.losses[source][condition] for run in runs])
        for name, runs in arms.items()
        for source in sources
        for condition in colours
    }
    # All at one scale: at its own the control's chance would look as large as the effect.
    ends = [end for estimate in estimates.values() for end in (estimate.value, estimate.high) if np.isfinite(end)]

    def draw(name: str) -> Callable[["Axes"], None]:
        def on(axes: "Axes") -> None:
            for row, source in enumerate(sources):
                for number, (condition, colour) in enumerate(colours.items()):
                    place = row + (number - 0.5) * 0.36
                    estimate = estimates[name, source, condition]
                    axes.barh(place, estimate.value, height=0.32, color=colour)
                    if np.isfinite(estimate.low):
                        axes.plot([max(0, estimate.low), estimate.high], [place, place], color=BLACK, linewidth=1.2)
            axes.set_yticks((0, 1), ("right answers", "forgotten carries"))
            axes.tick_params(axis="y", labelleft=name == next(iter(arms)))  # the others' are the same, and titles need the room
            axes.set_ylim(1.6, -0.6)
            axes.set_xlim(0, 1.05 * max(ends))
            axes.set_title(BY_NAME[name].title, fontsize=9)
            axes.set_xlabel("loss, nats a token")
            axes.grid(axis="y", visible=False)

        return on

    figures["losses"] = plots([draw(name) for name in arms], height=2.4, colours=_condition_colours(results))
    yield figures["losses"]
    yield caption(
        "The counterfactual loss: the same answers to the test questions with a carry, scored under each condition. Where the condition "
        "works, right answers are likelier under the expert's (its bar is the shorter), and forgotten carries under the other; where "
        "conditions were shuffled, both bars of a pair are alike. "
        f"Means over {len(results.seeds)} seeds with 95 % intervals. All at one scale; an interval that goes below 0 is cut there."
    )


def _projected(states: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """Each condition's states [n, H] in the plane of the two first principal components of all, [n, 2], and the variance's share there."""
    whole = np.concatenate(list(states.values())).astype(np.float64)
    centre = whole.mean(axis=0)
    _, values, axes = np.linalg.svd(whole - centre, full_matrices=False)
    share = float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-30))
    return {name: (found.astype(np.float64) - centre) @ axes[:2].T for name, found in states.items()}, share


def _states(results: Results, figures: dict[str, str]) -> Iterator[str]:
    shown = [
        (name, results.folders[name][0] / STATES_FILE)
        for name in (C_RLFT.name, SHUFFLED.name)
        if name in results.folders and (results.folders[name][0] / STATES_FILE).is_file()
    ]
    if not shown:
        return
    colours = dict(zip(results.setting.conditions, CONDITION_COLOURS, strict=False))

    projected = {}
    for name, path in shown:
        with np.load(path) as file:
            projected[name] = _projected({condition: file[condition] for condition in colours})
    end = 1.05 * max(float(np.abs(found).max()) for points, _ in projected.values() for found in points.values())

    def draw(name: str) -> Callable[["Axes"], None]:
        points, share = projected[name]

        def on(axes: "Axes") -> None:
            for ends in zip(*points.values(), strict=True):
                axes.plot(*np.transpose(ends), color="#999999", linewidth=0.5, zorder=0)
            for condition, colour in colours.items():
                axes.scatter(points[condition][:, 0], points[condition][:, 1], s=7, color=colour, alpha=0.7, linewidths=0)
            axes.set_title(f"{BY_NAME[name].title} ({share:.0%} of the variance)", fontsize=9)
            axes.set_xlabel("first principal component")
            axes.set_ylabel("second")
            axes.set(xlim=(-end, end), ylim=(-end, end))

        return on

    opened = results.setting.task.reversed
    figures["states"] = plots([draw(name) for name in projected], height=3.7, colours=_condition_colours(results))
    yield figures["states"]
    yield caption(
        f"The last layer's state from which {'the first token that a carry decides' if opened else 'the answer'} is predicted, for the "
        "same questions under each condition, projected on their two principal components; seed "
        f"{results.arms[shown[0][0]][0].seed}. A line joins the two states of a question: the longer, the more the condition changes in "
        "it. Both pictures at one scale."
    )


def _curves(results: Results, figures: dict[str, str]) -> Iterator[str]:
    shown = [name for name in (C_RLFT.name, "no-weight", NEITHER.name) if name in results.folders]
    logs = {name: results.folders[name][0] / "stage-1" / "run-1" / LOG_FILE for name in shown}
    if not logs:
        return
    colours = {EXPERT_CLASS: COLOURS[0], SUBOPTIMAL_CLASS: COLOURS[1]}

    def draw(name: str, path: Path) -> Callable[["Axes"], None]:
        lines = [line for line in read_log(path) if line["step"] > 0]

        def on(axes: "Axes") -> None:
            for source, colour in colours.items():
                own = [line for line in lines if source in line["classes"]]
                if not own:
                    continue  # its weight is 0
                steps, values = (
                    np.array(x, float) for x in zip(*((w["step"], w["classes"][source]["nll"]) for w in own), strict=True)
                )
                window = max(1, len(values) // 60)
                smooth = np.convolve(values, np.ones(window) / window, "valid")
                draw_line(axes, steps[window - 1 :], smooth, color=colour, linewidth=1.6)
            axes.set_title(BY_NAME[name].title, fontsize=9)
            axes.set_ylabel("loss in training, nats a token")
            axes.set_ylim(bottom=0)

        return on

    told = {"the expert's answers": colours[EXPERT_CLASS], "the sub-optimal answers": colours[SUBOPTIMAL_CLASS]}
    figures["curves"] = plots([draw(name, path) for name, path in logs.items()], height=2.8, colours=told)
    yield figures["curves"]
    yield caption(
        f"The loss of each source's answers while training, without weights; seed {results.arms[shown[0]][0].seed}. Whether the "
        "sub-optimal source forgets the carries of a question is chance, so that its loss falls further only as rows are learned by heart."
    )


def _sweep(name: str, values: Sequence[SweepValue], figures: dict[str, str]) -> Iterator[str]:
    arms = list(dict.fromkeys(arm for at in values for arm in at.arms))
    colours = {BY_NAME[arm].title: COLOURS[number] for number, arm in enumerate(arms)}

    def draw(axes: "Axes") -> None:
        for number, arm in enumerate(arms):
            own = [(place, accuracy(at.arms[arm])) for place, at in enumerate(values) if arm in at.arms]
            places = [place + 0.06 * (number - (len(arms) - 1) / 2) for place, _ in own]
            axes.plot(places, [estimate.value for _, estimate in own], color=COLOURS[number], marker="o", markersize=4)
            for place, (_, estimate) in zip(places, own, strict=True):
                _whisker(axes, estimate, place, upright=True)
        axes.set_xticks(range(len(values)), [f"{at.value:g}" for at in values])
        axes.set_xlabel(_words(name))
        axes.set_ylabel("share of right answers")
        axes.set_ylim(0, 1.02)

    figures[f"sweep-{name.replace('_', '-')}"] = plots([draw], height=3.0, colours=colours)
    yield figures[f"sweep-{name.replace('_', '-')}"]
    seeds = sorted({run.seed for at in values for runs in at.arms.values() for run in runs})
    told = [line for arm in arms if arm != C_RLFT.name and (line := sweep_verdict(values, arm))]
    yield caption(
        f"Means over up to {len(seeds)} seeds with 95 % intervals; an arm that doesn't depend on what is turned has one value. "
        "An interval that goes past 0 or 1 is cut there. "
        f"Few seeds: what isn't told apart may still differ. {' '.join(told)}"
    )


def _settings(results: Results, command: str) -> str:
    made = {
        "command": command,
        "ochat": version("ochat-crlft"),  # that wrote the page
        "the runs' versions": "; ".join(results.versions),
        "machine": "; ".join(results.machines) or NOT_NOTED,
    }
    given = {**made, **asdict(results.setting), **asdict(results.point), "seeds": results.seeds}
    rows = "".join(f"<tr><th>{escaped(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in given.items())
    return f"<details open><summary>Command, machine and settings</summary><table>{rows}</table></details>"
