"""The value of one problem, from its samples: avg@n, pass@k and maj@k, each exact.

Every function looks at one problem. Means over problems and their intervals are in `intervals.py`.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import comb

import numpy as np

WIDEST = 2**63
"""Counts below it fit an int64; above, numpy keeps Python's integers."""


def avg_at_n(correct: Sequence[bool]) -> float:
    """The share of a problem's samples that are right: an unbiased estimate of its solve rate.

    Args:
        correct: (n,) verdicts.

    Returns:
        c / n.

    Raises:
        ValueError: no samples.
    """
    if not len(correct):
        raise ValueError("avg@n of no samples; expected at least one sample of the problem")
    return sum(map(bool, correct)) / len(correct)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that k of the n samples, drawn without replacement, hold a right one.

    It is an unbiased estimate of the probability that k new samples hold one: 1 - C(n-c, k) / C(n, k)
    (arXiv 2107.03374, eq. 1). Computed in integers, so it is exact to the last bit.

    Args:
        n: samples of the problem.
        c: right ones among them.
        k: samples allowed.

    Returns:
        A probability.

    Raises:
        ValueError: k above n or below 1, or c outside 0..n.
    """
    _check_k(n, k, "pass")
    if not 0 <= c <= n:
        raise ValueError(f"c is {c} right samples of {n}; expected a number from 0 to {n}")
    everything = comb(n, k)
    return (everything - comb(n - c, k)) / everything


def maj_at_k(classes: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """The probability that the majority of k of the n samples, drawn without replacement, is right.

    Samples vote for their class of equivalent answers (self-consistency, arXiv 2203.11171). A sample without an
    answer does not vote. A tie is broken uniformly at random, and no vote at all is wrong. Exact: for each right
    class and each number of votes j, a polynomial counts the draws in which no class has more than j, by the number
    of classes that tie.

    Args:
        classes: (n,) the class of each sample's answer, None without an answer.
        correct: (n,) verdicts; equal within a class, False without an answer.
        k: samples that vote.

    Returns:
        A probability.

    Raises:
        ValueError: k above n or below 1, lengths that differ, a class with both verdicts, or a right sample
            without an answer.
    """
    n = len(classes)
    if len(correct) != n:
        raise ValueError(f"{n} classes but {len(correct)} verdicts; expected one of each for a sample")
    _check_k(n, k, "maj")
    right = _right_classes(classes, correct)
    sizes = Counter(label for label in classes if label is not None)
    silent = n - sum(sizes.values())
    total = Fraction(0)
    for size, times in Counter(sizes[label] for label in right).items():
        others = sorted(sizes.values())
        others.remove(size)
        for votes in range(1, min(size, k) + 1):
            tied = _draws(others, silent, votes, k - votes)
            wins = sum((Fraction(int(ways), ties + 1) for ties, ways in enumerate(tied)), Fraction(0))
            total += times * comb(size, votes) * wins
    return float(total / comb(n, k))


def _check_k(n: int, k: int, name: str) -> None:
    if k < 1:
        raise ValueError(f"{name}@{k}; expected k of at least 1")
    if k > n:
        raise ValueError(f"{name}@{k} of {n} samples; expected k of at most {n}: draw more samples, or ask for less")


def _right_classes(classes: Sequence[str | None], correct: Sequence[bool]) -> list[str]:
    """The classes whose members are right."""
    verdicts: dict[str, bool] = {}
    for label, verdict in zip(classes, map(bool, correct), strict=True):
        if label is None:
            if verdict:
                raise ValueError("a sample without an answer class is right; expected a class for every right sample")
        elif verdicts.setdefault(label, verdict) != verdict:
            raise ValueError(f"answer class {label!r} is both right and wrong; expected one verdict for a class")
    return [label for label, verdict in verdicts.items() if verdict]


def _draws(others: list[int], silent: int, votes: int, rest: int) -> np.ndarray:
    """Ways to draw `rest` samples of the others so that no class has more than `votes`, by classes that tie with it.

    Args:
        others: sizes of the other classes.
        silent: samples without an answer.
        votes: what the right class has, at least 1.
        rest: samples to draw.

    Returns:
        (ties + 1,) counts.
    """
    n = sum(others) + silent
    # No count of the table exceeds C(n, n // 2): a draw is counted once.
    dtype = np.int64 if comb(n, n // 2) < WIDEST else object
    most_ties = min(rest // votes, sum(size >= votes for size in others))
    ways = np.zeros((most_ties + 1, rest + 1), dtype)
    ways[0] = [comb(silent, drawn) for drawn in range(rest + 1)]
    for size in others:
        new = np.zeros_like(ways)
        for drawn in range(min(size, votes - 1, rest) + 1):
            new[:, drawn:] += comb(size, drawn) * ways[:, : rest + 1 - drawn]
        if size >= votes and most_ties:
            new[1:, votes:] += comb(size, votes) * ways[:-1, : rest + 1 - votes]
        ways = new
    return ways[:, rest]
