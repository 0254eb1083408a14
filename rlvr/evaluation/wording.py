"""Numbers, protocols and tables as people read them, and files that are written whole or not at all."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import UserError
from rlvr.evaluation.intervals import Interval

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

NOTHING = "\N{EN DASH}"
SMALL_P = 0.001
GAP = 2
"""Characters between two columns in the terminal."""
NARROW_TEXT = 20
"""Characters to which a column of texts is folded where room is short."""


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
        title: of the table.
        columns: headings.
        rows: as many texts each.
        notes: what to know when reading it, a line each.
        left: columns that hold texts; the others hold numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=list)
    left: Sequence[str] = ("checkpoint", "benchmark", "protocol")


def percent(value: float) -> str:
    """`47.1 %`."""
    return f"{100 * value:.1f} %"


def percent_interval(value: Interval) -> str:
    """`47.1 % (42.8 to 51.4)`."""
    return f"{percent(value.mean)} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def points(value: float, low: float, high: float, sign: bool = True) -> str:
    """`+12.3 points (9.1 to 15.5)`: a difference of shares, with its interval."""
    return f"{100 * value:{'+' if sign else ''}.1f} points ({100 * low:.1f} to {100 * high:.1f})"


def p_text(p_value: float) -> str:
    """`p = 0.62`, or `p < 0.001`."""
    return "p < 0.001" if p_value < SMALL_P else f"p = {p_value:.{3 if p_value < 0.1 else 2}f}"


def protocol_facts(protocol: Mapping[str, Any]) -> dict[str, str]:
    """What a benchmark was asked with, by the names of `rlvr evaluate`'s settings.

    Args:
        protocol: what a protocol hash stands for.
    """
    sampling, grading, benchmark = (protocol[key] for key in ("sampling", "grading", "benchmark"))
    decoding = protocol["decoding"]
    numbers = ", ".join(f"{key}={value}" for key, value in decoding.items() if key != "name")
    facts = {
        "template": protocol["template"],
        "chat": "the model's template" + (f", system {protocol['system']!r}" if protocol["system"] else "")
        if protocol["chat"] else "no",
        "temperature": f"{sampling['temperature']:g}", "top_p": f"{sampling['top_p']:g}",
        "top_k": str(sampling["top_k"] or "off"), "max_tokens": str(sampling["max_tokens"]),
        "decoding": f"{decoding['name']}({numbers})" if decoding else "plain",
        "engine": protocol["engine"], "answer": f"{grading['extract']}, think {grading['think']}",
        "grader": protocol["grader"], "data": f"version {benchmark['version']}, sha256 {benchmark['digest'][:16]}",
    }  # fmt: skip
    return facts


def rich_tables(sheet: Sheet, width: int) -> "Group":
    """For the terminal.

    Args:
        sheet: the table.
        width: of the terminal, in characters.

    Returns:
        One table where it fits; else intervals get a line of their own, and columns that still find no room stand in
        a second table, again beside those that say what a row is.
    """
    from rich.console import Group

    if sum(_width(sheet, index) for index in range(len(sheet.columns))) <= width + GAP:
        return Group(_rich_table(sheet.title, sheet.columns, sheet.rows, sheet.left))
    rows = [[cell.replace(" (", "\n(") for cell in row] for row in sheet.rows]
    folded = Sheet(sheet.title, sheet.columns, rows, left=sheet.left)
    keys = [index for index, column in enumerate(sheet.columns) if column in sheet.left]
    room = width + GAP - sum(min(_width(folded, index), NARROW_TEXT) for index in keys)
    parts: list[list[int]] = [[]]
    for index in (index for index in range(len(sheet.columns)) if index not in keys):
        if parts[-1] and sum(_width(folded, one) for one in [*parts[-1], index]) > room:
            parts.append([])
        parts[-1].append(index)
    tables: list[Table | str] = []
    for number, part in enumerate(parts):
        shown = [*keys, *part]
        cells = [[row[index] for index in shown] for row in rows]
        tables += [""] * bool(number)
        tables.append(
            _rich_table("" if number else sheet.title, [sheet.columns[index] for index in shown], cells, sheet.left)
        )
    return Group(*tables)


def _width(sheet: Sheet, index: int) -> int:
    """Characters of a column with the gap beside it."""
    cells = [sheet.columns[index], *(row[index] for row in sheet.rows)]
    return GAP + max(len(line) for cell in cells for line in cell.split("\n"))


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
        show_edge=False, collapse_padding=True,
    )  # fmt: skip
    for column in columns:
        is_text = column in left
        table.add_column(Text(column), justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in rows:
        table.add_row(*map(Text, row))  # not as markup: a path may have [brackets]
    return table


def markdown_table(sheet: Sheet) -> str:
    """For a Markdown file: the table, without title and notes."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"

    dashes = ["---" if column in sheet.left else "---:" for column in sheet.columns]
    return "\n".join([line(sheet.columns), f"| {' | '.join(dashes)} |", *map(line, sheet.rows)])


def markdown_text(text: str) -> str:
    """A text that a Markdown table shows as it is, on one line."""
    for character in "\\`*|<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A CSV file; columns are the keys of all rows, in order of appearance; None is empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def write_whole(path: Path, text: str) -> Path:
    """Write a file whole or not at all; folders above it are made.

    Raises:
        UserError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True) if partial.parent.is_dir() else None
        raise UserError(f"{path} cannot be written ({error.strerror}); expected a path in a writable folder") from None
    return path
