"""The figures of a sweep: accuracy by arm and against the share of tokens kept, and curves over the steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from rlvr.report.drawing import DASHES, EDGE, STAND_INS, WIDTH, drawn, legend_above, thin
from rlvr.report.figures import Figure
from rlvr.report.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from rlvr.sweep.results import ArmResult, SweepResult
    from rlvr.sweep.statistics import OverSeeds

COLOURS = "abcde"
MARKERS = "os^Dv"
MOST_ARMS = len(COLOURS) * len(DASHES)
"""Curves of a figure: more could not be told apart."""

AFTER = "accuracy_after"


@dataclass(frozen=True)
class Point:
    """An arm in a figure.

    Attributes:
        name: of the arm.
        keep: share of the tokens that it keeps.
        accuracy: after the last step.
    """

    name: str
    keep: float
    accuracy: "OverSeeds"

    @property
    def limits(self) -> tuple[float, float]:
        """Of the interval; the mean twice where there is none."""
        low, high = self.accuracy.low, self.accuracy.high
        return (self.accuracy.mean if low is None else low, self.accuracy.mean if high is None else high)


def sweep_figures(result: "SweepResult") -> list[Figure]:
    """Every figure of a sweep."""
    wanted = [_against_keep(result), _by_arm(result)]
    names = {
        "heldout/accuracy": ("Held-out accuracy by optimizer step", "share"),
        "entropy": ("Entropy by optimizer step", "nats"),
        "completions/mean_length": ("Completion length by optimizer step", "tokens"),
    }
    wanted += [_curves(result, metric, *words) for metric, words in names.items()]
    return [figure for figure in wanted if figure is not None]


def _points(result: "SweepResult") -> list[Point]:
    return [
        Point(visible(row.arm.name), float(row.cells[0].selection["keep"]), row.numbers[AFTER])
        for row in result.arms
        if AFTER in row.numbers and isinstance(row.cells[0].selection.get("keep"), int | float)
    ]


def keep_series(arms: "Sequence[ArmResult]") -> set[str]:
    """The arms whose settings differ in `selection.keep` alone; empty where fewer than two do."""
    groups: dict[tuple[str, ...], set[str]] = {}
    for row in arms:
        rest = tuple(text for text in row.arm.overrides if not text.lstrip("+").startswith("selection.keep="))
        groups.setdefault(rest, set()).add(row.arm.name)
    largest = max(groups.values(), key=len, default=set())
    return largest if len(largest) > 1 else set()


def _against_keep(result: "SweepResult") -> Figure | None:
    """Accuracy against keep, with a second panel for the series alone; None where keep was not swept."""
    names = {visible(name) for name in keep_series(result.arms)}
    points = sorted(_points(result), key=lambda point: point.keep)
    series = [point for point in points if point.name in names]
    if len({point.keep for point in series}) < 2:
        return None
    others = [point for point in points if point.name not in names]

    def fill(all_axes: Sequence["Axes"]) -> None:
        for axes, shown in zip(all_axes, ([series, others] if others else [series], [series]), strict=False):
            _keep_panel(axes, shown)
        if others:
            _zoom(all_axes[1], series)
        all_axes[-1].set_xlabel("share of the tokens kept")

    heading = "Accuracy by share of the tokens kept"
    caption = "Held-out accuracy after the last step, mean over seeds; bars are 95 % t intervals over seeds."
    caption += " Below: the arms that differ in the share alone, enlarged." if others else ""
    return Figure(heading, _svg(fill, "keep", heading, panels=2 if others else 1), caption)


def _keep_panel(axes: "Axes", groups: Sequence[Sequence[Point]]) -> None:
    """The series as a line of points, every other arm as a point with its name in the legend."""
    from matplotlib.ticker import FixedLocator, NullLocator

    series = groups[0]
    lines = [(list(series), "by entropy, highest first")]
    lines += [([point], point.name) for group in groups[1:] for point in group]
    for index, (points, label) in enumerate(lines):
        bars = [[p.accuracy.mean - p.limits[0] for p in points], [p.limits[1] - p.accuracy.mean for p in points]]
        axes.errorbar(
            [p.keep for p in points], [p.accuracy.mean for p in points], yerr=bars, label=label, markersize=4.5,
            color=STAND_INS[COLOURS[index % 5]], marker=MARKERS[index % 5], capsize=2.5, linewidth=1.2, zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({p.keep for group in groups for p in group})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1)
    _percent(axes, "accuracy")
    legend_above(axes, [label for _, label in lines])


def _zoom(axes: "Axes", series: Sequence[Point]) -> None:
    low, high = min(p.limits[0] for p in series), max(p.limits[1] for p in series)
    room = 0.1 * (high - low) or 0.01
    axes.set_ylim(low - room, min(high + room, 1 + room))
    if axes.legend_ is not None:
        axes.legend_.remove()


def _by_arm(result: "SweepResult") -> Figure | None:
    """A line for each arm, its mean and interval on it, every seed as a faint dot."""
    rows = [row for row in result.arms if AFTER in row.numbers]
    if not rows:
        return None

    def fill(all_axes: Sequence["Axes"]) -> None:
        axes = all_axes[0]
        for place, row in enumerate(reversed(rows)):
            value, seeds = row.numbers[AFTER], list(row.by_seed.values())
            axes.plot(seeds, [place] * len(seeds), "|", color=STAND_INS["faint"], markersize=9, zorder=2)
            bars = (
                None
                if value.low is None or value.high is None
                else [[value.mean - value.low], [value.high - value.mean]]
            )
            colour = STAND_INS["b" if row.arm.baseline == row.arm.name else "a"]
            axes.errorbar([value.mean], [place], xerr=bars, fmt="o", color=colour, markersize=5, capsize=3, zorder=3)
        axes.set_yticks(range(len(rows)), [_short(row.arm.name) for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(0, 1.02)
        _percent(axes, "held-out accuracy after the last step", across=True)

    heading = "Accuracy by arm"
    caption = "Points: mean over seeds with its 95 % t interval; strokes: the seeds."
    caption += " The baseline has another colour." if any(row.versus is not None for row in rows) else ""
    return Figure(heading, _svg(fill, "arms", heading, height=0.3 + 0.22 * len(rows)), caption)


def _short(name: str) -> str:
    text = visible(name)
    return text if len(text) <= 34 else f"{text[:16]}..{text[-16:]}"


def _curves(result: "SweepResult", metric: str, heading: str, unit: str) -> Figure | None:
    """A metric over the steps, a line for each arm: the mean of the seeds that have the step."""
    lines = []
    for row in result.arms[:MOST_ARMS]:
        seeds = [one.curves[metric] for one in row.cells if one.curves[metric]]
        steps = sorted(set().union(*seeds)) if seeds else []
        means = [fmean(seed[step] for seed in seeds if step in seed) for step in steps]
        if steps:
            lines.append((_short(row.arm.name), thin(steps), thin(means)))
    if not lines:
        return None
    values = [value for _, _, y in lines for value in y]
    log = unit == "nats" and min(values) > 0 and max(values) > 30 * min(values)

    def fill(all_axes: Sequence["Axes"]) -> None:
        axes = all_axes[0]
        for index, (label, x, y) in enumerate(lines):
            axes.plot(
                x, y, label=label, color=STAND_INS[COLOURS[index % 5]], linestyle=list(DASHES.values())[index // 5],
                marker="o" if len(x) < 15 else "", markersize=3,
            )  # fmt: skip
        if unit == "share":
            axes.set_ylim(0, 1)
            _percent(axes, unit)
        elif log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.set_ylabel(unit)
        axes.set_xlabel("optimizer step")
        axes.margins(x=0.01)
        legend_above(axes, [label for label, _, _ in lines])

    caption = "Means over seeds" + (", on a logarithmic axis." if log else ".")
    left = len(result.arms) - MOST_ARMS
    caption += f" The first {MOST_ARMS} arms; {left} more are not drawn." if left > 0 else ""
    return Figure(heading, _svg(fill, metric.replace("/", "").replace("_", ""), heading, height=2.6), caption)


def _percent(axes: "Axes", label: str, across: bool = False) -> None:
    from matplotlib.ticker import PercentFormatter

    axis = axes.xaxis if across else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1.0))
    axis.set_label_text(label)


def _svg(
    fill: Callable[[Sequence["Axes"]], None], name: str, title: str, *, panels: int = 1, height: float = 2.2
) -> str:
    """An `<svg>` of panels below each other, filled by a function."""

    def fill_figure(figure: "Canvas") -> None:
        fill(list(figure.subplots(panels, 1, squeeze=False)[:, 0]))

    return drawn(fill_figure, name, title, (WIDTH, height * panels + EDGE))
