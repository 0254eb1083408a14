"""Puts a sweep on one HTML page: its table, its figures, and what its arms are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlvr.report.page import page
from rlvr.report.sweep_figures import sweep_figures
from rlvr.report.tokens import visible

if TYPE_CHECKING:
    from rlvr.sweep.results import SweepResult
    from rlvr.sweep.table import Sheet


def render_sweep(result: "SweepResult", summary: "Sheet", arms: "Sheet") -> str:
    """The page of a sweep.

    Args:
        result: what came out.
        summary: the table that it ends in.
        arms: what makes each arm.
    """
    plan = result.plan
    done = len(plan.cells) - len(result.missing)
    head = [("arms", str(len(plan.arms))), ("seeds", ", ".join(map(str, plan.seeds))), ("cells", f"{done} finished")]
    return page(
        "sweep.html.j2",
        name=visible(plan.name),
        about=visible(plan.about),
        head=head,
        settings=visible(" ".join(plan.settings)),
        remarks=[visible(remark) for remark in result.remarks],
        summary=_shown(summary),
        arms=_shown(arms),
        figures=sweep_figures(result),
        runs=[(visible(one.cell.name), f"{one.cell.name}/report.html") for row in result.arms for one in row.cells],
    )


def _shown(sheet: "Sheet") -> dict[str, Sequence]:
    rows = [[visible(cell) for cell in row] for row in sheet.rows]
    return {"columns": sheet.columns, "rows": rows, "notes": sheet.notes, "left": sheet.left}
