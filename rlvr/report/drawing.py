"""Panels of lines as inline SVG that takes its colours from the page, so that one drawing serves light and dark."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 600
"""Points of a line; longer ones are averaged in equal bins."""

STAND_INS = {
    "ink": "#0a0b01", "faint": "#0a0b02", "a": "#0a0b03", "b": "#0a0b04", "c": "#0a0b05", "d": "#0a0b06",
    "e": "#0a0b07",
}  # fmt: skip
"""Colour name -> a colour nothing else uses, replaced in the drawing by `var(--name)` of the page's style."""

DASHES: dict[str, Any] = {"solid": "-", "dashed": (0, (5, 2)), "dotted": (0, (1, 1.5))}

WIDTH, PANEL_HEIGHT, EDGE = 6.2, 1.55, 0.45
"""Inches."""

LEGEND_CHARACTERS = 88
"""What fits beside each other above the axes."""


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        label: of the legend.
        x: steps.
        y: values, as many.
        colour: a name of `STAND_INS`.
        dash: a name of `DASHES`; lines differ by it as well as by colour.
        low: lower bounds; a band, or bars where `points` is set.
        high: upper bounds.
        points: draw markers.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = "a"
    dash: str = "solid"
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    points: bool = False


@dataclass(frozen=True)
class Panel:
    """A pair of axes.

    Attributes:
        unit: of the vertical axis.
        lines: what to draw; those without a point are skipped.
        log: draw the vertical axis logarithmically if every value is positive.
        share: a vertical axis from 0, labelled in per cent.
        top: upper end of the axis of a share.
        stacked: areas on top of each other instead of lines.
        height: in panels.
    """

    unit: str
    lines: Sequence[Line] = field(default_factory=list)
    log: bool = False
    share: bool = False
    top: float = 1.0
    stacked: bool = False
    height: float = 1.0


def bin_size(points: int) -> int:
    """Neighbouring points that are averaged into one."""
    return -(-points // MOST_POINTS)


def thin(values: Sequence[float]) -> list[float]:
    """Averages of neighbouring values, at most `MOST_POINTS` of them."""
    size = max(1, bin_size(len(values)))
    bins = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(chunk) / len(chunk) for chunk in bins]


def draw(panels: Sequence[Panel], name: str, title: str) -> str:
    """Draw panels below each other, with the optimizer step as their common axis.

    Args:
        panels: at least one with a line that has points.
        name: prefix of every `id` in the drawing: unique in a page, letters and digits.
        title: what it shows, for those who cannot see it.

    Returns:
        An `<svg>` element; texts are text, colours are `var(--...)`.
    """
    heights = [panel.height for panel in panels]

    def fill(figure: "Figure") -> None:
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _draw_panel(axes, panel)
        grid[-1, 0].set_xlabel("optimizer step")
        figure.align_ylabels()

    return drawn(fill, name, title, (WIDTH, PANEL_HEIGHT * sum(heights) + EDGE))


def drawn(fill: Callable[["Figure"], None], name: str, title: str, size: tuple[float, float]) -> str:
    """A figure as inline SVG in the style and the colours of the page.

    Args:
        fill: draws into an empty figure, with the colours of `STAND_INS`.
        name: prefix of every `id` in the drawing: unique in a page, letters and digits.
        title: what it shows, for those who cannot see it.
        size: width and height, inches.

    Returns:
        An `<svg>` element; texts are text, colours are `var(--...)`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink, faint = STAND_INS["ink"], STAND_INS["faint"]
    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans", "font.size": 8.5,
        "text.parse_math": False, "axes.unicode_minus": False, "text.color": ink, "axes.labelcolor": ink,
        "axes.edgecolor": faint, "xtick.color": faint, "ytick.color": faint, "xtick.labelcolor": ink,
        "ytick.labelcolor": ink, "grid.color": faint, "grid.alpha": 0.35, "grid.linewidth": 0.6, "axes.grid": True,
        "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
        "legend.fontsize": 8.5, "lines.linewidth": 1.5,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        fill(figure)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), name, title)


def legend_columns(labels: Sequence[str]) -> int:
    """Entries of a legend above the axes that fit beside each other, a sign taken as six characters."""
    widest = max(map(len, labels)) + 6
    return max(1, min(len(labels), LEGEND_CHARACTERS // widest))


def legend_above(axes: "Axes", labels: Sequence[str]) -> None:
    """A legend above the axes, in as many columns as fit."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=legend_columns(labels), borderpad=0.1,
        columnspacing=1.2, handletextpad=0.5, handlelength=1.8,
    )  # fmt: skip


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter, StrMethodFormatter

    lines = [line for line in panel.lines if line.x]
    if panel.stacked:
        colours = [STAND_INS[line.colour] for line in lines]
        areas = axes.stackplot(thin(lines[0].x), [thin(line.y) for line in lines], colors=colours, alpha=0.75)
        for area, line in zip(areas, lines, strict=True):
            area.set_label(line.label)
    else:
        for line in lines:
            _draw_line(axes, line)
    values = [value for line in lines for value in line.y]
    if panel.log and values and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter("")
    elif panel.share:
        axes.set_ylim(0, panel.top)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif not panel.stacked and values and min(values) >= 0:
        axes.set_ylim(bottom=0, top=None if max(values) > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.01)
    axes.set_ylabel(panel.unit)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=5, borderpad=0.1, columnspacing=1.2, handletextpad=0.5,
        handlelength=0.8 if panel.stacked else 1.8,
    )  # fmt: skip


def _draw_line(axes: "Axes", line: Line) -> None:
    colour, x, y = STAND_INS[line.colour], thin(line.x), thin(line.y)
    if line.points:
        spread = None
        if line.low is not None and line.high is not None:
            pairs = zip(line.y, line.low, line.high, strict=True)
            below, above = zip(*[(value - low, high - value) for value, low, high in pairs], strict=True)
            spread = [below, above]
        axes.errorbar(
            line.x, line.y, yerr=spread, color=colour, label=line.label, marker="o", markersize=4, capsize=2.5,
            linewidth=1, linestyle="none", zorder=3,
        )  # fmt: skip
        return
    if line.low is not None and line.high is not None:
        axes.fill_between(x, thin(line.low), thin(line.high), color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(x) == 1 else ""
    axes.plot(x, y, color=colour, label=line.label, linestyle=DASHES[line.dash], marker=marker, markersize=4)


def _inline(svg: str, name: str, title: str) -> str:
    """An SVG file as an element of a page: no header, own ids, colours of the page, fluid width, a name."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    for colour, stand_in in STAND_INS.items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    end = svg.index(">")
    opening = re.sub(r' (?:width|height)="[^"]*"', "", svg[len("<svg") : end])
    return f'<svg role="img" aria-label="{escape(title)}"{opening}{svg[end:]}'
