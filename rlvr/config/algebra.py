"""How many completions, slices and optimizer steps a rollout batch makes: the batch algebra, in whole numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rlvr.errors import UserError

WINDOWS = ("group", "row")


def divisors(number: int) -> list[int]:
    """Every whole divisor of a positive number, ascending."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def nearest(wanted: int, allowed: Iterable[int], count: int = 3) -> str:
    """The allowed values closest to the wanted one, as words for an error message."""
    closest = sorted(sorted(allowed, key=lambda value: abs(value - wanted))[:count])
    return " or ".join(str(value) for value in closest)


@dataclass(frozen=True)
class BatchSizes:
    """The sizes of a run. All but `micro_batch_rows` are global: the same numbers mean the same update on any ranks.

    Attributes:
        prompts: P, prompts in a rollout batch.
        num_generations: G, completions per prompt; 1 for algorithms that compare none.
        updates_per_rollout: W, the optimizer steps a rollout batch is split into.
        num_iterations: how often a rollout batch is gone through.
        micro_batch_rows: completions in one forward and backward pass on one rank; memory only.
        ranks: processes that share a rollout batch.
        window: what goes round the W steps: `group` (group g in step g mod W) or `row` (row r in step r mod W).

    Raises:
        UserError: if a size is not positive or a share is not whole, with the nearest values that are.
    """

    prompts: int
    num_generations: int
    updates_per_rollout: int = 1
    num_iterations: int = 1
    micro_batch_rows: int = 8
    ranks: int = 1
    window: str = "group"

    def __post_init__(self) -> None:
        self._check_range()
        self._check_groups()
        rows = self.completions // (self.updates_per_rollout * self.ranks)
        if rows % self.micro_batch_rows:
            raise UserError(
                f"optimizer.micro_batch_rows is {self.micro_batch_rows}, but a rank has {rows} rows in an optimizer "
                f"step ({self.prompts} prompts * {self.num_generations} completions / ({self.updates_per_rollout} "
                f"updates * {self.ranks} ranks)), which it does not divide; set it to "
                f"{nearest(self.micro_batch_rows, divisors(rows))}"
            )

    def _check_range(self) -> None:
        for name, value, least in (
            ("rollouts.prompts", self.prompts, 1),
            ("rollouts.num_generations", self.num_generations, 1),
            ("optimizer.updates_per_rollout", self.updates_per_rollout, 1),
            ("optimizer.num_iterations", self.num_iterations, 1),
            ("optimizer.micro_batch_rows", self.micro_batch_rows, 1),
            ("the number of processes", self.ranks, 1),
        ):
            if value < least:
                raise UserError(f"{name} is {value}; expected a whole number of at least {least}")
        if self.window not in WINDOWS:
            raise UserError(f"optimizer.window is {self.window!r}; expected one of {', '.join(WINDOWS)}")

    def _check_groups(self) -> None:
        if self.prompts % self.ranks:
            raise UserError(
                f"rollouts.prompts is {self.prompts} on {self.ranks} processes, so groups would straddle ranks; "
                f"expected a multiple of {self.ranks}: set it to {self._prompts_near()}"
            )
        if self.num_generations == 1 and self.prompts % 2:
            raise UserError(
                f"rollouts.prompts is {self.prompts} with rollouts.num_generations=1, and TRL counts rows in pairs; "
                f"expected an even number: set it to {self._prompts_near()}"
            )
        share = self.ranks * self.updates_per_rollout
        if self.window == "group" and self.prompts % share:
            raise UserError(
                f"rollouts.prompts is {self.prompts}, which does not divide into {self.updates_per_rollout} updates on "
                f"{self.ranks} processes; set it to {self._prompts_near()}, or optimizer.window=row"
            )
        if self.completions % share:
            raise UserError(
                f"{self.prompts} prompts * {self.num_generations} completions = {self.completions} rows do not divide "
                f"into optimizer.updates_per_rollout={self.updates_per_rollout} on {self.ranks} processes; set "
                f"rollouts.prompts to {self._prompts_near()}"
            )

    def _prompts_near(self) -> str:
        """The nearest numbers of prompts that divide, given every other size."""
        per_rank = self.updates_per_rollout
        if self.window == "row":
            per_rank //= math.gcd(per_rank, self.num_generations)
        unit = math.lcm(self.ranks * per_rank, 2 if self.num_generations == 1 else 1)
        below = self.prompts // unit * unit
        return nearest(self.prompts, [value for value in (below, below + unit) if value > 0], 2)

    @property
    def completions(self) -> int:
        """Completions in a rollout batch, over all ranks: P * G."""
        return self.prompts * self.num_generations

    @property
    def rows_per_rank(self) -> int:
        """B, completions of a rollout batch on one rank."""
        return self.completions // self.ranks

    @property
    def slices_per_step(self) -> int:
        """Forward and backward passes of a rank in one optimizer step (gradient accumulation)."""
        return self.rows_per_rank // (self.updates_per_rollout * self.micro_batch_rows)

    @property
    def slices_per_rollout(self) -> int:
        """Slices of a rollout batch on one rank, in one iteration."""
        return self.slices_per_step * self.updates_per_rollout

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps made from one rollout batch."""
        return self.updates_per_rollout * self.num_iterations

    @property
    def on_policy(self) -> bool:
        """Whether the policy that is updated is always the one that sampled: the importance ratio is then 1."""
        return self.steps_per_rollout == 1

    def step_of_row(self, row: int) -> int:
        """The optimizer step, 0 to W - 1, that a global row belongs to; independent of the number of ranks."""
        unit = row // self.num_generations if self.window == "group" else row
        return unit % self.updates_per_rollout
