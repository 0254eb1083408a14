"""Writes what a sweep ends in, from its runs alone: `sweep_report.html`, `table.md` and `table.csv`."""

from pathlib import Path

from rlvr.sweep.results import SweepResult, read_sweep
from rlvr.sweep.table import arms_sheet, csv_text, markdown, summary_sheet


def write_report(folder: Path) -> tuple[SweepResult, list[Path]]:
    """Read a sweep and write its page and tables.

    Args:
        folder: of the sweep; cells that are not finished are left out and named.

    Returns:
        What was read, and the files written, the page first.

    Raises:
        UserError: if it is no sweep, or no cell is finished.
    """
    from rlvr.report.sweep_page import render_sweep

    result = read_sweep(folder)
    texts = {
        "sweep_report.html": render_sweep(result, summary_sheet(result), arms_sheet(result)),
        "table.md": markdown(result),
        "table.csv": csv_text(result),
    }
    for name, text in texts.items():
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(folder / name)
    return result, [folder / name for name in texts]
