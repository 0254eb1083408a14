"""Random rollout batches for the test of same updates, and the gradients that the trainer's own parts make of them."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlvr.advantages.base import Advantage
from rlvr.advantages.constant import Constant
from rlvr.advantages.grpo import GRPO
from rlvr.config.algebra import BatchSizes
from rlvr.maths.rollouts import Rollouts
from rlvr.objectives.clipped import Clipped
from rlvr.objectives.entropy import Entropy
from rlvr.selection.all_tokens import AllTokens
from rlvr.selection.bottom_entropy import BottomEntropy
from rlvr.selection.random_tokens import RandomTokens
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import Correction, Ranks, RolloutBatch, Sampled, Scores, Slice
from rlvr.trainer.decide import decide, rows_to_score
from rlvr.trainer.entropy_head import EntropyTerms, token_entropies
from rlvr.trainer.forward import Tokens, compacted_head, token_logps
from rlvr.trainer.inside import narrowed
from rlvr.trainer.loss import cut_slice, slice_loss
from rlvr.trainer.scoring import score_rows

Batch = dict[str, Tensor]
"""Tensors of all ranks' rows, in global order."""

Update = tuple[float, dict[str, Tensor]]
"""The loss of an optimizer step, and the gradient of every parameter by name."""

SELECTIONS: dict[str, Any] = {"top": TopEntropy, "bottom": BottomEntropy, "random": RandomTokens, "all": AllTokens}
LENGTH_LIMIT = 13
"""`max_completion_length`: longer than every row, so that it cannot be mistaken for the width of a tensor."""

SEED, STEP = 5, 3
EPSILON, EPSILON_HIGH, LOSS_TEMPERATURE, SAMPLER_CLIP = 0.2, 0.28, 0.5, 1.3
MOST_ROWS = 24  # of a rank


@dataclass(frozen=True)
class Case:
    """One setting; everything random follows from the seed.

    `credit` is `grpo` (by reward) or `given` (a number for every token, some of them 0); `sampler` adds weights against
    a separate sampler; `poisoned` puts old log-probabilities of -95 where no term may read them; with `dealt` a rank
    has groups from anywhere in the batch.
    """

    seed: int
    scope: str
    normalizer: str
    reduction: str
    ranks: int
    accumulation: int
    group: int
    micro: int
    updates: int
    window: str
    tokens: int
    prompt_tokens: int
    vocabulary: int
    tied: bool
    model: str
    objective: str
    rule: str
    keep: float
    candidates: str
    mask_truncated: bool
    on_policy: bool
    beta: float
    kl_tokens: str
    credit: str
    dual_clip: float | None
    sampler: bool
    ties: bool
    poisoned: bool
    dealt: bool
    sparse: bool
    temperature: float

    @property
    def rows(self) -> int:
        """Rows of a rank."""
        return self.accumulation * self.micro * self.updates

    @property
    def inside_loss(self) -> bool:
        """Whether tokens are chosen from the current policy, slice by slice."""
        return self.scope.startswith("micro_batch")

    @property
    def sizes(self) -> BatchSizes:
        """The batch algebra, two iterations where the policy is not the one that sampled."""
        prompts, iterations = self.ranks * self.rows // self.group, 1 if self.on_policy else 2
        return BatchSizes(prompts, self.group, self.updates, iterations, self.micro, self.ranks, self.window)

    def rows_of(self, rank: int) -> list[int]:
        """The global rows of a rank, in its order."""
        if not self.dealt:
            return list(range(rank * self.rows, (rank + 1) * self.rows))
        steps, chosen, dice = self.updates if self.window == "group" else 1, [], random.Random(self.seed)
        for step in range(steps):  # every rank has as many groups of every step
            groups = list(range(step, self.sizes.prompts, steps))
            dice.shuffle(groups)
            chosen += groups[rank :: self.ranks]
        return [group * self.group + row for group in sorted(chosen) for row in range(self.group)]

    def __str__(self) -> str:
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


def _shapes(accumulation: int) -> Iterator[tuple[int, int, int, str]]:
    """Group size, rows of a slice, updates and window that go with so many slices in a step."""
    for group, micro, updates in itertools.product((2, 3, 4), (1, 2, 3, 4), (1, 2)):
        rows = accumulation * micro * updates
        if rows <= MOST_ROWS and rows % group == 0:
            yield group, micro, updates, "row"
            if rows // group % updates == 0:
                yield group, micro, updates, "group"


