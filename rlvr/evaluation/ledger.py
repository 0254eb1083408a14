"""The ledger: every sample and every verdict is a row, in Parquet files that are only ever added.

A cell is one checkpoint on one benchmark under one way of drawing, with one seed. Its folder holds
`part-TIME-DIGEST.parquet`, written as samples come in, and `rows-DIGEST.parquet`, into which they are put together,
sorted, when nothing is missing. A file is written beside its place, flushed to the disk and then renamed. What is torn
in spite of that (a full disk, a lost machine) no longer has the digest of its name: it is found when a cell is opened,
set aside, and drawn again. Parquet's own checksums cover the pages only, not the footer.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr.errors import UserError

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

KEY = ("protocol_hash", "problem_id", "sample")
"""What tells rows apart; samples have no protocol."""

ROW_GROUP = 1024
STALE_SECONDS = 600.0
"""Half-written files of this age belong to no living process."""


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


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_durably(table: pa.Table, folder: Path, name: str) -> Path:
    """Write `NAME-DIGEST.parquet` whole or not at all: beside its place, flushed, renamed.

    Args:
        table: rows; equal tables make equal files.
        folder: which exists.
        name: what the file's name begins with.

    Returns:
        The file.
    """
    partial = folder / f".{name}.{os.getpid()}.partial"
    with partial.open("wb") as file:
        pq.write_table(
            table.combine_chunks(), file, row_group_size=ROW_GROUP, compression="zstd", write_page_checksum=True
        )
        file.flush()
        os.fsync(file.fileno())
    path = folder / f"{name}-{_digest(partial)}.parquet"
    partial.replace(path)
    _flush_folder(folder)
    return path


def _flush_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_checked(path: Path, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table | None:
    """Columns of a Parquet file, its checksums compared; None where it is torn."""
    names = None if columns is None else list(columns)
    try:
        return pq.read_table(path, columns=names, filters=where, page_checksum_verification=True, partitioning=None)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None


@dataclass(frozen=True)
class Store:
    """Rows of one kind in one folder.

    Attributes:
        folder: made when first written to.
        schema: of the rows.
    """

    folder: Path
    schema: pa.Schema

    def files(self) -> list[Path]:
        """The whole files; `rows-*` first, so that they win over parts that a kill has left beside them."""
        return sorted(self.folder.glob("*.parquet"), key=lambda path: (path.name.startswith("part-"), path.name))

    def repair(self) -> list[Path]:
        """Set torn files aside as `*.torn`, and remove what nobody goes on writing.

        Returns:
            The files that were torn.
        """
        torn = []
        for path in self.files():
            if _digest(path) != path.stem.rpartition("-")[2]:
                path.replace(path.with_suffix(".torn"))
                torn.append(path)
        for partial in self.folder.glob(".*.partial"):
            with contextlib.suppress(OSError):  # another process may have finished it
                if time.time() - partial.stat().st_mtime > STALE_SECONDS:
                    partial.unlink()
        return torn

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep rows, in a file of their own."""
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        if len(table):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(table, self.folder, f"part-{time.time_ns()}")

    def read(self, columns: Sequence[str] | None = None, problems: Sequence[str] | None = None) -> pa.Table:
        """Rows, of which those with the same problem, sample and protocol count once, sorted by these.

        Args:
            columns: None for all.
            problems: ids; None for all.

        Raises:
            UserError: for a torn file; `repair` sets it aside.
        """
        key = [name for name in KEY if name in self.schema.names]
        wanted = list(self.schema.names if columns is None else columns)
        where = None if problems is None else pc.field("problem_id").isin(list(problems))
        tables = []
        for path in self.files():
            table = read_checked(path, list(dict.fromkeys([*key, *wanted])), where)
            if table is None:
                raise UserError(
                    f"{path} is torn; run the evaluation again: it sets the file aside and draws what is lost"
                )
            tables.append(table)
        if not tables:
            return self.schema.empty_table().select(wanted)
        return _unique(pa.concat_tables(tables), key).select(wanted)

    def compact(self) -> None:
        """Put all files into one. Killed in between, the same rows stand twice and count once."""
        files = self.files()
        if len(files) > 1 or any(path.name.startswith("part-") for path in files):
            self.replace(self.read(), files)

    def replace(self, table: pa.Table, files: Sequence[Path]) -> None:
        """Put rows in the place of files."""
        written = write_durably(table, self.folder, "rows")
        for path in files:
            if path != written:
                path.unlink()


def _unique(table: pa.Table, key: list[str]) -> pa.Table:
    """The first row of each key, sorted by key."""
    first: dict[tuple[Any, ...], int] = {}
    for index, values in enumerate(zip(*(table.column(name).to_pylist() for name in key), strict=True)):
        first.setdefault(values, index)
    return table.take(pa.array([first[values] for values in sorted(first)], type=pa.int64()))


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

    def mend(self) -> list[Path]:
        """Set torn files aside, and with lost samples their verdicts: what is drawn again may be another answer.

        Returns:
            The files that were torn.
        """
        lost = self.samples.repair()
        torn = lost + self.verdicts.repair()
        if lost and (files := self.verdicts.files()):
            kept = self.samples.read(["problem_id", "sample"])
            table = self.verdicts.read().join(kept, keys=["problem_id", "sample"], join_type="left semi")
            self.verdicts.replace(_unique(table, list(KEY)), files)
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
