"""Two-by-two tables of one token in one group of rollouts, in exact integers: Fisher's test and information gain.

Of n_T correct and n_F wrong rollouts, `a` and `b` contain the token; c = n_T - a and d = n_F - b do not. For fixed n_T
and n_F there are (n_T + 1) * (n_F + 1) tables, so every statistic is computed once per table, never per token.
"""

import math
from functools import cache

TESTS = ("two_sided", "point")


@cache
def fisher_p_values(correct: int, wrong: int, test: str = "two_sided") -> tuple[tuple[float, ...], ...]:
    """p-values of Fisher's exact test for every table with these numbers of rollouts.

    With R = a + b fixed, a table has w_a = C(n_T, a) * C(n_F, R - a) of C(n_T + n_F, R) arrangements. The weights are
    integers, so ties are ties: a p-value is 1.0 exactly where all arrangements count, and correctly rounded elsewhere.

    Args:
        correct: n_T, at least 0.
        wrong: n_F, at least 0.
        test: `two_sided`: the share of all arrangements that are no likelier than the observed table, as
            `scipy.stats.fisher_exact` has it; `point`: that of the observed table alone.

    Returns:
        `p[a][b]` for a = 0 .. n_T and b = 0 .. n_F.

    Raises:
        ValueError: for an unknown test or a negative number.
    """
    if test not in TESTS:
        raise ValueError(f"fisher is {test!r}; expected one of {', '.join(TESTS)}")
    if min(correct, wrong) < 0:
        raise ValueError(f"{correct} correct and {wrong} wrong rollouts; expected numbers of rollouts, at least 0")
    p_values = [[0.0] * (wrong + 1) for _ in range(correct + 1)]
    for seen in range(correct + wrong + 1):
        cells = range(max(0, seen - wrong), min(correct, seen) + 1)
        weights = {a: math.comb(correct, a) * math.comb(wrong, seen - a) for a in cells}
        counted = dict(weights)
        if test == "two_sided":
            total = 0
            for weight in sorted(weights.values()):  # of equal weights, the last one's sum holds all of them
                total += weight
                counted.update({a: total for a in cells if weights[a] == weight})
        everything = math.comb(correct + wrong, seen)
        for a in cells:
            p_values[a][seen - a] = counted[a] / everything
    return tuple(map(tuple, p_values))


def _entropy_bits(first: int, second: int) -> float:
    """Entropy in bits of a split into two counts; the same for either order of them, to the last bit."""
    total = first + second
    return -sum(count / total * math.log2(count / total) for count in sorted((first, second)) if count)


@cache
def information_gains(correct: int, wrong: int) -> tuple[tuple[float, ...], ...]:
    """Bits that a token's presence tells about correctness: h(n_T, n_F) - (a+b)/n h(a, b) - (c+d)/n h(c, d).

    Exactly 0 where presence and correctness are independent, i.e. a * n_F == b * n_T; never negative.

    Args:
        correct: n_T, at least 0.
        wrong: n_F, at least 0.

    Returns:
        `gain[a][b]` for a = 0 .. n_T and b = 0 .. n_F.
    """
    total, before = correct + wrong, _entropy_bits(correct, wrong)

    def gain(a: int, b: int) -> float:
        if a * wrong == b * correct:
            return 0.0
        present, absent = a + b, total - a - b
        after = (present * _entropy_bits(a, b) + absent * _entropy_bits(correct - a, wrong - b)) / total
        return max(0.0, before - after)

    return tuple(tuple(gain(a, b) for b in range(wrong + 1)) for a in range(correct + 1))


@cache
def arcsine_differences(correct: int, wrong: int) -> tuple[tuple[float, ...], ...]:
    """asin sqrt(a / n_T) - asin sqrt(b / n_F): half of Cohen's h, positive where correct rollouts use the token more.

    Args:
        correct: n_T, at least 0; a share of no rollouts is 0.
        wrong: n_F, at least 0.

    Returns:
        `h[a][b]` for a = 0 .. n_T and b = 0 .. n_F, between -pi/2 and pi/2.
    """
    first = [math.asin(math.sqrt(a / max(1, correct))) for a in range(correct + 1)]
    second = [math.asin(math.sqrt(b / max(1, wrong))) for b in range(wrong + 1)]
    return tuple(tuple(x - y for y in second) for x in first)
