"""Scores with chosen verdicts, and ledgers that hold them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.evaluation.ledger import Ledger
from rlvr.evaluation.scores import Scores


def protocol_of(benchmark: str, name: str = "plain", temperature: float = 1.0, engine: str = "made") -> dict[str, Any]:
    """A whole protocol."""
    return {
        "name": name, "benchmark": {"name": benchmark, "version": 1, "digest": "d" * 64}, "template": "{question}",
        "chat": False, "system": None, "decoding": {}, "engine": engine, "grader": "1 (made)",
        "sampling": {"temperature": temperature, "top_p": 1.0, "top_k": 0, "max_tokens": 20},
        "grading": {"extract": "boxed", "think": "after"},
    }  # fmt: skip


def made(
    correct: Sequence[Sequence[int]],
    *,
    checkpoint: str = "builtin",
    step: int | None = None,
    benchmark: str = "sums",
    seed: int = 0,
    total: int | None = None,
    first: int = 0,
    statuses: dict[tuple[int, int], str] | None = None,
    **protocol: Any,
) -> Scores:
    """Scores of problems `p00`, `p01`, ... from 1 for right and 0 for wrong.

    Args:
        correct: per problem and sample.
        checkpoint: label; equal labels have equal hashes.
        step: of the checkpoint.
        benchmark: name.
        seed: of the sampling.
        total: problems of the benchmark; None for those given.
        first: number of the first problem.
        statuses: (problem, sample) -> status other than `correct` and `wrong`.
        protocol: as for `protocol_of`.
    """
    asked = protocol_of(benchmark, **protocol)
    known = [
        [(statuses or {}).get((i, j), "correct" if right else "wrong") for j, right in enumerate(row)]
        for i, row in enumerate(correct)
    ]
    return Scores(
        checkpoint=checkpoint, checkpoint_hash=hashed(checkpoint), step=step, benchmark=benchmark,
        protocol_hash=hashed(json.dumps({k: v for k, v in asked.items() if k != "name"})), protocol=asked, seed=seed,
        total=len(correct) if total is None else total,
        problems=[f"p{first + index:02d}" for index in range(len(correct))],
        correct=[np.array(row, dtype=bool) for row in correct],
        classes=[
            [None if s == "no_answer" else "42" if s == "correct" else f"x{j}" for j, s in enumerate(row)]
            for row in known
        ],
        tokens=[np.array([10 + j for j in range(len(row))]) for row in correct],
        truncated=[np.array([s == "no_answer" for s in row]) for row in known], statuses=known,
    )  # fmt: skip


def hashed(text: str) -> str:
    """16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written(folder: Path, everything: Iterable[Scores]) -> Path:
    """A ledger on the disk."""
    for one in everything:
        cell = Ledger(folder).cell(one.benchmark, one.checkpoint_hash, one.protocol_hash, one.seed)
        cell.write_description({
            "checkpoint": one.checkpoint, "checkpoint_hash": one.checkpoint_hash, "step": one.step, "seed": one.seed,
            "benchmark": one.protocol["benchmark"], "problems": one.total, "draw_hash": one.protocol_hash,
            "protocols": {one.protocol_hash: one.protocol},
        })  # fmt: skip
        places = [(i, j) for i, row in enumerate(one.correct) for j in range(len(row))]
        cell.samples.add(
            {
                "checkpoint": one.checkpoint, "checkpoint_hash": one.checkpoint_hash, "benchmark": one.benchmark,
                "problem_id": one.problems[i], "sample": j, "seed": one.seed, "draw_hash": one.protocol_hash,
                "gold": "42", "completion": "", "token_count": int(one.tokens[i][j]),
                "finish_reason": "length" if one.truncated[i][j] else "stop",
            }
            for i, j in places
        )  # fmt: skip
        cell.verdicts.add(
            {
                "problem_id": one.problems[i], "sample": j, "protocol_hash": one.protocol_hash, "reason": "",
                "extracted": one.classes[i][j], "answer_class": one.classes[i][j],
                "correct": bool(one.correct[i][j]), "status": one.statuses[i][j],
            }
            for i, j in places
        )  # fmt: skip
    return folder


def run_of(shares: Sequence[int], problems: int = 12, run: str = "runs/x", **more: Any) -> list[Scores]:
    """Checkpoints of a run at steps 10, 20, ...; the n-th has the first `shares[n]` problems right, both samples."""
    return [
        made(
            [[int(problem < right)] * 2 for problem in range(problems)],
            checkpoint=f"{run}/checkpoints/checkpoint-{10 * (index + 1)}", step=10 * (index + 1), **more,
        )
        for index, right in enumerate(shares)
    ]  # fmt: skip
