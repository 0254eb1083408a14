"""Rows in Parquet files that are only ever added: whole or not at all, whoever reads or writes at the same time.

`part-TIME-DIGEST.parquet` is written as rows come in, `rows-DIGEST.parquet` holds them put together and sorted. A file
is written beside its place, flushed to the disk and then renamed. What is torn in spite of that (a full disk, a lost
machine) no longer has the digest of its name. Parquet's own checksums cover the pages only, not the footer.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr.checkpoints.layout import sync_folder
from rlvr.errors import UserError

KEY = ("protocol_hash", "problem_id", "sample")
"""What tells rows apart; samples have no protocol."""

ROW_GROUP = 1024
STALE_SECONDS = 600.0
"""Half-written files of this age belong to no living process."""

TRIES = 50
"""Times that files are listed anew for one reading, because others put them together meanwhile."""


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
    sync_folder(folder)
    return path


def read_checked(path: Path, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table | None:
    """Columns of a Parquet file, its checksums compared; None where it is torn, or gone."""
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
        for _ in range(TRIES):
            tables = self._tables(list(dict.fromkeys([*key, *wanted])), where)
            if tables is not None:
                break
        else:
            raise UserError(
                f"{self.folder} was put together anew by other processes during each of {TRIES} readings; expected a "
                "moment without that, so run the command again"
            )
        if not tables:
            return self.schema.empty_table().select(wanted)
        return _unique(pa.concat_tables(tables), key).select(wanted)

    def _tables(self, columns: list[str], where: Any) -> list[pa.Table] | None:
        """What each file holds; None where others have put files together meanwhile, so that rows may be missing.

        Raises:
            UserError: for a torn file.
        """
        files, tables = self.files(), []
        for path in files:
            table = read_checked(path, columns, where)
            if table is None:
                if not path.exists():
                    return None
                raise UserError(
                    f"{path} is torn; run the evaluation again: it sets the file aside and draws what is lost"
                )
            tables.append(table)
        # A list that is made while files are put together may have neither a part nor the file that it went into.
        together = {path for path in self.files() if not path.name.startswith("part-")}
        return tables if together <= set(files) else None

    def compact(self) -> None:
        """Put all files into one. Killed in between, the same rows stand twice and count once."""
        files = self.files()
        if len(files) > 1 or any(path.name.startswith("part-") for path in files):
            self.replace(self.read(), files)

    def replace(self, table: pa.Table, files: Sequence[Path]) -> None:
        """Put rows in the place of files; some of these may be gone already."""
        written = write_durably(table, self.folder, "rows")
        for path in files:
            if path != written:
                path.unlink(missing_ok=True)


def _unique(table: pa.Table, key: list[str]) -> pa.Table:
    """The first row of each key, sorted by key."""
    first: dict[tuple[Any, ...], int] = {}
    for index, values in enumerate(zip(*(table.column(name).to_pylist() for name in key), strict=True)):
        first.setdefault(values, index)
    return table.take(pa.array([first[values] for values in sorted(first)], type=pa.int64()))
