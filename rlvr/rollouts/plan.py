"""Which rows of an optimizer step go into which slice. A pure function of lengths: the sum of losses cannot change.

Planning permutes, drops and trims only inside one (rank, optimizer step), and always into the same number of slices:
DeepSpeed's ranks must make the same number of passes.
"""

from collections.abc import Sequence

import numpy as np

from rlvr.config.algebra import divisors

SLICE_TOKENS = 128
"""What a pass costs beside its tokens, in tokens: launching its operations, adding up the gradients of all weights."""

UNITS_AT_MOST = 512
"""Rows, or blocks of rows, between which the exact partition looks for cuts: its time grows with their square."""


def plan_slices(rows: Sequence[int], lengths: Sequence[int], slices: int, most: int) -> list[list[int]]:
    """Deal the rows that carry gradient into a fixed number of slices at the least cost.

    A slice of n rows costs n times its longest, and `SLICE_TOKENS` unless it is empty. With the longest rows first,
    some best partition consists of consecutive rows: of two slices that overlap in length, the one with the longest row
    may take its other rows from the longest of both. The cuts are found by dynamic programming over (slice, row).
    Beyond `UNITS_AT_MOST` rows, blocks of equally many consecutive rows are moved as one, which costs at most a block
    times the spread of lengths.

    A slice holds as many tokens, padding included, as `most` rows of the longest: so it has more rows where rows are
    short, and no slice needs more memory than that.

    Args:
        rows: the rows with a gradient, as indices into `lengths`.
        lengths: tokens that each row of the rank has to forward.
        slices: number of slices; a slice without rows stays empty.
        most: rows that fit into a slice if all were as long as the longest.

    Returns:
        One list of rows per slice, the longest rows first, so that the largest allocation comes first.

    Raises:
        ValueError: if the rows do not fit.
    """
    if len(rows) > slices * most:
        raise ValueError(f"{len(rows)} rows do not fit into {slices} slices of at most {most}")
    if not rows:
        return [[] for _ in range(slices)]
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    # A block that divides `most` keeps even slices of `most` rows among the choices, so something always fits.
    block = next((size for size in divisors(most) if len(ordered) <= size * UNITS_AT_MOST), most)
    starts = range(0, len(ordered), block)
    sizes = np.array([len(ordered[start : start + block]) for start in starts], dtype=np.int64)
    longest = np.array([lengths[ordered[start]] for start in starts], dtype=np.int64)
    bounds = [cut * block for cut in _best_cuts(sizes, longest, slices, most)]
    plan = [ordered[start:stop] for start, stop in zip([0, *bounds], [*bounds, len(ordered)], strict=True)]
    return sorted(plan, key=lambda part: not part)  # those without rows come last


def _best_cuts(sizes: np.ndarray, longest: np.ndarray, slices: int, most: int) -> list[int]:
    """Where to cut U units in falling order of length into `slices` runs: slices - 1 indices, ascending.

    Args:
        sizes: (U,) rows of a unit.
        longest: (U,) length of its longest row.
        slices: runs; some may be empty.
        most: a run has at most the tokens of so many rows of the longest.
    """
    units = len(sizes)
    before = np.concatenate([[0], sizes.cumsum()])
    # cost[i, j]: tokens of a run of the units i to j - 1; none for an empty run, impossible beyond the room.
    cost = (before[None, :] - before[:-1, None]) * longest[:, None].astype(np.float64)
    cost[(before[None, :] < before[:-1, None]) | (cost > most * longest[0])] = np.inf
    cost += SLICE_TOKENS
    cost = np.concatenate([cost, np.full((1, units + 1), np.inf)])
    cost[np.arange(units + 1), np.arange(units + 1)] = 0.0
    best, choices = cost[0], []
    for _ in range(slices - 1):
        totals = best[:, None] + cost
        choices.append(totals.argmin(axis=0))
        best = totals[choices[-1], np.arange(units + 1)]
    cuts = [units]
    for choice in reversed(choices):
        cuts.append(int(choice[cuts[-1]]))
    return cuts[:0:-1]


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
