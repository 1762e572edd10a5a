"""Pieces of a page of HTML that anyone can open, keep or send: sections, legends, and plots as SVG inside of it.

The page needs no script and no other host. What users wrote (names of classes and conditions) is escaped where it's shown; legends
are HTML but where a plot is also a file of its own, and the plots hold hardly any text but ours."""

import html
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart with every usual kind of colour blindness (Okabe & Ito 2008), black for the whole run.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
CONDITION_COLOURS = ("#4b3f72", "#b39ddb", "#37474f", "#a5b4bb", "#7b3f00", "#d7b899")  # no class's colour
BLACK = "#222222"
MAX_POINTS = 600  # of a line in a plot


def duration(seconds: float) -> str:
    """A time in words: 90 s, 14 min, 3 h 05 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def section(title: str, parts: Iterable[str]) -> str:
    """A part of the page, or nothing where it would be empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{title}</h2>\n{body}\n</section>" if body else ""


def one_line(text: str, n_most: int = 60) -> str:
    """A user's text in one short line that any font and XML can hold."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= n_most else line[: n_most - 1] + "…"


def escaped(text: str) -> str:
    """A user's text in one line of HTML."""
    return html.escape(one_line(text)) or "(none)"


def quoted(condition: str) -> str:
    """A condition as it stands in a sentence of HTML."""
    return f"“{html.escape(one_line(condition))}”" if condition else "no condition"


def swatch(colour: str) -> str:
    """A square of the colour."""
    return f'<i style="background:{colour}"></i>'


def legend(colours: Mapping[str, str]) -> str:
    """What each colour stands for."""
    return (
        f'<p class="legend">{"".join(f"<span>{swatch(colour)}{escaped(name)}</span>" for name, colour in colours.items())}</p>'
    )


def caption(text: str) -> str:
    """A plot's explanation, in HTML."""
    return f'<p class="note">{text}</p>'


def thinned(places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS points: means of equally many neighbours each, [n] and [n] -> [m] and [m]."""
    if len(places) <= MAX_POINTS:
        return places, values
    edges = np.linspace(0, len(places), MAX_POINTS + 1).astype(int)
    known = np.isfinite(values)
    counts = np.add.reduceat(known, edges[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.add.reduceat(np.where(known, values, 0.0), edges[:-1]) / counts
    return np.add.reduceat(places, edges[:-1]) / np.diff(edges), means


def draw_line(
    axes: "Axes", places: np.ndarray, values: np.ndarray, *, color: str, linewidth: float, alpha: float = 1.0
) -> None:
    """A line through the values, with marks where they are few."""
    marker = "o" if len(places) < 20 else None  # a line needs two points, and few ones shouldn't look like many
    axes.plot(*thinned(places, values), color=color, linewidth=linewidth, alpha=alpha, marker=marker, markersize=3)


def plots(draws: Sequence[Callable[["Axes"], None]], height: float = 2.8, colours: Mapping[str, str] | None = None) -> str:
    """Plots side by side over the steps, or as `draw` changes them, as one SVG element; above them what each of `colours` stands for,
    for plots that are also shown without the page and its legends."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    style: dict[Any, Any] = {  # matplotlib's type of it lists all its names
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "ochat",  # the same log gives the same page
        "text.parse_math": False,  # a class may be named $x
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "axes.edgecolor": "#999999",
        "axes.axisbelow": True,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's fonts draw it, not ours
        figure = Figure(figsize=(8.4, height), layout="constrained")
        for axes, draw in zip(np.atleast_1d(figure.subplots(1, len(draws))), draws, strict=True):
            axes.set_xlabel("step")
            draw(axes)
        if colours:
            marks = [Patch(color=colour, label=name) for name, colour in colours.items()]
            figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return embedded(written.getvalue())


def embedded(svg: bytes) -> str:
    """The SVG element alone, for the inside of a page: no header, no notes, no ids that only repeat in the next plot."""
    space, link = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
    ElementTree.register_namespace("", space)
    ElementTree.register_namespace("xlink", link)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{space}}}metadata"):
        root.remove(metadata)
    used = " ".join(value for element in root.iter() for name, value in element.items() if name != "id")
    for element in root.iter():
        if f"#{element.get('id', '')}" not in used:
            element.attrib.pop("id", None)
    for size in ("width", "height"):  # the page's width decides
        root.attrib.pop(size, None)
    root.set("role", "img")
    return ElementTree.tostring(root, encoding="unicode")


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
svg { width: 100%; height: auto; display: block }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 1.6rem }
.facts div { background: #f4f6f8; border-radius: 6px; padding: .5rem .9rem }
.facts b { display: block; font-size: 1.15rem } .facts span { color: #555; font-size: .85rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid #e4e4e4; font-weight: normal }
tr > :first-child { text-align: left } tr:first-child th { color: #555; vertical-align: bottom }
details td, details th { text-align: left; overflow-wrap: anywhere }
ul.warnings { list-style: none; padding: 0 } .warnings li { border-left: 4px solid #d55e00; padding: .1rem 0 .1rem .8rem; margin: .8rem 0 }
.warnings span { color: #555 } .name, .note code { white-space: nowrap } .wide svg { min-width: 34rem } .text td { text-align: left }
.note { color: #555; font-size: .9rem } .legend { margin: .2rem 0; font-size: .9rem }
.legend span { margin-right: 1.2rem; white-space: nowrap }
i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em }
details { margin: 2.2rem 0 } summary { cursor: pointer }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(title: str, sections: Iterable[str]) -> str:
    """The whole page; the title is escaped already."""
    return _PAGE.format(title=title, style=_STYLE, body="\n".join(part for part in sections if part))
