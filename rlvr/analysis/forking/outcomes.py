"""Outcome distributions along a path, and how they move: plain formulas over numpy arrays (arXiv 2412.07961).

Letters for shapes: T positions, W branches of a position (the base token first), K outcome categories.
"""

from collections.abc import Mapping, Sequence

import numpy as np

OTHER = "(other)"
RARE = 0.1
MOST = 6


def fold_rare(weights: Mapping[str, float], rare: float = RARE, most: int = MOST) -> list[str]:
    """The outcomes that keep a category of their own; all others are put together.

    Args:
        weights: for each outcome, the largest share that it has in the distribution of any position.
        rare: an outcome that never has more than this share is folded.
        most: categories that stay at most, those of the largest weights; ties in the order given.

    Returns:
        Names, the largest weight first; `OTHER` at the end if something was folded.
    """
    ranked = sorted(weights, key=lambda name: -weights[name])
    kept = [name for name in ranked if weights[name] > rare][:most]
    return [*kept, OTHER] if len(kept) < len(weights) else kept


def histogram(outcomes: Sequence[str], categories: Sequence[str]) -> np.ndarray:
    """(K,) shares of the categories among outcomes; what is none of them counts as `OTHER`.

    Raises:
        ValueError: without an outcome, or for one that is no category where there is no `OTHER`.
    """
    if not outcomes:
        raise ValueError("no outcomes; expected one at least")
    place = {name: index for index, name in enumerate(categories)}
    shares = np.zeros(len(categories))
    for outcome in outcomes:
        index = place.get(outcome, place.get(OTHER))
        if index is None:
            raise ValueError(f"{outcome!r} is none of the categories {list(categories)}")
        shares[index] += 1
    return shares / len(outcomes)


def branch_weights(probs: Sequence[float]) -> np.ndarray:
    """(W,) the probabilities of the branches that were kept, scaled to sum to 1; all on the first if they are 0."""
    weights = np.asarray(probs, dtype=np.float64)
    total = weights.sum()
    return weights / total if total > 0 else np.eye(len(weights))[0]


def mixture(weights: np.ndarray, histograms: np.ndarray) -> np.ndarray:
    """o_t = sum over w of weight(w) * o_{t,w}: (K,) from (W,) weights that sum to 1 and (W, K) histograms."""
    return weights @ histograms


def drift(path: np.ndarray, start: np.ndarray) -> np.ndarray:
    """y_t = || o_t - o_0 ||_2: (T,) from the (T, K) path and the (K,) outcomes before the first token."""
    return np.linalg.norm(path - start, axis=1)


def total_variation(path: np.ndarray) -> np.ndarray:
    """TV(o_t, o_{t-1}) = half the sum of absolute differences: (T,), the first is 0."""
    steps = np.abs(np.diff(path, axis=0)).sum(axis=1) / 2
    return np.concatenate([np.zeros(min(1, len(path))), steps])


def branch_distances(histograms: np.ndarray) -> np.ndarray:
    """(W,) L2 distances between the outcomes after each branch and those after the base token, which is the first."""
    return np.linalg.norm(histograms - histograms[0], axis=1)


def hazard(weights: np.ndarray, histograms: np.ndarray, epsilon: float) -> float:
    """The chance of a token after which the outcomes are elsewhere.

    hazard_t = sum over w other than the base token of weight(w) * [ || o_{t,base} - o_{t,w} ||_2 >= epsilon ].

    Args:
        weights: (W,), the base token first.
        histograms: (W, K).
        epsilon: how far counts as elsewhere; 0.6 in the paper.
    """
    elsewhere = branch_distances(histograms) >= epsilon
    return float(weights[1:] @ elsewhere[1:])


def expected_distance(weights: np.ndarray, histograms: np.ndarray) -> float:
    """Sum over w of weight(w) * || o_{t,base} - o_{t,w} ||_2: the hazard without a threshold."""
    return float(weights @ branch_distances(histograms))


def survival(hazards: np.ndarray) -> np.ndarray:
    """S_t = product over s <= t of (1 - hazard_s): (T,), the chance that no token so far led elsewhere."""
    return np.cumprod(1 - np.asarray(hazards, dtype=np.float64))


def effective_samples(weights: np.ndarray, samples: np.ndarray) -> float:
    """How many independent outcomes o_t is worth: 1 / sum over w of weight(w)^2 / samples(w).

    Where all branches have the same outcomes, o_t has the variance of the share among so many draws (Kish 1965).

    Args:
        weights: (W,) that sum to 1.
        samples: (W,) outcomes drawn after each branch.
    """
    return float(1 / (weights**2 / samples).sum())
