"""The curves of evaluations: accuracy against the optimizer step, and pass@k against k."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlvr.report.drawing import DASHES, PANEL_HEIGHT, STAND_INS, WIDTH, Line, drawn, legend_above, legend_columns
from rlvr.report.figures import Figure
from rlvr.report.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from rlvr.evaluation.results import Summary

COLOURS = "abcde"
MOST_LINES = 5
"""Curves of a figure: as many as there are colours."""

LINE_INCHES = 0.17
"""Height of a line of the legend."""


def accuracy_figures(summaries: Sequence["Summary"], names: dict[str, str], prefix: str) -> list[Figure]:
    """A figure per benchmark where a run has several checkpoints: avg@n against the step, with the interval as a band.

    Checkpoints without a step are dotted lines across, the first two of them.

    Args:
        summaries: of one protocol per benchmark; several benchmarks together count as one more.
        names: checkpoint hash -> short name.
        prefix: of the names of the drawings, unique in a page.
    """
    figures = []
    for index, (benchmark, rows) in enumerate(_by_benchmark(summaries).items()):
        runs = {name: run for name, run in _runs(rows).items() if len({row.step for row in run}) > 1}
        if not runs:
            continue
        shown = dict(list(runs.items())[:MOST_LINES])
        lines = [
            _curve(name, [float(row.step or 0) for row in run], [row.avg for row in run], place)
            for place, (name, run) in enumerate(shown.items())
        ]
        ends = [min(line.x[0] for line in lines), max(line.x[-1] for line in lines)]
        across = [row for row in rows if row.step is None][:2]
        for place, row in enumerate(across, len(lines)):
            lines.append(
                Line(
                    names[row.checkpoint_hash] + _mark(row, rows),
                    ends,
                    [row.avg.mean] * 2,
                    COLOURS[place % 5],
                    "dotted",
                )
            )
        caption = "Mean over problems of the share of right samples; bands are 95 % intervals of each checkpoint alone."
        caption += _part(rows)
        caption += f" The first {MOST_LINES} of {len(runs)} runs." if len(runs) > MOST_LINES else ""
        heading = f"Accuracy on {_title(benchmark)}"
        svg = _draw(lines, f"{prefix}{index}", f"{heading} by optimizer step", "optimizer step", powers=False)
        figures.append(Figure(heading, svg, caption))
    return figures


def pass_figures(summaries: Sequence["Summary"], names: dict[str, str], prefix: str) -> list[Figure]:
    """A figure per benchmark: pass@k against k, with the interval as a band.

    Args:
        summaries: of one protocol per benchmark.
        names: checkpoint hash -> short name.
        prefix: of the names of the drawings, unique in a page.
    """
    figures = []
    for index, (benchmark, rows) in enumerate(_by_benchmark(summaries).items()):
        curves = [row for row in rows if len(row.pass_at) > 1]
        if not curves:
            continue
        shown = _chosen(curves)
        lines = [
            _curve(
                names[row.checkpoint_hash] + _mark(row, rows), list(map(float, row.pass_at)),
                list(row.pass_at.values()), place,
            )
            for place, row in enumerate(shown)
        ]  # fmt: skip
        caption = "Probability that k samples hold a right one, without bias from the samples drawn; bands are 95 % "
        caption += "intervals over problems, close to each other along a curve."
        caption += _part(rows)
        if len(curves) > len(shown):
            caption += (
                f" {len(shown)} of {len(curves)} checkpoints, the last of each run among them; the table has all."
            )
        heading = f"pass@k on {_title(benchmark)}"
        svg = _draw(lines, f"{prefix}{index}", f"{heading} by k", "k", powers=True)
        figures.append(Figure(heading, svg, caption))
    return figures


def _title(benchmark: str) -> str:
    return f"{benchmark} benchmarks together" if benchmark.startswith("all ") else benchmark


def _part(rows: Sequence["Summary"]) -> str:
    """What to add to a caption where not all problems were asked."""
    parts = list(dict.fromkeys(row.asked for row in rows if row.problems < row.total))
    return f" Only a part was asked: {', '.join(parts)} problems." if parts else ""


def _by_benchmark(summaries: Sequence["Summary"]) -> dict[str, list["Summary"]]:
    found: dict[str, list[Summary]] = {}
    for summary in summaries:
        found.setdefault(summary.benchmark, []).append(summary)
    return found


def _mark(row: "Summary", rows: Sequence["Summary"]) -> str:
    """What tells a curve from others of the same checkpoint: its seed or its protocol, where there are several."""
    seed = f", seed {row.seed}" if len({one.seed for one in rows}) > 1 else ""
    protocol = f", {row.protocol_hash[:6]}" if len({one.protocol_hash for one in rows}) > 1 else ""
    return seed + protocol


def _runs(rows: Sequence["Summary"]) -> dict[str, list["Summary"]]:
    """Checkpoints with a step by what their labels have before it, with one seed and protocol; by step."""
    found: dict[tuple[str, str], list[Summary]] = {}
    for row in rows:
        if row.step is not None:
            found.setdefault((row.checkpoint.removesuffix(str(row.step)), _mark(row, rows)), []).append(row)
    starts = {start for start, _ in found}
    short = len({_run_name(start) for start in starts}) == len(starts)
    return {
        (_run_name(start) if short else start) + mark: sorted(run, key=lambda row: row.step or 0)
        for (start, mark), run in found.items()
    }


def _run_name(start: str) -> str:
    """`x` of `runs/x/checkpoints/checkpoint-`."""
    parts = [part for part in start.removesuffix("checkpoint-").removesuffix("checkpoints/").split("/") if part]
    return parts[-1].rstrip("-_") if parts else start


def _chosen(rows: list["Summary"]) -> list["Summary"]:
    """At most `MOST_LINES`: the last of each run, those without a step, the first of each run, and some between."""
    runs = list(_runs(rows).values())
    between = [rows[round(place * (len(rows) - 1) / (MOST_LINES - 1))] for place in range(MOST_LINES)]
    wanted = [run[-1] for run in runs] + [row for row in rows if row.step is None] + [run[0] for run in runs]
    places = dict.fromkeys(next(i for i, row in enumerate(rows) if row is one) for one in [*wanted, *between, *rows])
    return [rows[place] for place in sorted(list(places)[:MOST_LINES])]


def _curve(label: str, x: list[float], values: Sequence[Any], place: int) -> Line:
    y, low, high = ([getattr(value, name) for value in values] for name in ("mean", "low", "high"))
    return Line(visible(label), x, y, COLOURS[place % len(COLOURS)], list(DASHES)[place % len(DASHES)], low, high)


def _draw(lines: Sequence[Line], name: str, title: str, x_label: str, *, powers: bool) -> str:
    """An `<svg>` of one pair of axes: shares against steps, or against powers of two."""
    labels = [line.label for line in lines]

    def fill(figure: "Canvas") -> None:
        axes = figure.subplots()
        for line in lines:
            _draw_line(axes, line)
        _scale(axes, lines, powers)
        axes.set_xlabel(x_label)
        legend_above(axes, labels)

    rows = -(-len(lines) // legend_columns(labels))
    return drawn(fill, name, title, (WIDTH, 2 * PANEL_HEIGHT + LINE_INCHES * (rows - 1)))


def _draw_line(axes: "Axes", line: Line) -> None:
    """A line with a mark at each checkpoint or k, over its band; without a band, as it is."""
    colour = STAND_INS[line.colour]
    marker = ""
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        marker = "o"
    axes.plot(
        line.x, line.y, color=colour, label=line.label, linestyle=DASHES[line.dash], marker=marker, markersize=3.5
    )


def _scale(axes: "Axes", lines: Sequence[Line], powers: bool) -> None:
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

    highest = max(value for line in lines for value in (line.high or line.y))
    # Shares that stay small would lie on the floor of an axis to 100 %.
    axes.set_ylim(0, 1.0 if highest > 0.6 else max(0.01, 1.1 * highest))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if powers:
        ticks = sorted({x for line in lines for x in line.x})
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)
    axes.set_ylabel("share")
