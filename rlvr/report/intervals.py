"""How far a measured share may be from the true one."""

from math import sqrt
from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a binomial share (Wilson 1927), without continuity correction.

    Args:
        successes: between 0 and `trials`.
        trials: at least 1.
        confidence: of the two-sided interval, between 0 and 1.

    Returns:
        The lower and the upper bound, both within [0, 1].

    Raises:
        ValueError: if an argument is out of its range.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"got {successes} successes in {trials} trials; expected 0 <= successes <= trials, trials >= 1"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence {confidence}; expected a number between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high
