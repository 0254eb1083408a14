"""Quantiles of Student's t distribution, with numpy alone."""

from math import atan, exp, lgamma, pi, sqrt
from statistics import NormalDist

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)


def t_quantile(confidence: float, df: float) -> float:
    """The q with P(-q < T < q) = confidence for Student's t.

    Newton's method from the normal quantile. The central probability is concave in q and q is above the normal one,
    so the steps never overshoot.

    Args:
        confidence: central probability, in (0, 1).
        df: degrees of freedom, above 0, not necessarily whole.

    Returns:
        q; relative error below 2e-6 from one degree of freedom on.
    """
    q = NormalDist().inv_cdf((1 + confidence) / 2)
    for _ in range(200):
        step = (confidence - _central(q, df)) / (2 * _density(q, df))
        q += step
        if abs(step) <= 1e-12 * q:
            break
    return q


def _scale(df: float) -> float:
    return exp(lgamma((df + 1) / 2) - lgamma(df / 2)) / sqrt(pi)


def _density(q: float, df: float) -> float:
    return _scale(df) / sqrt(df) * (1 + q * q / df) ** (-(df + 1) / 2)


def _central(q: float, df: float) -> float:
    """P(-q < T < q): with t = sqrt(df) tan(a), the integral of cos(a)^(df - 1), which is smooth."""
    end = atan(q / sqrt(df))
    angles = end / 2 * (NODES + 1)
    return 2 * _scale(df) * end / 2 * float(WEIGHTS @ np.cos(angles) ** (df - 1))
