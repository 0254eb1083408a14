"""A score with its interval, from the rows of a cell; or of several cells, one a benchmark, put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rlvr.errors import UserError
from rlvr.evaluation.intervals import Interval, mean_interval
from rlvr.evaluation.metrics import maj_at_k, pass_at_k
from rlvr.evaluation.scores import Scores

GRADER_FAILURES = ("timeout", "crash")
"""Statuses in which the grader failed, not the completion; they count as wrong."""

cached_pass_at_k = lru_cache(maxsize=1 << 14)(pass_at_k)


@dataclass(frozen=True)
class Summary:
    """What is said about one checkpoint on one benchmark, or on several together.

    All means are means over problems of per-problem means, so a problem with more samples weighs no more.

    Attributes:
        checkpoint: its label.
        checkpoint_hash: of its weights.
        step: optimizer step, where the label says it.
        benchmark: name; `all N` for several together.
        benchmarks: their names.
        protocol_hash: what makes scores comparable; empty for several benchmarks, which have one each.
        protocol: what the hash stands for; empty for several benchmarks.
        protocol_name: for people.
        seed: of the sampling.
        problems: asked and graded.
        total: problems that the benchmarks have.
        fewest: samples of the problem that has the fewest.
        most: of the one that has the most.
        avg: avg@n.
        pass_at: k -> pass@k.
        maj_at: k -> maj@k.
        truncated: share cut at the length limit.
        no_answer: share without an answer.
        tokens: mean tokens of a completion.
        timeouts: samples on which the grader ran out of time.
        crashes: samples on which the grader crashed.
    """

    checkpoint: str
    checkpoint_hash: str
    step: int | None
    benchmark: str
    benchmarks: tuple[str, ...]
    protocol_hash: str
    protocol: dict[str, Any]
    protocol_name: str
    seed: int
    problems: int
    total: int
    fewest: int
    most: int
    avg: Interval
    pass_at: dict[int, Interval]
    maj_at: dict[int, Interval]
    truncated: float
    no_answer: float
    tokens: float
    timeouts: int
    crashes: int

    @property
    def asked(self) -> str:
        """`512`, or `30 of 500` where a part was asked."""
        return str(self.problems) if self.problems == self.total else f"{self.problems} of {self.total}"

    @property
    def samples(self) -> str:
        """n, or `4 to 8` where problems differ."""
        return str(self.fewest) if self.fewest == self.most else f"{self.fewest} to {self.most}"


def powers_of_two(n: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to n."""
    return tuple(1 << power for power in range(n.bit_length()))


def summarise(scores: Scores, ks: Sequence[int] | None = None) -> Summary:
    """The scores of a checkpoint on a benchmark.

    Problems may have different numbers of samples, as when a draw with more samples is under way: every mean is a mean
    of per-problem means, and k goes up to the smallest number.

    Args:
        scores: of one cell.
        ks: k of pass@k and maj@k; None for the powers of two up to n.

    Returns:
        The summary, with 95 % intervals over problems.

    Raises:
        UserError: if a k is below 1, or above the samples of some problem.
    """
    return _summary([scores], ks)


def summarise_together(parts: Sequence[Scores], ks: Sequence[int] | None = None) -> Summary:
    """The scores of a checkpoint over several benchmarks: the mean over all their problems.

    The interval is stratified: another draw would have as many problems of each benchmark.

    Args:
        parts: of the same checkpoint and seed, one a benchmark.
        ks: as for `summarise`.

    Raises:
        ValueError: if they are of several checkpoints, or a benchmark stands there twice.
        UserError: as for `summarise`.
    """
    names = [part.benchmark for part in parts]
    if not parts or len({part.checkpoint_hash for part in parts}) != 1 or len(set(names)) != len(names):
        raise ValueError(f"parts are of the benchmarks {names}; expected one checkpoint, and each benchmark once")
    return _summary(parts, ks)


def _summary(parts: Sequence[Scores], ks: Sequence[int] | None) -> Summary:
    first, alone = parts[0], len(parts) == 1
    correct = [problem for part in parts for problem in part.correct]
    counts = [len(problem) for problem in correct]
    chosen = _checked_ks(parts, ks, min(counts))
    strata = None if alone else np.repeat(np.arange(len(parts)), [len(part.problems) for part in parts])
    statuses = [problem for part in parts for problem in part.statuses]
    classes = [problem for part in parts for problem in part.classes]

    def mean_of(values: Sequence[float]) -> Interval:
        return mean_interval(np.array(values, dtype=float), strata=strata)

    return Summary(
        checkpoint=first.checkpoint, checkpoint_hash=first.checkpoint_hash, step=first.step, seed=first.seed,
        benchmark=first.benchmark if alone else f"all {len(parts)}",
        benchmarks=tuple(part.benchmark for part in parts),
        protocol_hash=first.protocol_hash if alone else "", protocol=first.protocol if alone else {},
        protocol_name=first.protocol["name"], problems=len(correct), total=sum(part.total for part in parts),
        fewest=min(counts), most=max(counts), avg=mean_of([problem.mean() for problem in correct]),
        pass_at={k: mean_of([cached_pass_at_k(len(p), int(p.sum()), k) for p in correct]) for k in chosen},
        maj_at={k: mean_of([_majority(c, p, k) for c, p in zip(classes, correct, strict=True)]) for k in chosen},
        truncated=float(np.mean([problem.mean() for part in parts for problem in part.truncated])),
        no_answer=float(np.mean([problem.count("no_answer") / len(problem) for problem in statuses])),
        tokens=float(np.mean([problem.mean() for part in parts for problem in part.tokens])),
        timeouts=sum(problem.count("timeout") for problem in statuses),
        crashes=sum(problem.count("crash") for problem in statuses),
    )  # fmt: skip


def _checked_ks(parts: Sequence[Scores], ks: Sequence[int] | None, fewest: int) -> tuple[int, ...]:
    if ks is None:
        return powers_of_two(fewest)
    for k in ks:
        if not 1 <= k <= fewest:
            names = ", ".join(part.benchmark for part in parts)
            raise UserError(
                f"pass@{k} of {parts[0].checkpoint} on {names}, where a problem has {fewest} samples; expected k from "
                f"1 to {fewest}: draw more with samples={max(k, 1)}, or ask for less"
            )
    return tuple(sorted(set(ks)))


def _majority(classes: Sequence[str | None], correct: np.ndarray, k: int) -> float:
    """maj@k of a problem.

    An answer on which the grader ran out of time once can stand among the wrong ones under the name of the right
    class; it votes for a class of its own.
    """
    sizes: dict[tuple[bool, str], int] = {}
    for name, verdict in zip(classes, correct.tolist(), strict=True):
        if name is not None:
            sizes[verdict, name] = sizes.get((verdict, name), 0) + 1
    return _votes(tuple(sorted((verdict, size) for (verdict, _), size in sizes.items())), len(classes), k)


@lru_cache(maxsize=1 << 14)
def _votes(sizes: tuple[tuple[bool, int], ...], n: int, k: int) -> float:
    """maj@k by the sizes of the right and wrong classes alone: many problems of a benchmark have the same."""
    classes = [str(index) for index, (_, size) in enumerate(sizes) for _ in range(size)]
    correct = [verdict for verdict, size in sizes for _ in range(size)]
    silent = n - len(classes)
    return maj_at_k([*classes, *[None] * silent], [*correct, *[False] * silent], k)
