"""The order in which prompts are asked: seeded, epoch by epoch, with a cursor that can be saved."""

import json
import random
from collections.abc import Sequence
from typing import Any

from rlvr.errors import UserError

Row = dict[str, Any]


def prompt_text(prompt: Any) -> str:
    """The text that identifies a prompt: itself, or the JSON of its chat messages."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)


class PromptStream:
    """An endless sequence of prompts: each epoch is a permutation drawn from (seed, epoch).

    Every rank holds the same stream and takes the same prompts, so a rollout batch does not depend on the number of
    ranks. Exact duplicates are dropped, the first stays.

    Args:
        rows: prompts with their columns, each with the key `prompt`.
        seed: the run's seed.

    Raises:
        UserError: if there is no prompt.
    """

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        unique: dict[str, Row] = {}
        for row in rows:
            unique.setdefault(prompt_text(row["prompt"]), row)
        self.rows = list(unique.values())
        self.duplicates = len(rows) - len(self.rows)
        self.seed = seed
        self.taken = 0
        self._epoch_drawn = -1
        self._order: list[int] = []
        if not self.rows:
            raise UserError("the training data holds no prompt; expected at least one row with a `prompt`")

    @property
    def epoch(self) -> float:
        """Passes over the prompts made so far, with the fraction of the current one."""
        return self.taken / len(self.rows)

    def _draw(self, epoch: int) -> list[int]:
        if epoch != self._epoch_drawn:
            self._order = list(range(len(self.rows)))
            random.Random(f"{self.seed}/{epoch}").shuffle(self._order)
            self._epoch_drawn = epoch
        return self._order

    def take(self, count: int) -> list[Row]:
        """The next prompts, running into the next epoch where this one ends."""
        taken = []
        for position in range(self.taken, self.taken + count):
            epoch, index = divmod(position, len(self.rows))
            taken.append(self.rows[self._draw(epoch)[index]])
        self.taken += count
        return taken

    def state_dict(self) -> dict[str, int]:
        """What `load_state_dict` needs to go on exactly here."""
        return {"taken": self.taken, "seed": self.seed, "prompts": len(self.rows)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a saved stream stopped.

        Raises:
            UserError: if that stream had another seed or another number of prompts.
        """
        mine = self.state_dict()
        for name in ("seed", "prompts"):
            if state[name] != mine[name]:
                raise UserError(
                    f"the checkpoint's prompt stream has {name}={state[name]}, this run {name}={mine[name]}; resume "
                    "with the data and seed the run was started with"
                )
        self.taken = state["taken"]
