"""What `rlvr grade` and `rlvr check` say: a bar while it takes, tables when it is done."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from rlvr.errors import UserError
from rlvr.rewards.accuracy import grading_policy
from rlvr.rewards.base import Reward
from rlvr.rewards.graded_file import Tally, grade_file, output_path
from rlvr.rewards.policy import Policy
from rlvr.rewards.preflight import examine
from rlvr.rewards.rows import Columns
from rlvr.rewards.verdict import STATUSES

if TYPE_CHECKING:
    from rlvr.data.base import Problem

TASKS_SHOWN = 50
ROWS_SHOWN = 50


def status_table(tally: Tally) -> Table:
    """Count, accuracy and the share of every status that occurred, by task and for all."""
    total: Counter[str] = Counter()
    for counts in tally.statuses.values():
        total.update(counts)
    shown = [status for status in STATUSES if status != "correct" and total[status]]
    table = Table()
    table.add_column("task")
    for heading in ("count", "accuracy", *shown):
        table.add_column(heading, justify="right")
    tasks = sorted(tally.statuses.items(), key=lambda item: (-item[1].total(), item[0]))
    for task, counts in tasks[:TASKS_SHOWN] if len(tasks) > 1 else []:
        table.add_row(task or "-", *_cells(counts, shown))
    if len(tasks) > TASKS_SHOWN:
        table.add_row(f"{len(tasks) - TASKS_SHOWN} more", *[""] * (2 + len(shown)))
    table.add_section()
    name = next(iter(tally.statuses)) if len(tasks) == 1 else ""
    table.add_row(name or "all", *_cells(total, shown))
    return table


def _cells(counts: Counter[str], shown: list[str]) -> list[str]:
    count = counts.total()
    return [str(count), f"{counts['correct'] / count:.1%}", *(f"{counts[status] / count:.1%}" for status in shown)]


def show_graded(
    path: Path, output: Path | None, columns: Columns, policy: Policy, workers: int | None, overwrite: bool
) -> None:
    """Grade a file and say what came out.

    Raises:
        UserError: as `grade_file`, and for an empty file.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.fields[rows]} rows"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        line = bar.add_task("", total=None, rows=0)
        tally = grade_file(
            path, output, columns=columns, policy=policy, workers=workers, overwrite=overwrite,
            progress=lambda rows, done, total: bar.update(line, completed=done, total=total, rows=rows),
        )  # fmt: skip
    out = Console(highlight=False, soft_wrap=True)
    if tally.rows:
        out.print(status_table(tally))
    resumed = f" ({tally.resumed} of them before)" if tally.resumed else ""
    print(f"{tally.rows} rows graded{resumed}: {output or output_path(path)}")


def show_checked(parts: Mapping[str, Sequence["Problem"]], rewards: Mapping[str, Reward], limit: float) -> None:
    """Grade the golds of each part of a data set against themselves, and say what came out.

    Raises:
        UserError: if more than `limit` of a part fail.
    """
    out = Console(highlight=False, soft_wrap=True)
    policy, refused = grading_policy(rewards.values()), []
    for name, problems in parts.items():
        if not problems:
            continue
        result = examine(problems, policy)
        table = result.table()
        table.title = f"{name}: {table.title}"
        out.print(table)
        for line in result.lines(problems, ROWS_SHOWN):
            out.print(line, markup=False)
        unfit = len(result.unfit())
        if unfit > limit * len(problems):
            refused.append(f"{unfit} of {len(problems)} {name} golds")
    if refused:
        raise UserError(
            f"{' and '.join(refused)} do not grade themselves, or grade another value; expected at most {limit:.1%}: "
            "mend the rows above, or raise --limit"
        )
