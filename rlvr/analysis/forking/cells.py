"""What is to be drawn: a cell is one branch of one position, and what all of them cost."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlvr.analysis.forking.path import BasePath
from rlvr.analysis.forking.settings import ForkSettings
from rlvr.errors import UserError

START = -1
"""Position and token of the cell whose answers begin at the bare prompt."""


class CellKey(NamedTuple):
    """Which branch of which position."""

    position: int
    token: int


@dataclass(frozen=True)
class Cell:
    """A branch whose outcomes are wanted.

    Attributes:
        key: which.
        prefix: base tokens before it and the branch token.
        samples: outcomes wanted.
        limit: tokens that may follow the prefix; 0 where the branch token ends the answer, or no room is left: then
            there is one outcome, and nothing is drawn.
    """

    key: CellKey
    prefix: list[int]
    samples: int
    limit: int

    @property
    def continuations(self) -> int:
        """Answers to draw."""
        return self.samples if self.limit > 0 else 0


def looked_at(base: BasePath, stride: int) -> list[int]:
    """Every `stride`-th position of a base path, from the first."""
    return list(range(0, len(base.token_ids), stride))


def cells_of(base: BasePath, settings: ForkSettings, limit: int, ends: Collection[int]) -> list[Cell]:
    """All cells, the bare prompt first, then by position.

    Args:
        base: the base path.
        settings: stride and numbers of samples.
        limit: tokens of a whole answer.
        ends: tokens that end an answer.
    """
    cells = [Cell(CellKey(START, START), [], settings.start_samples, limit)]
    for position in looked_at(base, settings.stride):
        before = base.token_ids[:position]
        for token, _ in base.branches[position]:
            room = 0 if token in ends else max(0, limit - position - 1)
            samples = settings.samples if room else 1
            cells.append(Cell(CellKey(position, token), [*before, token], samples, room))
    return cells


@dataclass(frozen=True)
class Cost:
    """What drawing costs.

    Attributes:
        continuations: answers to draw: sum over cells of their samples.
        tokens_at_most: if every one runs to the limit.
        tokens_like_base: if every one ends where the base path does.
    """

    continuations: int
    tokens_at_most: int
    tokens_like_base: int


def cost_of(cells: Sequence[Cell], length: int) -> Cost:
    """The cost of cells.

    Args:
        cells: to draw.
        length: tokens of the base path.
    """
    return Cost(
        sum(cell.continuations for cell in cells),
        sum(cell.continuations * cell.limit for cell in cells),
        sum(cell.continuations * min(cell.limit, max(1, length - len(cell.prefix))) for cell in cells),
    )


def fitting_stride(cells: Sequence[Cell], length: int, budget: int) -> int | None:
    """The smallest stride whose cells cost at most so many continuations; None if there is none.

    Args:
        cells: of stride 1, those that are drawn already left out.
        length: tokens of the base path.
        budget: continuations.
    """
    by_position: dict[int, int] = {}
    for cell in cells:
        by_position[cell.key.position] = by_position.get(cell.key.position, 0) + cell.continuations
    start = by_position.pop(START, 0)
    for stride in range(1, length + 1):
        if start + sum(count for position, count in by_position.items() if position % stride == 0) <= budget:
            return stride
    return None


def check_budget(cost: Cost, cells: Sequence[Cell], length: int, budget: int) -> None:
    """Refuse what costs more than was allowed.

    Args:
        cost: of what is to be drawn.
        cells: of stride 1, those that are drawn already left out.
        length: tokens of the base path.
        budget: continuations.

    Raises:
        UserError: which says what would fit.
    """
    if cost.continuations <= budget:
        return
    stride = fitting_stride(cells, length, budget)
    fits = "fewer --samples and --start-samples" if stride is None else f"--stride {stride}, which fits"
    raise UserError(
        f"{cost.continuations:,} continuations are to be drawn, but --budget is {budget:,}; take {fits}, or "
        f"--budget {cost.continuations}, or --yes"
    )
