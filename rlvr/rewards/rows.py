"""Rows of completions to grade, read one at a time from JSON Lines or Parquet."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlvr.data.golds import accepted_forms
from rlvr.errors import UserError
from rlvr.rewards.adapter import completion_text

JSON_LINES = (".jsonl", ".ndjson", ".json")
_BATCH_ROWS = 1024

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Where things stand in a row; `task` and `truncated` may be missing.

    Attributes:
        completion: the text that was sampled, or a chat whose last message it is.
        gold: the right answer, or a list of accepted forms.
        task: what to count together.
        truncated: whether the completion was cut at the length limit.
        task_required: the task was asked for by name.
    """

    completion: str = "completion"
    gold: str = "gold"
    task: str = "task"
    truncated: str = "truncated"
    task_required: bool = False

    def check(self, row: Row, where: str) -> None:
        """Refuse a row that lacks what is needed.

        Raises:
            UserError: with the columns that are there.
        """
        needed = {"--completion-column": self.completion, "--gold-column": self.gold}
        if self.task_required:
            needed["--task-column"] = self.task
        for option, name in needed.items():
            if name not in row:
                close = get_close_matches(name, list(row), n=1)
                hint = f", e.g. {option} {close[0]}" if close else ""
                raise UserError(
                    f"{where} has no column {name}; found are {', '.join(map(str, row))}: set {option}{hint}"
                )


@dataclass(frozen=True)
class Graded:
    """What of a row is graded."""

    completion: str
    golds: list[str]
    truncated: bool
    task: str


def read_row(row: Row, columns: Columns, where: str) -> Graded:
    """The parts of a row.

    Raises:
        UserError: naming the row and what is wrong with it.
    """
    columns.check(row, where)
    completion, cut = row[columns.completion], row.get(columns.truncated)
    if cut not in (None, True, False):  # 0 and 1 too
        raise UserError(f"{where} has {columns.truncated}={cut!r}; expected true or false")
    try:
        text = "" if completion is None else completion_text(completion)
    except (TypeError, KeyError, IndexError):
        kind = type(completion).__name__
        raise UserError(
            f"{where} has a {kind} in {columns.completion}; expected a text, or a chat as a list of messages"
        ) from None
    golds = accepted_forms(row[columns.gold], f"{where}, column {columns.gold},")
    task = row.get(columns.task)
    return Graded(text, golds, bool(cut), "" if task is None else str(task))


def encode(row: Row) -> str:
    """A row as one line of JSON that every reader accepts: no NaN, other types as text."""
    try:
        return json.dumps(row, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(row), allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


class Rows:
    """The rows of a file, and how far they have been read.

    Args:
        path: a `.jsonl` or `.parquet` file.

    Raises:
        UserError: if there is no such file, or of another kind.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path} is not a file; expected a {', '.join(JSON_LINES)} or .parquet file of completions")
        self.path, self.is_parquet = path, path.suffix.lower() == ".parquet"
        if not self.is_parquet and path.suffix.lower() not in JSON_LINES:
            raise UserError(f"{path} ends in {path.suffix or 'nothing'}; expected {', '.join(JSON_LINES)} or .parquet")
        self.done = 0
        self.total = self._parquet().metadata.num_rows if self.is_parquet else path.stat().st_size
        """`done` of `total`: rows of Parquet, bytes of JSON Lines."""

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Each row with where it stands, for messages."""
        return self._parquet_rows() if self.is_parquet else self._lines()

    def _parquet(self) -> Any:
        import pyarrow.parquet
        from pyarrow import ArrowException

        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.path} is not a Parquet file ({reason}); expected one that pyarrow reads") from None

    def _parquet_rows(self) -> Iterator[tuple[str, Row]]:
        for batch in self._parquet().iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                self.done += 1
                yield f"{self.path} row {self.done}", row

    def _lines(self) -> Iterator[tuple[str, Row]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                self.done += len(line)
                if line.strip():
                    where = f"{self.path} line {number}"
                    yield where, _parsed(line, where, self.path)


def _parsed(line: bytes, where: str, path: Path) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start}); save {path} as UTF-8") from None
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is a {type(row).__name__}; expected an object of column: value")
    return row
