"""The ledger: every sample and every verdict is a row, in Parquet files that are only ever added.

A cell is one checkpoint on one benchmark under one way of drawing, with one seed. Its folder holds two stores of rows
(see `rlvr.evaluation.store`). What a store finds torn when a cell is opened is set aside, and drawn again. One process
at a time writes a cell; anybody may read it.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rlvr.errors import UserError
from rlvr.evaluation.store import Store

SAMPLES = pa.schema([
    ("checkpoint", pa.string()), ("checkpoint_hash", pa.string()), ("benchmark", pa.string()),
    ("problem_id", pa.string()), ("sample", pa.int32()), ("seed", pa.int64()), ("draw_hash", pa.string()),
    ("gold", pa.string()), ("completion", pa.string()), ("token_count", pa.int32()), ("finish_reason", pa.string()),
])  # fmt: skip

VERDICTS = pa.schema([
    ("problem_id", pa.string()), ("sample", pa.int32()), ("protocol_hash", pa.string()), ("extracted", pa.string()),
    ("answer_class", pa.string()), ("correct", pa.bool_()), ("status", pa.string()), ("reason", pa.string()),
])  # fmt: skip

ROW = (
    "checkpoint", "checkpoint_hash", "benchmark", "problem_id", "sample", "seed", "protocol_hash", "gold", "completion",
    "token_count", "finish_reason", "extracted", "answer_class", "correct", "status",
)  # fmt: skip
"""The columns of a whole row, as `rlvr.evaluation.ledger.Cell.rows` gives them."""

LOCK = ".lock"
"""File of a cell that its writer holds; it stays, empty."""


class CellTaken(UserError):
    """Another process writes the cell."""


def gold_text(gold: str | Sequence[str]) -> str:
    """A gold as one text: several accepted forms as a JSON list; so is a text that looks like such a list."""
    if isinstance(gold, str):
        return gold if gold_value(gold) == gold else json.dumps([gold], ensure_ascii=False)
    return json.dumps(list(gold), ensure_ascii=False)


def gold_value(text: str) -> str | tuple[str, ...]:
    """The gold of a text; the other way round."""
    if text.startswith('["'):
        with contextlib.suppress(ValueError):
            forms = json.loads(text)
            if isinstance(forms, list) and all(isinstance(form, str) for form in forms):
                return tuple(forms)
    return text


@dataclass(frozen=True)
class Cell:
    """One checkpoint on one benchmark under one way of drawing, with one seed.

    Attributes:
        folder: of the cell.
    """

    folder: Path

    @property
    def samples(self) -> Store:
        """Completions."""
        return Store(self.folder / "samples", SAMPLES)

    @property
    def verdicts(self) -> Store:
        """Verdicts on them; one set per grading."""
        return Store(self.folder / "verdicts", VERDICTS)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """The right to write the cell. It is lost with the process, so that nothing is left to clear up.

        Raises:
            UserError: where another process has it (`CellTaken`), or the file system has no locks.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CellTaken(
                    f"{self.folder} is being written by another `rlvr evaluate` or `rlvr grade`; wait for it to end "
                    "and run this again, or use another ledger"
                ) from None
            except OSError as error:
                raise UserError(
                    f"{self.folder} cannot be locked ({error.strerror}); expected a file system with flock, so put the "
                    "ledger on another one"
                ) from None
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # at once, also where a child process has inherited the file

    def mend(self) -> list[Path]:
        """Set torn files aside, and drop verdicts without a sample: what is drawn again may be another answer.

        A kill may have come between the two the last time, so verdicts are looked at even where nothing is torn now.

        Returns:
            The files that were torn.
        """
        torn = self.samples.repair() + self.verdicts.repair()
        key = ["problem_id", "sample"]
        if files := self.verdicts.files():
            kept = {tuple(row.values()) for row in self.samples.read(key).to_pylist()}
            verdicts = self.verdicts.read()
            stand = [tuple(row.values()) in kept for row in verdicts.select(key).to_pylist()]
            if not all(stand):
                self.verdicts.replace(verdicts.filter(pa.array(stand)), files)
        return torn

    def describe(self) -> dict[str, Any]:
        """What `cell.json` says: checkpoint, step, benchmark, seed, drawing, protocols by hash."""
        return json.loads((self.folder / "cell.json").read_text(encoding="utf-8"))

    def write_description(self, values: dict[str, Any]) -> None:
        """Write `cell.json`, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".cell.{os.getpid()}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / "cell.json")

    def rows(self, protocol_hash: str, columns: Sequence[str] = ROW) -> pa.Table:
        """Whole rows under one grading, sorted by problem and sample; those without a verdict are left out.

        Args:
            protocol_hash: which grading.
            columns: of `ROW`.
        """
        key = ["problem_id", "sample"]
        verdicts = self.verdicts.read()
        verdicts = verdicts.filter(pc.equal(verdicts["protocol_hash"], protocol_hash))
        wanted = [name for name in columns if name in SAMPLES.names and name not in key]
        samples = self.samples.read([*key, *wanted])
        joined = samples.join(verdicts, keys=key, join_type="inner").sort_by([(name, "ascending") for name in key])
        return joined.select(list(columns))


class Ledger:
    """All cells.

    Args:
        folder: of the ledger.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cell(self, benchmark: str, checkpoint_hash: str, draw_hash: str, seed: int) -> Cell:
        """The cell of a checkpoint, whether it exists or not."""
        return Cell(self.folder / "cells" / benchmark / f"{checkpoint_hash}-{draw_hash}-{seed}")

    def cells(self) -> list[Cell]:
        """The cells that exist, sorted by benchmark and hashes."""
        return [Cell(path.parent) for path in sorted(self.folder.glob("cells/*/*/cell.json"))]
