"""The curves of a report: which metric stands in which panel, and what is said where there is nothing to draw."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rlvr.report.drawing import Line, Panel, bin_size, draw
from rlvr.report.intervals import wilson
from rlvr.report.reading import RunData, Series, is_count, is_number, series

PHASES = ("generate", "reward", "score", "select", "train")
"""`seconds/<phase>` of a row, in the order of a step."""

SMOOTHED = 40
"""Steps from which on a noisy curve is drawn as a running mean over a band of its values."""


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
        heading: its title.
        svg: the drawing, empty where nothing was recorded.
        caption: what to know when reading it.
        absent: metrics that were not recorded.
    """

    heading: str
    svg: str
    caption: str
    absent: list[str] = field(default_factory=list)


def figures(run: RunData) -> list[Figure]:
    """Every figure of a run."""
    makers = (_learning, _entropy, _selection, _lengths, _update, _seconds)
    return [make(run) for make in makers]


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Means over `width` neighbours, fewer at the ends."""
    half = width // 2
    windows = [values[max(0, index - half) : index + half + 1] for index in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def held_out(run: RunData) -> list[tuple[float, float, float, float]]:
    """(step, accuracy, lower, upper bound) of every sampled held-out measurement, in order."""
    summary, steps = run.summary, [step for step in (row.get("step") for row in run.metrics) if is_number(step)]
    last = summary.get("steps", steps[-1] if steps else None)
    during = summary.get("accuracy_during")
    pairs = [(0, summary.get("accuracy_before")), *(during if isinstance(during, list) else [])]
    pairs.append((last, summary.get("accuracy_after")))
    count = summary.get("heldout_problems")
    points = []
    for pair in pairs:
        step, share = pair if isinstance(pair, list | tuple) and len(pair) == 2 else (None, None)
        if is_number(step) and is_number(share):
            low, high = wilson(round(share * count), count) if is_count(count) else (share, share)
            points.append((float(step), float(share), min(low, share), max(high, share)))
    return points


def _figure(run: RunData, name: str, heading: str, caption: str, panels: Sequence[Panel], wanted: list[str]) -> Figure:
    absent = [metric for metric in wanted if not series(run.metrics, metric)[0]]
    drawn = [panel for panel in panels if any(line.x for line in panel.lines)]
    longest = max((len(line.x) for panel in drawn for line in panel.lines), default=0)
    if bin_size(longest) > 1:
        caption += f" Each point averages {bin_size(longest)} steps."
    svg = draw(drawn, name, f"{heading} by optimizer step") if drawn else ""
    return Figure(heading, svg, caption, absent)


def _line(run: RunData, metric: str, label: str, colour: str = "a", dash: str = "solid") -> Line:
    return Line(label, *series(run.metrics, metric), colour=colour, dash=dash)


def _top(lines: Sequence[Line]) -> float:
    """The upper end of an axis for shares that stay small."""
    return min(1.0, max(0.01, 1.1 * max((value for line in lines for value in line.y), default=1.0)))


def _smooth(found: Series, label: str, colour: str, dash: str = "solid") -> Line:
    """A line, and where it is long enough, its running mean over the span of the values."""
    steps, values = found
    if len(values) < SMOOTHED:
        return Line(label, steps, values, colour, dash)
    width = 2 * (len(values) // SMOOTHED) + 1
    half = width // 2
    windows = [values[max(0, index - half) : index + half + 1] for index in range(len(values))]
    low, high = [min(window) for window in windows], [max(window) for window in windows]
    return Line(f"{label} (mean of {width})", steps, running_mean(values, width), colour, dash, low, high)


def _learning(run: RunData) -> Figure:
    reward, accuracy = series(run.metrics, "reward"), series(run.metrics, "accuracy")
    points = held_out(run)
    lines = []
    share = all(0 <= value <= 1 for value in reward[1])
    if reward == accuracy and reward[0]:
        lines.append(_smooth(accuracy, "reward = accuracy", "a"))
    else:
        lines.append(_smooth(accuracy, "accuracy", "a"))
        if share:
            lines.append(_smooth(reward, "reward", "b", "dashed"))
    if points:
        x, y, low, high = ([point[index] for point in points] for index in range(4))
        lines.append(Line("held-out, sampled", x, y, "c", low=low, high=high, points=True))
    panels = [Panel("share", lines, share=True, height=1.6)]
    if not share:
        panels.append(Panel("reward", [_smooth(reward, "reward", "b", "dashed")]))
    uninformative = _line(run, "frac_reward_zero_std", "groups of equal rewards", "d")
    panels.append(Panel("share", [uninformative], share=True, height=0.9))
    band = " Lines are running means, the band spans the averaged steps." if len(accuracy[1]) >= SMOOTHED else ""
    bars = " Bars are 95 % Wilson intervals." if points and is_count(run.summary.get("heldout_problems")) else ""
    caption = (
        f"On the sampled completions of each rollout batch.{band}{bars} Groups of equal rewards carry no gradient."
    )
    wanted = ["reward", "accuracy", "frac_reward_zero_std"]
    return _figure(run, "learning", "Learning", caption, panels, wanted)


def _entropy(run: RunData) -> Figure:
    lines = [
        _line(run, "entropy", "all tokens"),
        _line(run, "selection/entropy_kept", "kept", "b", "dashed"),
        _line(run, "selection/entropy_dropped", "dropped", "c", "dotted"),
    ]
    values = [value for line in lines for value in line.y]
    log = bool(values) and min(values) > 0 and max(values) > 30 * min(values)
    caption = "Mean entropy of the sampling policy per token" + (", on a logarithmic axis." if log else ".")
    wanted = ["entropy", "selection/entropy_kept", "selection/entropy_dropped"]
    return _figure(run, "entropy", "Entropy", caption, [Panel("nats", lines, log=log, height=2.5)], wanted)


def _selection(run: RunData) -> Figure:
    fraction = _line(run, "selection/kept_fraction", "kept fraction of the candidates")
    panels = [
        Panel("share", [fraction], share=True, height=0.75),
        Panel("nats", [_line(run, "selection/threshold", "threshold", "b")], height=0.95),
        Panel("tokens", [_line(run, "selection/candidates", "candidates of a rollout batch", "c")], height=0.8),
    ]
    caption = "Candidates are the tokens that the selection chooses from; the threshold is the least entropy it keeps."
    wanted = ["selection/kept_fraction", "selection/threshold", "selection/candidates"]
    return _figure(run, "selection", "Selection", caption, panels, wanted)


def _lengths(run: RunData) -> Figure:
    mean = series(run.metrics, "completions/mean_length")
    low, high = (series(run.metrics, f"completions/{name}_length") for name in ("min", "max"))
    complete = mean[0] == low[0] == high[0]
    label = "mean, between shortest and longest" if complete else "mean"
    line = Line(label, *mean, low=low[1] if complete else None, high=high[1] if complete else None)
    clipped = _line(run, "completions/clipped_ratio", "cut at the limit", "b")
    none_cut = bool(clipped.y) and not any(clipped.y)
    panels = [Panel("tokens", [line], height=2.5 if none_cut else 1.6)]
    if not none_cut:
        panels.append(Panel("share", [clipped], share=True, top=_top([clipped]), height=0.9))
    wanted = [f"completions/{name}" for name in ("mean_length", "min_length", "max_length", "clipped_ratio")]
    limit = run.setting("rollouts", "max_completion_length")
    caption = "Tokens of a completion." + (f" The limit is {limit}." if is_count(limit) else "")
    caption += " No completion was cut at it." if none_cut else ""
    return _figure(run, "lengths", "Completion lengths", caption, panels, wanted)


def _update(run: RunData) -> Figure:
    clips = ("clip_ratio/region_mean", "clip_ratio/low_mean", "clip_ratio/high_mean")
    styles = (("either side", "a", "solid"), ("below", "b", "dashed"), ("above", "c", "dotted"))
    ratios = [_line(run, metric, *style) for metric, style in zip(clips, styles, strict=True)]
    panels = [
        Panel("loss", [_line(run, "loss", "loss", "a")], height=0.9),
        Panel("norm", [_line(run, "grad_norm", "gradient norm, before clipping", "b")], height=0.8),
    ]
    caption = "A policy-gradient loss measures the step, not the progress."
    values = [value for line in ratios for value in line.y]
    if values and not any(values):
        caption += " No ratio was clipped at any step."
        panels = [Panel(panel.unit, panel.lines, height=1.25) for panel in panels]
    else:
        panels.append(Panel("clipped", ratios, share=True, top=_top(ratios), height=0.8))
    return _figure(run, "update", "Update", caption, panels, ["loss", "grad_norm", *clips])


def _rollout_batches(run: RunData) -> list[list[dict[str, Any]]]:
    """Rows of `metrics.jsonl` by the rollout batch they train on; a row alone where none is recorded."""
    rows = [row for row in run.metrics if is_number(row.get("step"))]
    return [list(group) for _, group in groupby(rows, key=lambda row: row.get("rollout_step") or ("step", row["step"]))]


def _sum(rows: Sequence[dict[str, Any]], metric: str) -> float:
    return sum(float(row[metric]) for row in rows if is_number(row.get(metric)))


def _seconds(run: RunData) -> Figure:
    metrics = [f"seconds/{phase}" for phase in PHASES]
    batches = _rollout_batches(run)
    spent = {phase: [_sum(batch, metric) for batch in batches] for phase, metric in zip(PHASES, metrics, strict=True)}
    total = sum(map(sum, spent.values()))
    x = [float(batch[0]["step"]) for batch in batches]
    lines = [
        Line(f"{phase} {sum(values) / total:.0%}", x, values, colour)
        for (phase, values), colour in zip(spent.items(), "abcde", strict=True)
        if total > 0
    ]
    caption = "By phase, on the main process" + (f"; {total:.1f} s together." if total > 0 else ".")
    if any(len(batch) > 1 for batch in batches):
        caption += " The steps of a rollout batch are added up."
    panel = Panel("seconds", lines, stacked=True, height=2.5)
    return _figure(run, "seconds", "Seconds a rollout batch", caption, [panel], metrics)
