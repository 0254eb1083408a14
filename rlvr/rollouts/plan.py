"""Which rows of an optimizer step go into which slice. A pure function of lengths: the sum of losses cannot change.

Planning permutes, drops and trims only inside one (rank, optimizer step), and always into the same number of slices:
DeepSpeed's ranks must make the same number of passes.
"""

from collections.abc import Sequence
from itertools import pairwise


def plan_slices(rows: Sequence[int], lengths: Sequence[int], slices: int, most: int) -> list[list[int]]:
    """Sort the rows that carry gradient by length and deal them evenly into a fixed number of slices.

    Args:
        rows: the rows with a gradient, as indices into `lengths`.
        lengths: tokens that each row of the rank has to forward.
        slices: number of slices; a slice without rows stays empty.
        most: rows that fit into a slice.

    Returns:
        One list of rows per slice, the longest rows first, so that the largest allocation comes first.

    Raises:
        ValueError: if the rows do not fit.
    """
    if len(rows) > slices * most:
        raise ValueError(f"{len(rows)} rows do not fit into {slices} slices of at most {most}")
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    bounds = [len(ordered) * index // slices for index in range(slices + 1)]
    return [ordered[start:stop] for start, stop in pairwise(bounds)]


def unplanned_slices(rows: Sequence[int], slices: int, most: int) -> list[list[int]]:
    """Every row in its own order, `most` to a slice: for scopes whose choice of tokens depends on the slice.

    Raises:
        ValueError: unless the rows fill the slices exactly.
    """
    if len(rows) != slices * most:
        raise ValueError(f"{len(rows)} rows do not fill {slices} slices of {most}")
    return [list(rows[start : start + most]) for start in range(0, len(rows), most)]


def padded_tokens(plan: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Tokens a plan forwards, padding included: rows times the longest row, per slice."""
    return sum(len(part) * max(lengths[row] for row in part) for part in plan if part)
