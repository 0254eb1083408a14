"""Semantic entropy, discrete: how much the answers to one problem differ (Kuhn et al. 2023; Farquhar et al. 2024)."""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import log


def semantic_entropy(classes: Sequence[Hashable | None]) -> float:
    """-sum_c (n_c / n) ln(n_c / n) over the classes of n answers, n_c of which are in class c.

    The papers find classes by a model of entailment; here two answers are the same if the grader says so. A sample
    without an answer means the same as no other, so it is a class of its own.

    Args:
        classes: the class of each answer, None for no answer; at least one.

    Returns:
        Nats, between 0 (all the same) and ln n (all different).

    Raises:
        ValueError: if there is no answer.
    """
    if not classes:
        raise ValueError("there is no answer; expected one at least")
    sizes = [*Counter(name for name in classes if name is not None).values(), *(1 for name in classes if name is None)]
    return -sum(size / len(classes) * log(size / len(classes)) for size in sizes) + 0.0
