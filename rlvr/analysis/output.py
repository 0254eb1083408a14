"""What an analysis leaves behind: a table in the terminal, a CSV file, a figure."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import UserError
from rlvr.evaluation.wording import Sheet, csv_text, rich_tables, write_whole

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "rlvr", "font.family": "DejaVu Sans", "font.size": 9,
    "text.parse_math": False, "axes.unicode_minus": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "figure.dpi": 120,
}  # fmt: skip
BLUE, ORANGE = "#0072b2", "#d55e00"
"""Told apart by all common kinds of sight (Okabe and Ito)."""


@dataclass(frozen=True)
class Finding:
    """The result of an analysis.

    Attributes:
        name: of its files.
        sheet: for the terminal.
        rows: of the CSV file.
        draw: fills a figure.
        paper: the shape that a paper reports, or what to hold the numbers against.
        size: of the figure, inches.
    """

    name: str
    sheet: Sheet
    rows: Sequence[Mapping[str, Any]]
    draw: Callable[["Figure"], None]
    paper: str
    size: tuple[float, float] = (6.4, 4.0)


def publish(finding: Finding, out: Path, kind: str, following: str) -> list[Path]:
    """Print the table, write the figure and the CSV file, and say what comes next.

    Args:
        finding: what was found.
        out: folder, made if it is not there.
        kind: of the figure: `svg`, `png` or `pdf`.
        following: the next command to type.

    Returns:
        The files written.

    Raises:
        UserError: if they cannot be written.
    """
    from rich.console import Console

    console = Console()
    # As a line of its own: a table wraps its title at its own width.
    console.print(finding.sheet.title, soft_wrap=True, markup=False, highlight=False)
    console.print(rich_tables(replace(finding.sheet, title=""), console.width))
    for note in finding.sheet.notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    console.print(f"To compare: {finding.paper}", soft_wrap=True, markup=False, highlight=False)
    table = write_whole(out / f"{finding.name}.csv", csv_text(finding.rows))
    figure = save_figure(finding.draw, out / f"{finding.name}.{kind}", finding.size)
    print(f"wrote {table} and {figure}\nnext: {following}")
    return [table, figure]


def save_figure(draw: Callable[["Figure"], None], path: Path, size: tuple[float, float]) -> Path:
    """Draw and save a figure, whole or not at all; equal drawings make equal files.

    Args:
        draw: fills the figure.
        path: its suffix says the format.
        size: inches.

    Raises:
        UserError: if it cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial")
    nothing = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a token in a script that the font lacks
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(partial, format=path.suffix[1:], metadata=nothing)
            partial.replace(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}); expected a path in a writable folder"
            ) from None
    return path


def plain_numbers(axis: "Axis") -> None:
    """Ticks of a logarithmic axis as 0.001 in place of powers, which need the markup that token texts must not have."""
    from matplotlib.ticker import StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter("")
