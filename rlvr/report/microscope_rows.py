"""Which recorded completions the token microscope shows, read by column: a record may hold millions of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.errors import UserError
from rlvr.report.reading import RunData
from rlvr.rollouts.record import recorded_step

MOST_STEPS = 5
"""Recorded steps that share the page where none are named."""

FACTS = (
    "step", "row", "group", "prompt_id", "prompt", "gold", "reward", "rewards", "correct", "status", "truncated",
)  # fmt: skip
"""Columns with one value a completion."""


@dataclass(frozen=True)
class Scores:
    """What one policy says of the T tokens of a completion; None where nobody was asked.

    Attributes:
        entropies: (T,) nats.
        logprobs: (T,) nats.
        by: who gave the two.
        top_ids: (T, K), the most likely tokens, most likely first.
        top_logprobs: (T, K) nats.
        top_by: who gave those two.
    """

    entropies: np.ndarray | None = None
    logprobs: np.ndarray | None = None
    by: str | None = None
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None
    top_by: str | None = None

    @property
    def complete(self) -> bool:
        """Whether a policy need not be asked."""
        return self.entropies is not None and self.top_ids is not None


@dataclass(frozen=True)
class Sample:
    """A completion of T tokens.

    Attributes:
        facts: the columns of `FACTS`.
        token_ids: (T,) int32.
        kept: (T,) bool.
        advantages: (T,).
        ktae: (T,), None where it is not recorded.
        ratio: (T,), None where it is not recorded.
        scores: of the sampling policy, or of the one that was asked in its place.
        against: of the other policy.
    """

    facts: dict[str, Any]
    token_ids: np.ndarray
    kept: np.ndarray
    advantages: np.ndarray
    ktae: np.ndarray | None
    ratio: np.ndarray | None
    scores: Scores
    against: Scores | None = None


RECORD = "the run's record"
"""Who said what was recorded."""


def chosen_records(paths: Sequence[Path], steps: Sequence[int] | None) -> list[Path]:
    """The records of some steps; without steps the first, the last, and evenly between them.

    Raises:
        UserError: if a step was not recorded.
    """
    if steps is None:
        last, count = len(paths) - 1, min(MOST_STEPS, len(paths))
        return [paths[round(index * last / max(count - 1, 1))] for index in range(count)]
    by_step = {step: path for path in paths if (step := recorded_step(path)) is not None}
    absent = [str(step) for step in steps if step not in by_step]
    if absent:
        there = ", ".join(map(str, sorted(by_step)))
        raise UserError(f"step {', '.join(absent)} is not among the recorded ones; choose --steps from {there}")
    return [by_step[step] for step in sorted(set(steps))]


def chosen_rows(groups: Sequence[Any], correct: Sequence[bool | None], count: int) -> list[int]:
    """Rows of a record to show: whole groups, those with right and wrong answers first.

    Args:
        groups: of each row.
        correct: verdict of each row.
        count: at most so many rows.

    Returns:
        Indices in ascending order.
    """
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    ordered = sorted(members.values(), key=lambda rows: len({correct[row] for row in rows} & {True, False}) < 2)
    return sorted([row for rows in ordered for row in rows][:count])


def read_samples(run: RunData, steps: Sequence[int] | None, count: int) -> tuple[list[Sample], list[str]]:
    """The completions to show, by step and row.

    Args:
        run: whose records are read.
        steps: optimizer steps of the records; None for a few of all.
        count: completions at most, shared evenly by the steps.

    Returns:
        The completions, and a sentence for each record that could not be read.

    Raises:
        UserError: if `count` is not positive, a step was not recorded, or there is nothing to show.
    """
    if count < 1:
        raise UserError(f"--completions is {count}; expected at least 1")
    samples: list[Sample] = []
    remarks: list[str] = []
    paths = chosen_records(run.records, steps)
    for index, path in enumerate(paths):
        share = -(-(count - len(samples)) // (len(paths) - index))
        if not share:  # more steps than completions
            break
        try:
            samples += _read(path, share)
        except Exception as error:  # pyarrow's errors for a broken file, KeyError for one of another make
            remarks.append(f"rollouts/{path.name} could not be read ({type(error).__name__}).")
    if not samples:
        why = " ".join(remarks) or "it holds no record, so rollouts.record.every was 0 or no step was made"
        raise UserError(f"{run.folder.rollouts} has no completion to show: {why}")
    return samples, remarks


def _read(path: Path, count: int) -> list[Sample]:
    import pyarrow.parquet as pq

    facts = pq.read_table(path, columns=["group", "correct"]).to_pydict()
    rows = chosen_rows(facts["group"], facts["correct"], count)
    table = pq.read_table(path).take(rows)
    scalars = table.select(FACTS).to_pylist()
    return [_sample(table, index, {**row, "rewards": dict(row["rewards"])}) for index, row in enumerate(scalars)]


def _sample(table: Any, index: int, facts: dict[str, Any]) -> Sample:
    """A row of a table; lists that are not as long as the completion are a ValueError."""
    token_ids = _numbers(table, "token_ids", index)
    if token_ids is None:
        raise ValueError("a completion without token_ids")
    length = len(token_ids)
    found = {name: _numbers(table, name, index) for name in ("entropies", "logprobs", "ktae", "ratio")}
    required = {name: _numbers(table, name, index) for name in ("kept", "advantages")}
    for name, values in {**found, **required}.items():
        if len(values if values is not None else token_ids) != length:
            raise ValueError(f"{name} is not as long as the completion")
    if length == 0 or found["entropies"] is None or found["logprobs"] is None:
        found["entropies"] = found["logprobs"] = None
    scores = Scores(found["entropies"], found["logprobs"], None if found["entropies"] is None else RECORD)
    tops = [_numbers(table, name, index) for name in ("top_ids", "top_logprobs")]
    if length and tops[0] is not None and tops[1] is not None:
        wide = [values.reshape(length, -1) for values in tops if values is not None]
        scores = replace(scores, top_ids=wide[0], top_logprobs=wide[1], top_by=RECORD)
    return Sample(
        facts, token_ids, _given(required["kept"]).astype(bool), _given(required["advantages"]), found["ktae"],
        found["ratio"], scores,
    )  # fmt: skip


def _given(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise ValueError("a column is null")
    return values


def _numbers(table: Any, name: str, index: int) -> np.ndarray | None:
    """The numbers of a list, or of a list of lists one after the other; None for null and for no such column."""
    import pyarrow as pa

    if name not in table.column_names:
        return None
    scalar = table[name][index]
    if not scalar.is_valid:
        return None
    values = scalar.values
    while pa.types.is_nested(values.type):
        values = values.flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False))