def draw(seed: int, scope: str, normalizer: str, reduction: str, ranks: int, **fixed: Any) -> Case:
    """A random case; 1 to 8 slices in a step take turns with the seed, and `fixed` overrides what is drawn."""
    dice = random.Random(seed)
    accumulation = 1 + seed % 8
    group, micro, updates, window = dice.choice(list(_shapes(accumulation)))
    rule = dice.choice(["top", "top", "top", "bottom", "random", "all"])
    beta = 0.0 if normalizer == "released" else dice.choice([0.0, 0.05])
    on_policy, even = updates == 1 and dice.random() < 0.4, window == "group" or group % updates == 0
    case = Case(
        seed=seed, scope=scope, normalizer=normalizer, reduction=reduction, ranks=ranks, accumulation=accumulation,
        group=group, micro=micro, updates=updates, window=window, tokens=dice.randint(1, 10),
        prompt_tokens=dice.randint(1, 6), vocabulary=dice.choice([7, 23, 97]), tied=dice.random() < 0.5, model="qwen3",
        objective="clipped", rule=rule, keep=1.0 if rule == "all" else dice.choice([0.05, 0.2, 0.5, 1.0]),
        candidates=dice.choice(["all", "informative"]), mask_truncated=dice.random() < 0.5, on_policy=on_policy,
        beta=beta, kl_tokens="all" if scope.startswith("micro_batch") else dice.choice(["all", "kept"]),
        credit=dice.choice(["grpo", "grpo", "given"]), dual_clip=dice.choice([None, 1.2]),
        sampler=rule != "random" and dice.random() < 0.2, ties=dice.random() < 0.5, poisoned=dice.random() < 0.5,
        sparse=dice.random() < 0.7, dealt=even and ranks > 1 and not scope.startswith("micro_batch"),
        temperature=dice.choice([1.0, 0.7]),
    )  # fmt: skip
    return replace(case, **fixed)


