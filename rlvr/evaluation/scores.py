"""The rows of a cell as arrays per problem: what every metric is computed from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.errors import UserError
from rlvr.evaluation.ledger import Cell, Ledger

COLUMNS = ("problem_id", "sample", "token_count", "finish_reason", "extracted", "answer_class", "correct", "status")


@dataclass(frozen=True)
class Scores:
    """One checkpoint on one benchmark under one protocol and seed.

    Attributes:
        checkpoint: its label.
        checkpoint_hash: of its weights.
        step: optimizer step, where the label says it.
        benchmark: name.
        protocol_hash: what makes scores comparable.
        protocol: what the hash stands for, with the protocol's `name`.
        seed: of the sampling.
        total: problems of the benchmark; more than `problems` where a part was asked.
        problems: ids, sorted.
        correct: per problem, (n_i,) bool in order of the samples.
        classes: per problem, the answer class of each sample; None where it has no answer.
        tokens: per problem, (n_i,) int.
        truncated: per problem, (n_i,) bool: cut at the length limit.
        statuses: per problem, the grader's status of each sample.
    """

    checkpoint: str
    checkpoint_hash: str
    step: int | None
    benchmark: str
    protocol_hash: str
    protocol: dict[str, Any]
    seed: int
    total: int
    problems: list[str]
    correct: list[np.ndarray]
    classes: list[list[str | None]]
    tokens: list[np.ndarray]
    truncated: list[np.ndarray]
    statuses: list[list[str]]

    @property
    def samples(self) -> int | None:
        """n, where every problem has as many samples; None where they differ."""
        counts = {len(correct) for correct in self.correct}
        return counts.pop() if len(counts) == 1 else None

    def means(self) -> np.ndarray:
        """(N,) share of right samples of each problem; their mean is avg@n."""
        return np.array([correct.mean() for correct in self.correct])


def read_scores(cell: Cell, protocol_hash: str) -> Scores | None:
    """A cell under one grading; None where it has no verdict under it."""
    rows = cell.rows(protocol_hash, COLUMNS).to_pylist()
    if not rows:
        return None
    described = cell.describe()
    problems = {problem: list(group) for problem, group in groupby(rows, key=lambda row: row["problem_id"])}
    groups = list(problems.values())
    return Scores(
        checkpoint=described["checkpoint"],
        checkpoint_hash=described["checkpoint_hash"],
        step=described["step"],
        benchmark=described["benchmark"]["name"],
        protocol_hash=protocol_hash,
        protocol=described["protocols"][protocol_hash],
        seed=described["seed"],
        total=described["problems"],
        problems=list(problems),
        correct=[np.array([row["correct"] for row in group], dtype=bool) for group in groups],
        classes=[[row["answer_class"] for row in group] for group in groups],
        tokens=[np.array([row["token_count"] for row in group]) for group in groups],
        truncated=[np.array([row["finish_reason"] == "length" for row in group]) for group in groups],
        statuses=[[row["status"] for row in group] for group in groups],
    )


def read_ledger(folder: Path, benchmarks: Sequence[str] | None = None) -> list[Scores]:
    """Everything that a ledger holds, sorted by checkpoint, step and benchmark.

    Args:
        folder: of the ledger.
        benchmarks: names; None for all.

    Raises:
        UserError: if there is no ledger, or it has nothing of these benchmarks.
    """
    cells = Ledger(folder).cells()
    if not cells:
        raise UserError(f"{folder} is no ledger; expected a folder that `rlvr evaluate` wrote")
    found = []
    for cell in cells:
        try:
            described = cell.describe()
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{cell.folder}/cell.json cannot be read ({error}); run the evaluation again") from None
        if benchmarks is None or described["benchmark"]["name"] in benchmarks:
            found += [scores for name in described["protocols"] if (scores := read_scores(cell, name)) is not None]
    if not found:
        raise UserError(f"{folder} has no graded samples{'' if benchmarks is None else ' of ' + ', '.join(benchmarks)}")
    return sorted(
        found, key=lambda s: (_family(s.checkpoint), -1 if s.step is None else s.step, s.checkpoint, s.benchmark)
    )


def _family(checkpoint: str) -> str:
    """What the checkpoints of a run have in common."""
    return checkpoint.rsplit("/checkpoint-", 1)[0]
