"""Rows as columns by name, whatever they were read from; `a.b` reaches into a nested value, `a.0.b` into a list."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import islice, repeat
from typing import Any, Protocol

from rlvr.errors import UserError

_LOOKED_AT = 100
"""Rows looked at for the names inside nested values."""

BATCH_ROWS = 4096
"""Rows turned into Python objects at once."""

_NAMED = 5
"""Rows named in a message."""


class Part(Protocol):
    """One file or split."""

    name: str

    def __len__(self) -> int: ...

    def columns(self) -> list[str]:
        """Top-level names, in order."""
        ...

    def column(self, name: str) -> Iterator[Any]:
        """The values of a top-level column; None where a row lacks it."""
        ...

    def place(self, index: int) -> str:
        """How people find a row, e.g. `line 3`."""
        ...


@dataclass
class RowsPart:
    """Rows in memory.

    Attributes:
        name: of the file.
        rows: one mapping each.
        numbers: the line or row number of each, from 1.
        unit: what the numbers count: `line` or `row`.
    """

    name: str
    rows: list[dict[str, Any]]
    numbers: Sequence[int]
    unit: str = "row"

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self) -> list[str]:
        """Every key that some row has, in order of appearance."""
        return list(dict.fromkeys(key for row in self.rows for key in row))

    def column(self, name: str) -> Iterator[Any]:
        """The values of a key."""
        return (row.get(name) for row in self.rows)

    def place(self, index: int) -> str:
        """`line 3` or `row 3`."""
        return f"{self.unit} {self.numbers[index]}"


@dataclass
class ArrowPart:
    """Columns that pyarrow hands out in batches, so that a column nobody asks for costs nothing.

    Attributes:
        name: of the file or split.
        length: rows.
        names: of the top-level columns.
        batches: the record batches that hold one column, by its name.
    """

    name: str
    length: int
    names: list[str]
    batches: Callable[[str], Iterable[Any]]

    def __len__(self) -> int:
        return self.length

    def columns(self) -> list[str]:
        """The names as they stand."""
        return self.names

    def column(self, name: str) -> Iterator[Any]:
        """The values of a column."""
        if name not in self.names:
            yield from repeat(None, self.length)
        else:
            for batch in self.batches(name):
                yield from batch.column(0).to_pylist()

    def place(self, index: int) -> str:
        """`row 3`."""
        return f"row {index + 1}"


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, blanks, or a list of such."""
    if isinstance(value, list | tuple):
        return all(is_empty(entry) for entry in value)
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()


def _reach(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _nested(value: Any, path: str) -> list[str]:
    """The paths of the leaves of a nested mapping."""
    if not isinstance(value, dict):
        return [path]
    return [leaf for key, entry in value.items() for leaf in _nested(entry, f"{path}.{key}")]


class Source:
    """The rows of one or several files, or of a split.

    Args:
        label: what a message calls it, e.g. `data.train_files=train.jsonl`.
        parts: where the rows are; their rows follow one another.

    Raises:
        UserError: if there is no row.
    """

    def __init__(self, label: str, parts: Sequence[Part]) -> None:
        self.label, self.parts = label, list(parts)
        if not len(self):
            raise UserError(f"{label} holds no rows; expected at least one with a prompt and a gold answer")

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @cached_property
    def _top(self) -> list[str]:
        return list(dict.fromkeys(name for part in self.parts for name in part.columns()))

    def split(self) -> list[Source]:
        """Each part that has rows, by itself."""
        if len(self.parts) == 1:
            return [self]
        return [Source(f"{part.name} in {self.label}", [part]) for part in self.parts if len(part)]

    def columns(self) -> list[str]:
        """Column names; a column of mappings appears as the dotted paths of its leaves."""
        names: dict[str, None] = {}
        for top in self._top:
            cells = (value for part in self.parts for value in islice(part.column(top), _LOOKED_AT))
            leaves = [leaf for value in cells if value is not None for leaf in _nested(value, top)]
            names |= dict.fromkeys(leaves or [top])
        return list(names)

    def _cells(self, path: str) -> Iterator[Iterator[Any]]:
        """The values under a path, one iterator a part."""
        # A name that has a dot in it is a name.
        top, *steps = [path] if path in self._top else path.split(".")
        return ((_reach(value, steps) for value in part.column(top)) for part in self.parts)

    def has(self, path: str) -> bool:
        """Whether one of the first rows has something under the path."""
        return any(cell is not None for cells in self._cells(path) for cell in islice(cells, _LOOKED_AT))

    def values(self, path: str, setting: str = "the column") -> list[Any]:
        """One value a row, None where a row has nothing under the path.

        Equal texts are one object, because some data sets repeat each row a hundred times.

        Args:
            path: a column name, or a dotted path.
            setting: what a message calls the choice of the column, e.g. `data.gold_column`.

        Raises:
            UserError: if no row has anything there, with the nearest column.
        """
        one: dict[str, str] = {}
        found = [
            one.setdefault(cell, cell) if isinstance(cell, str) else cell
            for cells in self._cells(path)
            for cell in cells
        ]
        if path not in self._top and all(cell is None for cell in found):
            raise self._no_column(path, setting)
        return found

    def _no_column(self, path: str, setting: str) -> UserError:
        names = self.columns()
        close = get_close_matches(path, names, n=1)
        hint = f"did you mean {close[0]}?" if close else "expected one of them, or a dotted path such as a.b or a.0.b"
        return UserError(f"{setting} is {path}, but {self.label} has the columns {', '.join(names)}; {hint}")

    def place(self, index: int) -> str:
        """How people find a row: `line 3`, or `a.jsonl line 3` where there are several files."""
        for part in self.parts:
            if index < len(part):
                return part.place(index) if len(self.parts) == 1 else f"{part.name} {part.place(index)}"
            index -= len(part)
        raise IndexError(f"row {index} of a source with {len(self)}")

    def places(self, indices: Iterable[int]) -> str:
        """The first few rows of those given, e.g. `line 3, line 7, ...`."""
        chosen = list(islice(indices, _NAMED + 1))
        return ", ".join([self.place(index) for index in chosen[:_NAMED]] + ["..."] * (len(chosen) > _NAMED))