def make_batch(case: Case) -> Batch:
    """Rows of several lengths, some empty or cut; random ids in the padding too, since nothing may read them."""
    generator = torch.Generator().manual_seed(case.seed)
    rows, width, prompt_width = case.ranks * case.rows, case.tokens, case.prompt_tokens

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def integers(least: int, most: int, *shape: int) -> Tensor:
        return torch.randint(least, most + 1, shape, generator=generator)

    lengths = integers(1, width, rows)
    lengths[uniform(rows) < 0.2] = width
    lengths[uniform(rows) < 0.08] = 0
    prompts = rows // case.group
    # Completions of a prompt begin with equal entropies. Where the loss decides, rounding would break the tie.
    alike = 1 if case.inside_loss else case.group
    prompt_lengths = integers(1, prompt_width, rows // alike).repeat_interleave(alike)
    rewards = integers(0, 1, prompts, case.group).float()
    rewards[:, 0], rewards[:, 1] = 0.0, 1.0
    kinds = uniform(prompts)
    kinds[0] = 1.0  # so that something is left to learn
    rewards[kinds < 0.35], rewards[kinds < 0.17] = 1.0, 0.0  # solved, and unsolvable
    mask = torch.arange(width) < lengths.unsqueeze(1)
    entropies = 3 * uniform(rows, width)
    away = 0.3 * torch.randn(3, rows, width, generator=generator)
    away[1] += 0.1 * away[1].sign()  # the KL term of nearly equal log-probabilities is nearly all rounding
    credit = torch.where(uniform(rows, width) < 0.25, 0.0, 2 * uniform(rows, width) - 1)
    return {
        "prompt_ids": integers(0, case.vocabulary - 1, rows // alike, prompt_width).repeat_interleave(alike, 0),
        "prompt_mask": (torch.arange(prompt_width) >= prompt_width - prompt_lengths.unsqueeze(1)).long(),
        "completion_ids": integers(0, case.vocabulary - 1, rows, width),
        "completion_mask": mask.long(),
        "truncated": (lengths == width) & (uniform(rows) < 0.5),
        "rewards": rewards.flatten(),
        "credit": credit,
        "entropies": (entropies * 2).round() / 2 * mask if case.ties else entropies * mask,
        **dict(zip(("old", "ref", "sampler"), away, strict=True)),
    }


@dataclass
class Given(Advantage):
    """Credit that is known beforehand: (B, T) of this rank."""

    values: Tensor

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return self.values


def _algorithm(case: Case, credit: Tensor) -> Algorithm:
    selection = SELECTIONS[case.rule](
        keep=case.keep, scope=case.scope, candidates=case.candidates, normalizer=case.normalizer
    )
    shared: dict[str, Any] = {"beta": case.beta, "kl_tokens": case.kl_tokens, "reduction": case.reduction}
    if case.objective == "entropy":
        entropy = Entropy(mask_truncated=case.mask_truncated, temperature=LOSS_TEMPERATURE, **shared)
        return Algorithm(Constant(), selection, entropy)
    objective = Clipped(
        mask_truncated=case.mask_truncated, epsilon=EPSILON, epsilon_high=EPSILON_HIGH, dual_clip=case.dual_clip,
        **shared,
    )  # fmt: skip
    return Algorithm(GRPO() if case.credit == "grpo" else Given(credit), selection, objective)


class Ours:
    """This rank's share of a case, through the parts of the trainer."""

    def __init__(self, case: Case, batch: Batch, ranks: Ranks) -> None:
        mine = torch.tensor(case.rows_of(ranks.index))
        rows = {name: value[mine] for name, value in batch.items()}
        mask, rewards = rows["completion_mask"], rows["rewards"]
        self.case, self.ranks, self.rows = case, ranks, mine
        self.tokens = Tokens(rows["prompt_ids"], rows["prompt_mask"], rows["completion_ids"], mask)
        self.algorithm = _algorithm(case, rows["credit"])
        rollouts = Rollouts(rewards, batch["rewards"], rewards, case.group, rows["completion_ids"], mask.bool())
        reported = rows["sampler"] if case.sampler else None
        sampled = Sampled(self.tokens, rollouts, rows["truncated"], reported, numbers=mine if case.dealt else None)
        self.needed = rows_to_score(sampled, self.algorithm)
        inside = mask * self.needed.unsqueeze(1)  # as the trainer has it: 0 in rows that no pass has scored
        ref = rows["ref"] * inside if case.beta else None
        self.decided: RolloutBatch = decide(
            sampled, Scores(rows["old"] * inside, rows["entropies"] * inside, ref, self.needed), self.algorithm,
            case.sizes, ranks, LENGTH_LIMIT, SEED, STEP, correction=Correction("token_mask", None, SAMPLER_CLIP),
        )  # fmt: skip

    def slices(self, step: int) -> list[Slice]:
        """The slices of a step, planned and cut."""
        count = self.case.sizes.slices_per_step
        return [
            cut_slice(self.decided, step, index, self.ranks, self.case.on_policy, self.case.sparse)
            for index in range(count)
        ]

    @property
    def looks_first(self) -> bool:
        """Whether tokens are chosen by a pass of their own, where that can be: in every second case."""
        case = self.case
        clipped = case.objective != "entropy"
        return case.inside_loss and clipped and case.beta == 0 and case.sparse and case.seed % 2 == 0

    def scored(self, policy: Any) -> tuple[Tensor, Tensor]:
        """(B, T) log-probabilities and entropies by the planned pass without gradient."""
        with compacted_head(self.case.vocabulary, on_cpu=True):
            return score_rows(
                lambda *at: token_logps(policy, *at), self.tokens, self.needed, self.case.micro, self.ranks
            )

    def loss(self, policy: Any, part: Slice) -> Tensor:
        """What this rank backpropagates for one slice."""
        terms, entropies = EntropyTerms.of(self.algorithm, self.case.temperature), None
        if self.looks_first:
            with torch.no_grad():
                part = self.narrowed(part, self.numbers(policy, part)[1])
        if terms is None:
            logps, deciding = self.numbers(policy, part)
        else:
            head = policy.get_output_embeddings()
            logps, deciding, entropies = token_entropies(policy, head, part.tokens, part.projected, terms)
        if self.case.inside_loss and not self.looks_first:
            part = self.narrowed(part, deciding)
        return slice_loss(part, logps, deciding, self.algorithm.objective, self.ranks, entropies)[0]

    def numbers(self, policy: Any, part: Slice) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities and entropies at the projected positions of a slice."""
        with compacted_head(self.case.vocabulary, on_cpu=True):
            return token_logps(policy, part.tokens, part.projected)

    def narrowed(self, part: Slice, deciding: Tensor | None) -> Slice:
        """The slice with the tokens that the current policy's entropies choose."""
        assert deciding is not None
        return narrowed(part, deciding, self.algorithm, self.ranks, SEED, STEP)[0]

    def update(self, policy: Any, step: int, change: Callable[[Slice], Slice] = lambda part: part) -> Update:
        """Losses and gradients of a step, summed over slices and averaged over ranks.

        `autograd.grad` refuses a slice that leaves out a parameter, for which DDP would wait in vain.
        """
        names, weights = zip(*policy.named_parameters(), strict=True)
        total, gradient = torch.zeros((), dtype=torch.float64), [torch.zeros_like(weight) for weight in weights]
        for part in self.slices(step):
            loss = self.loss(policy, change(part))
            total += loss.detach()
            gradient = [sum(pair) for pair in zip(gradient, torch.autograd.grad(loss, weights), strict=True)]
        flat = torch.cat([total.view(1), *(values.double().flatten() for values in gradient)]) / self.ranks.count
        if self.ranks.group is not None:
            dist.all_reduce(flat, group=self.ranks.group)
        parts = flat[1:].split([weight.numel() for weight in weights])
        shaped = [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
        return float(flat[0]), dict(zip(names, shaped, strict=True))
