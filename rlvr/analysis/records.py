"""Reads recorded rollouts a few rows at a time, as arrays."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr.errors import UserError
from rlvr.rollouts.record import recorded_step
from rlvr.run_folder import RunFolder

ROWS = 64
"""Completions read at once."""


@dataclass(frozen=True)
class RecordFile:
    """A file of recorded rollouts.

    Attributes:
        path: of the file.
        step: optimizer step, from its name; None for another name.
    """

    path: Path
    step: int | None


@dataclass(frozen=True)
class TokenRows:
    """Some completions of a record, scored ones only. N tokens of n completions, one after another.

    Attributes:
        lengths: (n,) int64, tokens of each completion.
        tokens: per-token columns by name, (N,) each.
        rows: per-completion columns by name, n values each.
        index: (n,) int64, number of the completion in its file, those that were not scored counted.
        left_out: completions beside these that were not scored.
    """

    lengths: np.ndarray
    tokens: dict[str, np.ndarray]
    rows: dict[str, list[Any]]
    index: np.ndarray
    left_out: int


def find_records(places: Sequence[str], steps: str = "all") -> list[RecordFile]:
    """The files that people name, in order; those of a folder by their step.

    Args:
        places: run folders, folders of records, Parquet files.
        steps: which files of a folder: `all`, `first`, `last`, a step, or `FIRST-LAST`.

    Raises:
        UserError: for a place without records, or steps that are none.
    """
    found: list[RecordFile] = []
    for text in places:
        place = Path(text).expanduser()
        if place.is_file():
            found.append(_record_file(place))
            continue
        folder = RunFolder(place).rollouts if RunFolder(place).rollouts.is_dir() else place
        files = [_record_file(path) for path in folder.glob("*.parquet")]
        if not files:
            raise UserError(
                f"{place} holds no recorded rollouts; expected a run folder with rollouts/step_*.parquet "
                "(rollouts.record.every above 0), or Parquet files"
            )
        files.sort(key=lambda file: (-1 if file.step is None else file.step, file.path.name))
        found += _chosen(files, steps, place)
    return list(dict.fromkeys(found))


def _record_file(path: Path) -> RecordFile:
    return RecordFile(path, recorded_step(path))


def _chosen(files: list[RecordFile], steps: str, place: Path) -> list[RecordFile]:
    if steps in ("all", "first", "last"):
        return {"all": files, "first": files[:1], "last": files[-1:]}[steps]
    bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", steps)
    if bounds is None:
        raise UserError(f"--steps is {steps}; expected all, first, last, a step such as 120, or steps such as 100-200")
    low, high = int(bounds.group(1)), int(bounds.group(2) or bounds.group(1))
    chosen = [file for file in files if file.step is not None and low <= file.step <= high]
    if not chosen:
        known = ", ".join(str(file.step) for file in files[:20])
        raise UserError(f"{place} has no record of steps {steps}; it has {known}{', ...' * (len(files) > 20)}")
    return chosen


def open_record(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """A file that has these columns.

    Raises:
        UserError: if it cannot be read, or lacks one.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); expected a Parquet file of recorded rollouts") from None
    lost = [name for name in columns if name not in file.schema_arrow.names]
    if lost:
        raise UserError(f"{path} has no column {lost[0]}; expected recorded rollouts, see docs/metrics.md")
    return file


def token_rows(path: Path, tokens: Sequence[str], rows: Sequence[str] = ()) -> Iterator[TokenRows]:
    """Completions of a record, a few at a time; those without a value in the first per-token column are left out.

    Args:
        path: of the file.
        tokens: per-token columns, at least one.
        rows: per-completion columns.

    Raises:
        UserError: for a file that cannot be read, lacks a column, holds entropies that are no numbers, or whose
            columns do not fit each other.
    """
    file = open_record(path, [*tokens, *rows])
    read = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=[*tokens, *rows]):
        valid = pc.is_valid(batch.column(tokens[0]))
        index, read = read + np.flatnonzero(valid.to_numpy(zero_copy_only=False)), read + batch.num_rows
        scored = batch.filter(valid)
        lengths = pc.list_value_length(scored.column(tokens[0])).to_numpy(zero_copy_only=False).astype(np.int64)
        arrays = {}
        for name in tokens:
            column = scored.column(name)
            same = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
            if not np.array_equal(same, lengths):
                raise UserError(f"{path}: {name} and {tokens[0]} have different lengths; expected one value a token")
            arrays[name] = column.flatten().to_numpy(zero_copy_only=False)
        if "entropies" in arrays and not np.isfinite(arrays["entropies"]).all():
            count = int((~np.isfinite(arrays["entropies"])).sum())
            raise UserError(f"{path} holds {count} entropies that are no finite numbers; expected nats")
        others = {name: scored.column(name).to_pylist() for name in rows}
        yield TokenRows(lengths, arrays, others, index, batch.num_rows - scored.num_rows)


@dataclass(frozen=True)
class Entropies:
    """All scored tokens of some files.

    Attributes:
        values: (N,) float32, nats.
        completions: scored ones.
        left_out: completions that were not scored.
    """

    values: np.ndarray
    completions: int
    left_out: int


def read_entropies(files: Sequence[RecordFile]) -> Entropies:
    """The recorded entropies of files, four bytes a token.

    Raises:
        UserError: as for `token_rows`, or if nothing was scored.
    """
    parts: list[np.ndarray] = []
    completions = left_out = 0
    for file in files:
        for rows in token_rows(file.path, ["entropies"]):
            parts.append(rows.tokens["entropies"])
            completions, left_out = completions + len(rows.lengths), left_out + rows.left_out
    values = np.concatenate([np.zeros(0, np.float32), *parts])
    if not values.size:
        raise UserError(
            f"no token of {files[0].path}{' and the others' * (len(files) > 1)} was scored; expected entropies: "
            "record with rollouts.record_scores=true, or name other steps"
        )
    return Entropies(values, completions, left_out)


def said_of(files: Sequence[RecordFile], completions: int, left_out: int) -> list[str]:
    """What to know about the rows that were read, for people."""
    steps = sorted({file.step for file in files if file.step is not None})
    notes = [f"{completions:,} completions of {len(files)} record{'s' * (len(files) > 1)}"]
    if len(steps) == 1:
        notes[0] += f", step {steps[0]}."
    elif steps:
        notes[0] += f", steps {steps[0]} to {steps[-1]}: as many policies, pooled; --steps last takes the newest alone."
    else:
        notes[0] += "."
    if left_out:
        notes.append(
            f"{left_out:,} completions were not scored and are left out; with candidates=informative these are groups "
            "that are all right or all wrong."
        )
    return notes
