"""The table of a sweep: for people as Markdown, for programs as CSV."""

import csv
import io
from dataclasses import dataclass, field
from typing import Any

from rlvr.sweep.results import AFTER, LAST, ArmResult, SweepResult
from rlvr.sweep.statistics import OverSeeds

NOTHING = "-"


@dataclass(frozen=True)
class Sheet:
    """A table as texts.

    Attributes:
        columns: their headings; the first and those of `left` hold words, the others numbers.
        rows: as many cells each.
        notes: what to know, a sentence or two each.
        left: headings of columns of words.
    """

    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    left: tuple[str, ...] = ()


def percent(value: OverSeeds | None) -> str:
    """`95.5 (94.1 to 96.9)`; of a share."""
    return NOTHING if value is None else _with_limits(value, "{:.1f}")


def points(value: OverSeeds | None) -> str:
    """`+1.2 (-0.4 to +2.8)`; of a difference of shares."""
    return NOTHING if value is None else _with_limits(value, "{:+.1f}")


def _with_limits(value: OverSeeds, form: str) -> str:
    text = form.format(100 * value.mean)
    if value.low is None or value.high is None:
        return text
    return f"{text} ({form.format(100 * value.low)} to {form.format(100 * value.high)})"


def p_text(p: float | None) -> str:
    """A p-value with three digits that count."""
    if p is None:
        return NOTHING
    return "<0.0001" if p < 1e-4 else f"{p:.3g}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def summary_sheet(result: SweepResult) -> Sheet:
    """The table that a sweep ends in."""
    several = len({row.arm.baseline for row in result.arms} - {None}) > 1
    compared = any(row.versus is not None for row in result.arms)
    columns = ["arm", "seeds", "before", "after", "greedy after"]
    columns += [*(["against"] if several else []), "difference", "p", "adjusted p", "sign flips"] if compared else []
    columns += ["entropy", "tokens"]
    rows = []
    for row in result.arms:
        cells = [row.arm.name, str(len(row.cells))]
        cells += [percent(row.numbers.get(key)) for key in ("accuracy_before", AFTER, "greedy_after")]
        if compared:
            cells += _versus(row, several)
        rows.append([*cells, _number(row.entropy), _number(row.length)])
    return Sheet(columns, rows, _notes(result, several, compared), ("against",))


def _versus(row: ArmResult, several: bool) -> list[str]:
    is_base = row.arm.baseline == row.arm.name
    start = [NOTHING if is_base else row.arm.baseline or NOTHING] if several else []
    if row.versus is None:
        return [*start, "baseline" if is_base else NOTHING, NOTHING, NOTHING, NOTHING]
    tests = (row.versus.p_value, row.versus.adjusted, row.versus.sign_flip_p)
    return [*start, points(row.versus.difference), *map(p_text, tests)]


def _notes(result: SweepResult, several: bool, compared: bool) -> list[str]:
    counts = {one.summary.get("heldout_problems") or 0 for row in result.arms for one in row.cells}
    on = f" on {max(counts):,} problems" if len(counts) == 1 and max(counts) > 0 else ""
    notes = [
        f"Held-out accuracy in %{on}, one answer each: sampled before and after, and greedy after. Means over seeds "
        "with their 95 % t intervals, which cover training and sampling, not the draw of the problems: all seeds share "
        "those."
    ]
    if compared:
        tests = [row.versus for row in result.arms if row.versus is not None]
        base = "its baseline" if several else next(row.arm.baseline for row in result.arms if row.versus is not None)
        fewest = min(one.difference.seeds for one in tests)
        notes.append(
            f"Difference: accuracy after minus that of {base}, in points, paired by seed, with the 95 % t interval of "
            "this comparison alone. p: paired t test over seeds, two-sided; adjusted by Holm's method over "
            f"{len(tests)} arms."
        )
        notes.append(
            f"Sign flips: the exact test without a distribution. With {fewest} seeds it cannot go below "
            f"{2 / 2**fewest:.4g}, so it is no test at 0.05 with fewer than 6."
        )
    notes.append(f"Entropy (nats) and tokens a completion: means of the last {LAST} rollout batches, over seeds.")
    return notes


def arms_sheet(result: SweepResult) -> Sheet:
    """What makes each arm, and its accuracy seed by seed."""
    rows = [
        [row.arm.name, " ".join(row.arm.overrides) or NOTHING, _by_seed(row)] for row in result.arms
    ]  # fmt: skip
    return Sheet(["arm", "settings", "after, in %, by seed"], rows, left=("settings",))


def _by_seed(row: ArmResult) -> str:
    return ", ".join(f"{seed}: {100 * value:.1f}" for seed, value in sorted(row.by_seed.items())) or NOTHING


def markdown(result: SweepResult) -> str:
    """The whole of `table.md`."""
    parts = [f"# {result.plan.name}", *([result.plan.about] if result.plan.about else [])]
    parts += [f"**{remark}**" for remark in result.remarks]
    for sheet in (summary_sheet(result), arms_sheet(result)):
        parts += [_markdown_table(sheet), *sheet.notes]
    return "\n\n".join(parts) + "\n"


def _markdown_table(sheet: Sheet) -> str:
    rules = ["---" if column in sheet.left or index == 0 else "---:" for index, column in enumerate(sheet.columns)]
    rows = [sheet.columns, rules, *sheet.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


LIMITS = ("mean", "low", "high")


def csv_text(result: SweepResult) -> str:
    """The whole of `table.csv`: shares from 0 to 1, differences likewise, empty where there is no number."""
    keys = ("accuracy_before", AFTER, "greedy_before", "greedy_after")
    columns = ["arm", "baseline", "settings", "seeds"]
    columns += [f"{key}_{part}" for key in (*keys, "difference") for part in LIMITS]
    columns += ["p", "p_adjusted", "p_sign_flip", "entropy_last", "length_last"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in result.arms:
        numbers = [_limits(row.numbers.get(key)) for key in keys]
        versus = row.versus
        tests: list[Any] = [None] * 3
        if versus is not None:
            tests = [versus.p_value, versus.adjusted, versus.sign_flip_p]
        numbers.append(_limits(None if versus is None else versus.difference))
        seeds = " ".join(str(one.cell.seed) for one in row.cells)
        values = [value for three in numbers for value in three]
        words = [row.arm.name, row.arm.baseline, " ".join(row.arm.overrides), seeds]
        writer.writerow([*words, *values, *tests, row.entropy, row.length])
    return file.getvalue()


def _limits(value: OverSeeds | None) -> list[float | None]:
    return [None if value is None else getattr(value, part) for part in LIMITS]
