"""Grade a file of completions: row by row into another file, in constant memory, and going on where it was stopped."""

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from rlvr.errors import UserError
from rlvr.rewards.breaker import Limits
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import DEFAULT, Policy
from rlvr.rewards.rows import Columns, Graded, Row, Rows, encode, read_row
from rlvr.rewards.verdict import Verdict
from rlvr.rewards.version import grader_version

ADDED = ("correct", "extracted", "status", "reason", "seconds")
"""The columns that a graded row has besides those of the input."""

CHUNK_ROWS = 1024
CHUNK_CHARACTERS = 1 << 24


@dataclass
class Tally:
    """Statuses by task.

    Attributes:
        statuses: how often each status occurred, by task; the task of rows without one is an empty text.
        resumed: rows that an earlier start had graded.
    """

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    resumed: int = 0

    def add(self, task: str, status: str) -> None:
        """Count a row."""
        self.statuses.setdefault(task, Counter())[status] += 1

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(counts.total() for counts in self.statuses.values())


def output_path(path: Path) -> Path:
    """Where the graded rows of a file go: `FILE.graded.jsonl`."""
    return path.with_name(f"{path.name}.graded.jsonl")


def grade_file(
    path: Path,
    output: Path | None = None,
    *,
    columns: Columns | None = None,
    policy: Policy = DEFAULT,
    workers: int | None = None,
    deadline: float = 2.0,
    overwrite: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> Tally:
    """Grade every row of a file; the output is the input row plus `ADDED`, a line each, in order.

    What an earlier start has written is kept, after a look that it was made from these rows, by these rules and by this
    grader. One process at a time writes an output. No verdict depends on the rows around it: there is no budget for the
    file, only a deadline for each answer.

    Args:
        path: JSON Lines or Parquet.
        output: None for `FILE.graded.jsonl`.
        columns: where things stand in a row.
        policy: the rules of grading.
        workers: processes that compare at a time; None for one a usable core.
        deadline: wall seconds for one answer.
        overwrite: begin anew.
        progress: called with rows graded, and how much of how much was read.

    Returns:
        Statuses by task, of all rows.

    Raises:
        UserError: for a file or a row that cannot be read, or an output that does not belong to it, or that another
            process is writing.
    """
    columns, output = columns or Columns(), output or output_path(path)
    rows = Rows(path)
    if output.resolve() == path.resolve():
        raise UserError(f"{output} is the input; expected another file to write to")
    rules = asdict(policy) | {"completion": columns.completion, "gold": columns.gold, "grader": grader_version()}
    with _held(output) as file:
        if overwrite:
            file.truncate(0)
        begun = file.seek(0, 2) > 0
        _keep_rules(output, begun, rules)
        tally, stream = Tally(), iter(rows)
        try:
            _go_on(file, output, stream, columns, tally)
            for chunk in _chunks(stream, columns):
                verdicts = _verdicts([part for _, part in chunk], policy, workers, deadline)
                lines = [_line(row, verdict) for (row, _), verdict in zip(chunk, verdicts, strict=True)]
                file.write("".join(lines).encode())
                file.flush()
                for (_, part), verdict in zip(chunk, verdicts, strict=True):
                    tally.add(part.task, verdict.status)
                if progress is not None:
                    progress(tally.rows, rows.done, rows.total)
        except UserError:
            if not begun and not tally.rows:  # a mistake leaves nothing behind
                output.unlink()
                _note(output).unlink()
            raise
    return tally


@contextlib.contextmanager
def _held(output: Path) -> Iterator[IO[bytes]]:
    """The output, open for this process alone.

    Raises:
        UserError: if it cannot be written, or another process has it.
    """
    try:
        file = output.open("a+b")
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); set --output to a file that can") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have taken it away between the opening and the lock.
            held = output.exists() and os.path.samestat(os.fstat(file.fileno()), output.stat())
        except BlockingIOError:
            held = False
        except OSError as error:
            raise UserError(
                f"{output} cannot be locked ({error.strerror}); set --output to a file on a file system with locks"
            ) from None
        if not held:
            raise UserError(
                f"{output} is being written by another process; wait for it, or set --output to another file"
            )
        yield file


