"""Rollout batches on several ranks: rounds of sampling until one is full of informative groups, and an even deal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from rlvr.config.algebra import BatchSizes
from rlvr.errors import UserError
from rlvr.launch.agreement import everywhere
from rlvr.rewards.adapter import graders
from rlvr.rollouts.dealing import deal
from rlvr.rollouts.dynamic import Choice, DynamicSection, choose_groups
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import Ranks, Sampled, Scores
from rlvr.trainer.decide import rows_to_score
from rlvr.trainer.groups import Group, assemble, exchange, keep_scores, split, use_kept_scores

Sample = Callable[[int], list[Group]]
"""Samples so many prompts over all ranks; returns this rank's groups, not numbered yet, in order of the prompts."""


class Seen(NamedTuple):
    """What every rank knows of a group, whoever sampled it.

    Attributes:
        informative: whether its verdicts, before any shaping, differ.
        solved: whether the highest of them is above 0.
        tokens: sampled tokens.
        forwarded: tokens of a pass over it, prompts included.
    """

    informative: bool
    solved: bool
    tokens: int
    forwarded: int

    @staticmethod
    def of(group: Group) -> "Seen":
        """Of a group of this rank."""
        best = float(group.rewards[:, 0].nan_to_num(0.0).max())
        return Seen(group.informative, best > 0, group.tokens, group.forwarded)


@dataclass
class Rounds:
    """Fills rollout batches; one per rank, in step with the others.

    Attributes:
        settings: when to stop, and what becomes of the rest.
        sizes: P groups in a batch, and how they are dealt.
        ranks: the processes.
        carried: this rank's surplus groups of earlier batches.
        waiting: the surplus groups of all ranks, by number.
        sampled: groups sampled so far, over all ranks: the number of the next one.
        metrics: about the last batch, equal on every rank.
    """

    settings: DynamicSection
    sizes: BatchSizes
    ranks: Ranks
    carried: list[Group] = field(default_factory=list)
    waiting: dict[int, Seen] = field(default_factory=dict)
    sampled: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings.check_reach(self.sizes.prompts)
        if self.round_prompts % self.ranks.count:
            raise UserError(
                f"rollouts.dynamic.prompts is {self.round_prompts} on {self.ranks.count} processes; expected a "
                f"multiple of {self.ranks.count}"
            )

    @property
    def round_prompts(self) -> int:
        """Prompts asked in a round, over all ranks."""
        return self.settings.prompts or self.sizes.prompts

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
            for one in everywhere({group.number: Seen.of(group) for group in groups}):
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
        batch = _dealt(mine, choice.batch, [known[number].forwarded for number in choice.batch], self.sizes, self.ranks)
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
        return choose_groups({number: seen.informative for number, seen in known.items()}, self.sizes.prompts, fill)

    def _too_few(self, choice: Choice, fresh: Sequence[Seen], rounds: int) -> UserError:
        solved, unsolvable = _shares(fresh)
        wanted = self.sizes.prompts
        return UserError(
            f"after {rounds} rounds of {self.round_prompts} prompts, {wanted - choice.missing} of {wanted} "
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


def rounds_of(settings: DynamicSection | None, sizes: BatchSizes, ranks: Ranks, algorithm: Algorithm) -> Rounds | None:
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
    return Rounds(settings, sizes, ranks)


def _dealt(
    mine: list[Group], order: Sequence[int], costs: Sequence[float], sizes: BatchSizes, ranks: Ranks
) -> list[Group]:
    """This rank's groups of a batch that consists of the groups `order`, by number, wherever they are now."""
    batch = exchange(mine, dict(zip(order, deal(costs, sizes), strict=True)), ranks)
    places = {number: place for place, number in enumerate(order)}
    for group in batch:
        group.place = places[group.number]
    return batch


def _split(trainer: Any, sampled: Sampled, rows: list[dict[str, Any]], first: int = 0) -> list[Group]:
    """The groups of what this rank has just sampled, with their texts and verdicts."""
    start = trainer.ranks.index * len(rows)
    verdicts = [verdict for function in graders(trainer.reward_funcs) for verdict in function.reward.verdicts]
    rewards = trainer.rewards_per_func[start : start + len(rows)]
    return split(sampled, rewards, rows, trainer.completions, verdicts, first)


def _adopt(trainer: Any, batch: list[Group]) -> tuple[Sampled, list[dict[str, Any]]]:
    """Rows out of the groups of a batch, and the prompt of each.

    The trainer's last rewards, completions and verdicts become those of the batch, as if it had sampled nothing else.
    """
    size, device = trainer.sizes.num_generations, trainer.accelerator.device
    sampled, rewards = assemble(batch, size, trainer._tokenizer.pad_token_id, len(trainer.reward_funcs), device)
    everyone = trainer.ranks.gather(sampled.rollouts.rewards).flatten()
    special = tuple(trainer._tokenizer.all_special_ids)
    sampled = replace(sampled, rollouts=replace(sampled.rollouts, all_rewards=everyone, special_ids=special))
    trainer.rewards_per_func = trainer.ranks.gather(rewards).flatten(0, 1)
    trainer.completions = [text for group in batch for text in group.completions]
    for function in graders(trainer.reward_funcs):
        function.reward.verdicts = [verdict for group in batch for verdict in group.verdicts]
    return sampled, [group.prompt for group in batch for _ in range(size)]


def even_batch(trainer: Any, sampled: Sampled, rows: list[dict[str, Any]]) -> tuple[Sampled, list[dict[str, Any]]]:
    """This rank's part of a rollout batch after groups have moved so that all ranks have about as much to train on.

    Which rank sampled a group says nothing about whether it is informative. Scopes that choose inside the loss look at
    the rows of a slice together, so there rows stay where they are.
    """
    algorithm, ranks, share = trainer.algorithm, trainer.ranks, trainer.sizes.prompts // trainer.ranks.count
    if ranks.count == 1 or algorithm.selection.inside_loss or trainer.sizes.num_generations == 1:
        return sampled, rows
    groups = _split(trainer, sampled, rows, first=ranks.index * share)
    everything = algorithm.objective.reaches_every_row or not algorithm.uses_rewards
    mine = torch.tensor(
        [group.forwarded if everything or group.informative else 0 for group in groups], device=sampled.truncated.device
    )
    costs = ranks.gather(mine).flatten().tolist()
    return _adopt(trainer, _dealt(groups, range(trainer.sizes.prompts), costs, trainer.sizes, ranks))


def fill_batch(trainer: Any, rounds: Rounds) -> tuple[Sampled, Scores, list[dict[str, Any]]]:
    """A full rollout batch of this rank: rows, scores, and the prompt of each row."""
    size, device = trainer.sizes.num_generations, trainer.accelerator.device
    batch, surplus = rounds.fill(lambda count: _split(trainer, *trainer.sample(count)))
    sampled, rows = _adopt(trainer, batch)
    known = torch.tensor([bool(group.scores) for group in batch for _ in range(size)], device=device)
    needed = rows_to_score(sampled, trainer.algorithm)
    scores = use_kept_scores(batch, trainer.score(sampled, needed & ~known))
    if surplus is not None:
        left, _ = assemble(surplus, size, trainer._tokenizer.pad_token_id, len(trainer.reward_funcs), device)
        keep_scores(surplus, trainer.score(left, torch.ones(len(left.truncated), dtype=torch.bool, device=device)))
    for name, value in rounds.metrics.items():
        trainer.note(name, value)
    return sampled, scores, rows
