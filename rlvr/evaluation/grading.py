"""Verdicts on the samples of a cell, and which of its answers are the same."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rlvr.evaluation.ledger import Cell, gold_value
from rlvr.rewards.answer_classes import answer_names
from rlvr.rewards.breaker import Limits
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import Policy

CHUNK_ROWS = 4096
"""Samples graded at once, and more where one problem has more."""

LIMITS = Limits(deadline=2.0, strikes=None, patience=None)
"""A deadline for each answer, none for all: no verdict depends on the rows around it."""


def grade_cell(cell: Cell, protocol_hash: str, policy: Policy) -> int:
    """Add the verdicts that are missing under one grading. Killed in between, what is written stays.

    Args:
        cell: with its samples.
        protocol_hash: what the verdicts are kept under.
        policy: the rules of grading.

    Returns:
        Rows graded.
    """
    keys = list(_keys(cell.samples.read(["problem_id", "sample"])))
    verdicts = cell.verdicts.read(["problem_id", "sample", "protocol_hash"])
    have = {
        key
        for key, by in zip(_keys(verdicts), verdicts["protocol_hash"].to_pylist(), strict=True)
        if by == protocol_hash
    }
    missing = set(keys) - have
    for problems in _chunks(keys, {problem for problem, _ in missing}):
        rows = cell.samples.read(["problem_id", "sample", "gold", "completion", "finish_reason"], problems).to_pylist()
        verdicts = _verdicts(rows, policy)
        cell.verdicts.add(
            {**verdict, "protocol_hash": protocol_hash}
            for verdict in verdicts
            if (verdict["problem_id"], verdict["sample"]) in missing
        )
    return len(missing)


def _keys(table: Any) -> Iterator[tuple[str, int]]:
    return zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True)


def _chunks(keys: Sequence[tuple[str, int]], wanted: set[str]) -> Iterator[list[str]]:
    """Whole problems, about `CHUNK_ROWS` samples at a time."""
    chunk: list[str] = []
    rows = 0
    for problem, group in groupby(keys, key=lambda key: key[0]):
        if problem in wanted:
            chunk.append(problem)
            rows += sum(1 for _ in group)
            if rows >= CHUNK_ROWS:
                yield chunk
                chunk, rows = [], 0
    if chunk:
        yield chunk


def _verdicts(rows: list[dict[str, Any]], policy: Policy) -> list[dict[str, Any]]:
    """A verdict a row; rows of whole problems, sorted."""
    graded = grade_many(
        [row["completion"] for row in rows],
        [gold_value(row["gold"]) for row in rows],
        [row["finish_reason"] == "length" for row in rows],
        policy=policy, limits=LIMITS,
    )  # fmt: skip
    found = [
        {
            "problem_id": row["problem_id"], "sample": row["sample"], "extracted": verdict.extracted,
            "correct": verdict.correct, "status": verdict.status, "reason": verdict.reason, "answer_class": None,
            "votes": not (policy.truncated_wrong and row["finish_reason"] == "length"),
        }
        for row, verdict in zip(rows, graded, strict=True)
    ]  # fmt: skip
    by_problem = [list(group) for _, group in groupby(found, key=lambda verdict: verdict["problem_id"])]
    for verdicts, classes in zip(by_problem, answer_classes(by_problem), strict=True):
        for verdict, name in zip(verdicts, classes, strict=True):
            verdict["answer_class"] = name
    return found


def answer_classes(problems: Sequence[Sequence[dict[str, Any]]]) -> list[list[str | None]]:
    r"""Which answers of a problem are the same, by the grader: what a majority vote counts.

    All right answers are one class. A wrong one joins the first class before it that it equals. A class is named by its
    first answer, so samples that are added later change no name.

    Args:
        problems: verdicts with `extracted`, `correct` and `votes` (false for an answer that was cut off), in order of
            the samples.

    Returns:
        A name per verdict; None where nothing was extracted, or the answer has no vote.
    """
    wrong = [_wrong_texts(problem) for problem in problems]
    names: list[list[str | None]] = []
    for problem, name_of in zip(problems, answer_names(wrong, limits=LIMITS), strict=True):
        right = next((v["extracted"] for v in problem if v["correct"]), None)
        names.append([right if v["correct"] else name_of.get(v["extracted"]) if v["votes"] else None for v in problem])
    return names


def _wrong_texts(problem: Sequence[dict[str, Any]]) -> list[str]:
    """The wrong answers that have a vote, in order of the samples."""
    return [v["extracted"] for v in problem if v["votes"] and not v["correct"] and v["extracted"] is not None]