def _verdicts(parts: list[Graded], policy: Policy, workers: int | None, deadline: float) -> list[Verdict]:
    return grade_many(
        [part.completion for part in parts], [part.golds for part in parts], [part.truncated for part in parts],
        workers=workers, policy=policy, limits=Limits(deadline, strikes=None, patience=None),
    )  # fmt: skip


def _line(row: Row, verdict: Verdict) -> str:
    values = asdict(verdict) | {"seconds": round(verdict.seconds, 6)}
    return encode(row | {name: values[name] for name in ADDED}) + "\n"


def _chunks(stream: Iterator[tuple[str, Row]], columns: Columns) -> Iterator[list[tuple[Row, Graded]]]:
    chunk: list[tuple[Row, Graded]] = []
    characters = 0
    for where, row in stream:
        try:
            part = read_row(row, columns, where)
        except UserError:
            if chunk:
                yield chunk  # what came before is kept
            raise
        chunk.append((row, part))
        characters += len(part.completion)
        if len(chunk) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _note(output: Path) -> Path:
    return output.with_name(f"{output.name}.rules.json")


def _keep_rules(output: Path, begun: bool, rules: dict[str, Any]) -> None:
    """Note by which rules and which grader an output is made, beside it; refuse to add rows by others.

    Raises:
        UserError: naming the rule.
    """
    before: dict[str, Any] = {}
    if begun and _note(output).exists():
        with contextlib.suppress(ValueError):
            noted = json.loads(_note(output).read_text())
            before = noted if isinstance(noted, dict) else {}
    if begun:
        before.setdefault("grader", "unknown")  # an earlier version of this package noted none
    for name, value in rules.items():
        if before.get(name, value) != value:
            raise UserError(
                f"{output} was graded with {name}={before[name]}, now {name}={value}; expected the same to go on: add "
                "--overwrite to grade anew, or --output for another file"
            )
    if before != rules:
        _note(output).write_text(json.dumps(rules, indent=1) + "\n")


def _whole_lines(file: IO[bytes]) -> int:
    """Cut a torn last line off; the length of the rest in bytes."""
    end = file.seek(0, 2)
    whole = end
    while whole > 0:
        start = max(0, whole - (1 << 16))
        file.seek(start)
        block = file.read(whole - start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            whole = start + newline + 1
            break
        whole = start
    if whole < end:
        file.truncate(whole)
    return whole


def _go_on(file: IO[bytes], output: Path, stream: Iterator[tuple[str, Row]], columns: Columns, tally: Tally) -> None:
    """Take over the rows that are graded already, each compared with the input's.

    Raises:
        UserError: if they belong to other rows.
    """
    whole = _whole_lines(file)
    file.seek(0)
    while file.tell() < whole:
        line = file.readline()
        found = next(stream, None)
        if found is None:
            raise _other(output, f"it has more rows than the input: {tally.resumed} are there")
        where, row = found
        try:
            graded = json.loads(line)
            status = graded["status"]
        except (ValueError, KeyError, TypeError):
            raise _other(output, f"its line {tally.resumed + 1} is no graded row") from None
        given = json.loads(encode(row))
        if any(graded.get(name) != value for name, value in given.items() if name not in ADDED):
            raise _other(output, f"its line {tally.resumed + 1} is not {where}")
        task = row.get(columns.task)
        tally.add("" if task is None else str(task), status)
        tally.resumed += 1
    file.seek(0, 2)


def _other(output: Path, reason: str) -> UserError:
    return UserError(
        f"{output} was made from another input: {reason}; expected the same rows to go on: add --overwrite to grade "
        "anew, or --output for another file"
    )
