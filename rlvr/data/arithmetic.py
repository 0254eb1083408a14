"""The built-in task: evaluate `7+4*2-3=`. It needs no download, and its only difficulty is which pair goes first."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from rlvr.data.base import Data, Problem
from rlvr.data.expressions import OPERATORS, Expression, ends, render, value
from rlvr.data.pass_rates import Filter
from rlvr.errors import UserError
from rlvr.registry import variant

PATIENCE = 20_000
"""Draws in a row without a new problem after which the supply counts as exhausted."""


@variant("data", "arithmetic")
@dataclass
class Arithmetic(Data):
    """Chosen with `data=arithmetic`: problems from a seed, no problem twice, none both in training and held out.

    No order of reduction leaves 0..`largest_value`, so a solver that breaks precedence still meets only known numbers.
    The held-out problems are drawn first: they stay the same when `train_size` changes.

    Attributes:
        train_size: problems to train on.
        heldout_size: problems held out.
        min_operands: fewest numbers in a problem.
        max_operands: most numbers in a problem.
        largest_operand: numbers in a problem are 1 to this.
        largest_value: the largest number that any order of reduction may meet.
        order_matters: leave out problems that come out right in every order, such as 1+2+3.
        seed: of the generator; nothing else is random.
        filter: which training problems are kept for their measured pass rate.
    """

    train_size: int = 8192
    heldout_size: int = 512
    min_operands: int = 3
    max_operands: int = 4
    largest_operand: int = 9
    largest_value: int = 60
    order_matters: bool = True
    seed: int = 0
    filter: Filter = field(default_factory=Filter, repr=False)

    def __post_init__(self) -> None:
        if self.train_size < 1 or self.heldout_size < 0:
            raise UserError(
                f"data.train_size is {self.train_size} and data.heldout_size {self.heldout_size}; "
                "expected at least 1 and at least 0"
            )
        fewest = 3 if self.order_matters else 2
        if not fewest <= self.min_operands <= self.max_operands:
            raise UserError(
                f"data.min_operands is {self.min_operands} and data.max_operands {self.max_operands}; expected "
                f"{fewest} <= min_operands <= max_operands with data.order_matters={str(self.order_matters).lower()}"
            )
        if not 1 <= self.largest_operand <= self.largest_value:
            raise UserError(
                f"data.largest_operand is {self.largest_operand} and data.largest_value {self.largest_value}; "
                "expected 1 <= largest_operand <= largest_value"
            )
        if self.train_size + self.heldout_size > self._count_at_most:
            raise self._too_many(f"at most {self._count_at_most} exist")

    def train(self) -> list[Problem]:
        """`train_size` problems, e.g. prompt `7+4*2-3=` and gold `12`; fewer with `filter`.

        Raises:
            UserError: if so few problems fit the settings that the sizes cannot be met, or the filter leaves none.
        """
        return self._training[0]

    def heldout(self) -> list[Problem]:
        """`heldout_size` problems, none of them in `train()`; raises as `train()` does."""
        return self._problems[: self.heldout_size]

    def notes(self) -> list[str]:
        """What the filter left out."""
        return self._training[1]

    @property
    def _count_at_most(self) -> int:
        """Expressions of the allowed lengths, before any is left out."""
        lengths = range(self.min_operands, self.max_operands + 1)
        return sum(self.largest_operand**length * len(OPERATORS) ** (length - 1) for length in lengths)

    def _too_many(self, supply: str) -> UserError:
        return UserError(
            f"data.train_size + data.heldout_size is {self.train_size} + {self.heldout_size}, but {supply} with "
            f"these settings; lower the sizes, or raise data.max_operands, data.largest_operand or data.largest_value"
        )

    def _draws(self) -> Iterator[Expression]:
        """Expressions from the seed, without end.

        The numbers are those of `random.Random.randint` and `choice`, in a third of their time: both reject what is too
        large among as many random bits as their range has.
        """
        bits = random.Random(self.seed).getrandbits
        lengths = self.max_operands - self.min_operands + 1
        symbols, choices, largest = tuple(OPERATORS), len(OPERATORS), self.largest_operand
        length_bits, operand_bits, symbol_bits = lengths.bit_length(), largest.bit_length(), choices.bit_length()
        while True:
            while (count := bits(length_bits)) >= lengths:
                pass
            count += self.min_operands
            numbers = []
            for _ in range(count):
                while (number := bits(operand_bits)) >= largest:
                    pass
                numbers.append(number + 1)
            operators = []
            for _ in range(count - 1):
                while (index := bits(symbol_bits)) >= choices:
                    pass
                operators.append(symbols[index])
            yield tuple(numbers), tuple(operators)

    @cached_property
    def _training(self) -> tuple[list[Problem], list[str]]:
        return self.filter.keep(self._problems[self.heldout_size :])

    @cached_property
    def _problems(self) -> list[Problem]:
        """Held-out problems, then training problems; a dict keyed by prompt is what keeps them apart."""
        found: dict[str, Problem] = {}
        seen: set[Expression] = set()
        idle = 0
        for expression in self._draws():
            if len(found) == self.heldout_size + self.train_size:
                break
            if idle == PATIENCE:
                raise self._too_many(f"only {len(found)} were found in {PATIENCE} more draws without a new one")
            idle += 1
            if expression in seen:
                continue
            seen.add(expression)
            reached = ends(*expression, self.largest_value)
            if reached is None or (self.order_matters and len(reached) == 1):
                continue
            prompt = render(expression) + "="
            found[prompt] = Problem(prompt, str(value(expression)))
            idle = 0
        return list(found.values())
