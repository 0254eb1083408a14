"""Rounds of sampling until a batch is full of informative groups: dynamic sampling on any number of ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from rlvr.errors import UserError
from rlvr.rollouts.dynamic import Choice, DynamicSection, choose_groups, rank_of
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import Ranks, Sampled, Scores
from rlvr.trainer.decide import rows_to_score
from rlvr.trainer.groups import Group, assemble, exchange, gather_objects, keep_scores, split, use_kept_scores

Sample = Callable[[int], list[Group]]
"""Samples so many prompts over all ranks; returns this rank's groups, not numbered yet, in order of the prompts."""


@dataclass
class Rounds:
    """Fills rollout batches; one per rank, in step with the others.

    Attributes:
        settings: when to stop, and what becomes of the rest.
        prompts: P, groups in a batch.
        ranks: the processes.
        carried: this rank's surplus groups of earlier batches.
        sampled: groups sampled so far, over all ranks: the number of the next one.
        metrics: about the last batch, equal on every rank.
    """

    settings: DynamicSection
    prompts: int
    ranks: Ranks
    carried: list[Group] = field(default_factory=list)
    sampled: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.round_prompts % self.ranks.count:
            raise UserError(
                f"rollouts.dynamic.prompts is {self.round_prompts} on {self.ranks.count} processes; expected a "
                f"multiple of {self.ranks.count}"
            )

    @property
    def round_prompts(self) -> int:
        """Prompts asked in a round, over all ranks."""
        return self.settings.prompts or self.prompts

    @property
    def mixes_policies(self) -> bool:
        """Whether a batch may hold groups that an earlier policy sampled."""
        return self.settings.surplus == "carry"

    def fill(self, sample: Sample) -> tuple[list[Group], list[Group]]:
        """Sample rounds until the batch is full.

        Every rank makes the same rounds, since all look at the groups of all. A round is always whole.

        Args:
            sample: makes a round.

        Returns:
            This rank's groups of the batch, in order; and its surplus, which was sampled by the same policy.

        Raises:
            UserError: if `max_rounds` rounds do not fill it and nothing else was asked for.
        """
        mine, fresh, rounds = list(self.carried), list[Group](), 0
        choice = self._choice(mine)
        while choice.missing and rounds < self.settings.max_rounds:
            fresh_now = self._numbered(sample(self.round_prompts))
            fresh, mine, rounds = fresh + fresh_now, mine + fresh_now, rounds + 1
            choice = self._choice(mine)
        if choice.missing:
            if self.settings.short == "error":
                raise self._too_few(choice, fresh, rounds)
            choice = self._choice(mine, fill=True)
        batch = exchange(mine, rank_of(choice.batch, self.ranks.count), self.ranks)
        surplus = [group for group in mine if group.number in set(choice.surplus)]
        self.carried = surplus if self.settings.surplus == "carry" else []
        self.metrics = self._measure(batch, fresh, rounds, choice)
        return batch, [group for group in self.carried if not group.scores]

    def _numbered(self, groups: Sequence[Group]) -> list[Group]:
        """Number a round's groups as one process would have: each rank holds its contiguous share of the prompts."""
        first = self.sampled + self.ranks.index * (self.round_prompts // self.ranks.count)
        for index, group in enumerate(groups):
            group.number = first + index
        self.sampled += self.round_prompts
        return list(groups)

    def _choice(self, mine: Sequence[Group], fill: bool = False) -> Choice:
        known = {group.number: group.informative for group in mine}
        everyone = {number: good for one in gather_objects(known, self.ranks) for number, good in one.items()}
        return choose_groups(everyone, self.prompts, fill)

    def _shares(self, fresh: Sequence[Group]) -> tuple[float, float]:
        """Solved and unsolvable groups among those just sampled, over all ranks."""
        even = [float(group.rewards[:, 0].nan_to_num(0.0).max()) for group in fresh if not group.informative]
        counts = [len(fresh), sum(value > 0 for value in even), sum(value <= 0 for value in even)]
        total, solved, unsolvable = (sum(column) for column in zip(*gather_objects(counts, self.ranks), strict=True))
        return solved / max(total, 1), unsolvable / max(total, 1)

    def _measure(self, batch: Sequence[Group], fresh: Sequence[Group], rounds: int, choice: Choice) -> dict[str, float]:
        spent = sum(group.tokens for group in fresh)
        kept = sum(group.tokens for group in batch if group.informative)
        spent, kept = (sum(column) for column in zip(*gather_objects([spent, kept], self.ranks), strict=True))
        solved, unsolvable = self._shares(fresh)
        return {
            "dynamic/rounds": float(rounds),
            "dynamic/solved": solved,
            "dynamic/unsolvable": unsolvable,
            "dynamic/missing": float(choice.missing),
            "dynamic/surplus": float(len(choice.surplus)),
            "dynamic/tokens_per_kept": spent / kept if kept else 0.0,
        }

    def _too_few(self, choice: Choice, fresh: Sequence[Group], rounds: int) -> UserError:
        solved, unsolvable = self._shares(fresh)
        return UserError(
            f"after {rounds} rounds of {self.round_prompts} prompts, {self.prompts - choice.missing} of {self.prompts} "
            f"groups have verdicts that differ ({solved:.0%} of the groups are solved, {unsolvable:.0%} never); raise "
            "rollouts.dynamic.max_rounds or rollouts.num_generations, choose problems the policy solves sometimes, or "
            "set rollouts.dynamic.short=fill"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"sampled": self.sampled, "carried": [vars(group) for group in self.carried]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved one stopped."""
        self.sampled = state["sampled"]
        self.carried = [Group(**values) for values in state["carried"]]


def rounds_of(settings: DynamicSection | None, prompts: int, ranks: Ranks, algorithm: Algorithm) -> Rounds | None:
    """The rounds of a run; None without dynamic sampling.

    Raises:
        UserError: if the algorithm learns from groups that are not informative, or the sizes do not divide.
    """
    if settings is None or settings.max_rounds == 0:
        return None
    if not algorithm.uses_rewards:
        raise UserError(
            f"rollouts.dynamic.max_rounds is {settings.max_rounds}, but this algorithm reads no verdicts; leave it at 0"
        )
    return Rounds(settings, prompts, ranks)


def _verdict_holder(trainer: Any) -> Any:
    """The reward that grades, of those that the trainer calls; it keeps the verdicts of its last call."""
    return getattr(trainer.reward_funcs[0], "reward", None)


def _sample_groups(trainer: Any, count: int) -> list[Group]:
    sampled, rows = trainer.sample(count)
    start = trainer.ranks.index * len(rows)
    verdicts = getattr(_verdict_holder(trainer), "verdicts", None) or [None] * len(rows)
    rewards = trainer.rewards_per_func[start : start + len(rows)]
    return split(sampled, rewards, rows, trainer.completions, verdicts, 0)


def fill_batch(trainer: Any, rounds: Rounds) -> tuple[Sampled, Scores, list[dict[str, Any]]]:
    """A full rollout batch of this rank: rows, scores, and the prompt of each row.

    The trainer's last rewards, completions and verdicts become those of the batch, as if it had sampled nothing else.
    """
    size, device = trainer.sizes.num_generations, trainer.accelerator.device
    functions, pad = len(trainer.reward_funcs), trainer._tokenizer.pad_token_id
    batch, surplus = rounds.fill(lambda count: _sample_groups(trainer, count))
    sampled, rewards = assemble(batch, size, pad, functions, device)
    everyone = trainer.ranks.gather(sampled.rollouts.rewards).flatten()
    special = tuple(trainer._tokenizer.all_special_ids)
    sampled = replace(sampled, rollouts=replace(sampled.rollouts, all_rewards=everyone, special_ids=special))
    known = torch.tensor([bool(group.scores) for group in batch for _ in range(size)], device=device)
    needed = rows_to_score(sampled, trainer.algorithm)
    scores = use_kept_scores(batch, trainer.score(sampled, needed & ~known))
    if sum(gather_objects(len(surplus), trainer.ranks)):
        left, _ = assemble(surplus, size, pad, functions, device)
        keep_scores(surplus, trainer.score(left, torch.ones(len(left.truncated), dtype=torch.bool, device=device)))
    trainer.rewards_per_func = trainer.ranks.gather(rewards).flatten(0, 1)
    trainer.completions = [text for group in batch for text in group.completions]
    if getattr(_verdict_holder(trainer), "verdicts", None):
        _verdict_holder(trainer).verdicts = [verdict for group in batch for verdict in group.verdicts]
    for name, value in rounds.metrics.items():
        trainer.note(name, value)
    return sampled, scores, [group.prompt for group in batch for _ in range(size)]
