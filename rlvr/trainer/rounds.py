"""Rounds of sampling until a batch is full of informative groups: dynamic sampling on any number of ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from rlvr.errors import UserError
from rlvr.rewards.adapter import graders
from rlvr.rollouts.dynamic import Choice, DynamicSection, choose_groups, rank_of
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import Ranks, Sampled, Scores
from rlvr.trainer.decide import rows_to_score
from rlvr.trainer.groups import Group, assemble, exchange, gather_objects, keep_scores, split, use_kept_scores

Sample = Callable[[int], list[Group]]
"""Samples so many prompts over all ranks; returns this rank's groups, not numbered yet, in order of the prompts."""


class Seen(NamedTuple):
    """What every rank knows of a group, whoever sampled it.

    Attributes:
        informative: whether its verdicts, before any shaping, differ.
        solved: whether the highest of them is above 0.
        tokens: sampled tokens.
    """

    informative: bool
    solved: bool
    tokens: int

    @staticmethod
    def of(group: Group) -> "Seen":
        """Of a group of this rank."""
        best = float(group.rewards[:, 0].nan_to_num(0.0).max())
        return Seen(group.informative, best > 0, group.tokens)


@dataclass
class Rounds:
    """Fills rollout batches; one per rank, in step with the others.

    Attributes:
        settings: when to stop, and what becomes of the rest.
        prompts: P, groups in a batch.
        ranks: the processes.
        carried: this rank's surplus groups of earlier batches.
        waiting: the surplus groups of all ranks, by number.
        sampled: groups sampled so far, over all ranks: the number of the next one.
        metrics: about the last batch, equal on every rank.
    """

    settings: DynamicSection
    prompts: int
    ranks: Ranks
    carried: list[Group] = field(default_factory=list)
    waiting: dict[int, Seen] = field(default_factory=dict)
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

    def fill(self, sample: Sample) -> tuple[list[Group], list[Group] | None]:
        """Sample rounds until the batch is full.

        Every rank makes the same rounds, since all know the groups of all: one message a round. A round is whole.

        Args:
            sample: makes a round.

        Returns:
            This rank's groups of the batch, in order; and its part of the new surplus that is carried on, to be scored
            by the policy that sampled it, or None where no rank has any.

        Raises:
            UserError: if `max_rounds` rounds do not fill it and nothing else was asked for.
        """
        mine, known, first, rounds = list(self.carried), dict(self.waiting), self.sampled, 0
        choice = self._choice(known)
        while choice.missing and rounds < self.settings.max_rounds:
            groups = self._numbered(sample(self.round_prompts))
            for one in gather_objects({group.number: Seen.of(group) for group in groups}, self.ranks):
                known |= one
            mine, rounds = mine + groups, rounds + 1
            choice = self._choice(known)
        fresh = [seen for number, seen in known.items() if number >= first]
        if choice.missing:
            if self.settings.short == "error":
                raise self._too_few(choice, fresh, rounds)
            choice = self._choice(known, fill=True)
        self.metrics = _measure(choice, known, fresh, rounds)
        left = set(choice.surplus) if self.mixes_policies else set()
        batch = exchange(mine, rank_of(choice.batch, self.ranks.count), self.ranks)
        self.carried = [group for group in mine if group.number in left]
        self.waiting = {number: known[number] for number in left}
        new = [group for group in self.carried if group.number >= first]
        return batch, new if any(number >= first for number in left) else None

    def _numbered(self, groups: Sequence[Group]) -> list[Group]:
        """Number a round's groups as one process would have: each rank holds its contiguous share of the prompts."""
        first = self.sampled + self.ranks.index * (self.round_prompts // self.ranks.count)
        for index, group in enumerate(groups):
            group.number = first + index
        self.sampled += self.round_prompts
        return list(groups)

    def _choice(self, known: dict[int, Seen], fill: bool = False) -> Choice:
        return choose_groups({number: seen.informative for number, seen in known.items()}, self.prompts, fill)

    def _too_few(self, choice: Choice, fresh: Sequence[Seen], rounds: int) -> UserError:
        solved, unsolvable = _shares(fresh)
        return UserError(
            f"after {rounds} rounds of {self.round_prompts} prompts, {self.prompts - choice.missing} of {self.prompts} "
            f"groups have verdicts that differ ({solved:.0%} of the groups are solved, {unsolvable:.0%} never); raise "
            "rollouts.dynamic.max_rounds or rollouts.num_generations, choose problems the policy solves sometimes, or "
            "set rollouts.dynamic.short=fill"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        waiting = {number: tuple(seen) for number, seen in self.waiting.items()}
        return {"sampled": self.sampled, "waiting": waiting, "carried": [vars(group) for group in self.carried]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved one stopped."""
        self.sampled = state["sampled"]
        self.waiting = {number: Seen(*seen) for number, seen in state["waiting"].items()}
        self.carried = [Group(**values) for values in state["carried"]]


def _shares(fresh: Sequence[Seen]) -> tuple[float, float]:
    """Solved and unsolvable groups among those just sampled."""
    even = [seen.solved for seen in fresh if not seen.informative]
    return sum(even) / max(len(fresh), 1), (len(even) - sum(even)) / max(len(fresh), 1)


def _measure(choice: Choice, known: dict[int, Seen], fresh: Sequence[Seen], rounds: int) -> dict[str, float]:
    solved, unsolvable = _shares(fresh)
    kept = sum(known[number].tokens for number in choice.batch if known[number].informative)
    return {
        "dynamic/rounds": float(rounds),
        "dynamic/solved": solved,
        "dynamic/unsolvable": unsolvable,
        "dynamic/missing": float(choice.missing),
        "dynamic/surplus": float(len(choice.surplus)),
        "dynamic/tokens_per_kept": sum(seen.tokens for seen in fresh) / kept if kept else 0.0,
    }


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


def _sample_groups(trainer: Any, count: int) -> list[Group]:
    sampled, rows = trainer.sample(count)
    start = trainer.ranks.index * len(rows)
    verdicts = [verdict for function in graders(trainer.reward_funcs) for verdict in function.reward.verdicts]
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
    if surplus is not None:
        left, _ = assemble(surplus, size, pad, functions, device)
        keep_scores(surplus, trainer.score(left, torch.ones(len(left.truncated), dtype=torch.bool, device=device)))
    trainer.rewards_per_func = trainer.ranks.gather(rewards).flatten(0, 1)
    trainer.completions = [text for group in batch for text in group.completions]
    for function in graders(trainer.reward_funcs):
        function.reward.verdicts = [verdict for group in batch for verdict in group.verdicts]
    for name, value in rounds.metrics.items():
        trainer.note(name, value)
    return sampled, scores, [group.prompt for group in batch for _ in range(size)]
