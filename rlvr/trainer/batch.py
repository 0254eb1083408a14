"""A rollout batch on one rank, from what was sampled to the slices that are trained on."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlvr.config.correction import check_correctable
from rlvr.maths.denominators import StepCounts
from rlvr.maths.rollouts import Rollouts
from rlvr.selection.select import TokenSelection
from rlvr.trainer.forward import Tokens


def launched_ranks() -> int:
    """Processes of this job as the launcher set them, before any process group exists."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Ranks:
    """The processes that share a rollout batch.

    Attributes:
        index: this process.
        count: how many there are.
        group: their torch.distributed group; None for a single process.
    """

    index: int = 0
    count: int = 1
    group: Any = None

    @staticmethod
    def current() -> "Ranks":
        """All processes of the job."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return Ranks()
        return Ranks(dist.get_rank(), dist.get_world_size(), dist.group.WORLD)

    def gather(self, values: Tensor) -> Tensor:
        """Equal-shaped tensors of all ranks, stacked: (ranks, ...)."""
        if self.group is None:
            return values.unsqueeze(0)
        gathered = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(gathered, values.contiguous(), group=self.group)
        return torch.stack(gathered)


@dataclass(frozen=True)
class Correction:
    """How a sampler that is not quite the policy is corrected for; see `sampler_weights`.

    Attributes:
        mode: one of `rlvr.maths.importance.MODES`.
        clip_min: lower bound of the ratio, or None.
        clip_max: upper bound, or None.
    """

    mode: str = "sequence_mask"
    clip_min: float | None = None
    clip_max: float | None = 3.0

    @staticmethod
    def of(args: Any, wanted: bool) -> "Correction | None":
        """As a `GRPOConfig` says; None where it is not wanted, or where no separate sampler is.

        Raises:
            UserError: if the sampler draws from another distribution on purpose.
        """
        if not (wanted and args.use_vllm):
            return None
        check_correctable({f"args.{name}": value for name, value in vars(args).items()}, "correct_sampler=False")
        names = ("mode", "clip_min", "clip_max")
        return Correction(*(getattr(args, f"vllm_importance_sampling_{name}") for name in names))


@dataclass(frozen=True)
class Recorded:
    """What the sampler noted of the policy it drew from, a tensor (T_i,) per row.

    Attributes:
        entropies: nats, at the sampling temperature over the whole vocabulary.
        logps: log-probabilities of the drawn tokens, nats.
    """

    entropies: list[Tensor]
    logps: list[Tensor]

    def padded(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) log-probabilities and entropies beside `like` (B, T); 0 behind the end of a row."""

        def together(values: list[Tensor]) -> Tensor:
            result = torch.zeros(like.shape, device=like.device)
            for row, numbers in enumerate(values):
                result[row, : len(numbers)] = numbers.to(result.device)
            return result

        return together(self.logps), together(self.entropies)


@dataclass(frozen=True)
class Sampled:
    """What was sampled and how it was judged: B rows, groups contiguous, their prompts in the order of the stream.

    Attributes:
        tokens: prompts and completions.
        rollouts: rewards and verdicts, as credit assignment sees them.
        truncated: (B,) bool, cut at the length limit: no end-of-text token.
        sampler_logps: (B, T) log-probabilities that a separate sampler reported, NaN where it could not; None where
            the policy itself sampled.
        recorded: what the policy thought while it sampled; None where nobody listened.
        numbers: (B,) int64 indices of the rows in the rollout batch of all ranks; None for contiguous shares.
    """

    tokens: Tokens
    rollouts: Rollouts
    truncated: Tensor
    sampler_logps: Tensor | None = None
    recorded: Recorded | None = None
    numbers: Tensor | None = None

    def global_rows(self, ranks: Ranks) -> Tensor:
        """(B,) int64 indices of this rank's rows in the rollout batch of all ranks."""
        if self.numbers is not None:
            return self.numbers
        count = self.truncated.shape[0]
        return torch.arange(ranks.index * count, (ranks.index + 1) * count, device=self.truncated.device)


@dataclass(frozen=True)
class Scores:
    """Per-token numbers of the policy that sampled, and of the reference: (B, T), 0 where not scored.

    Attributes:
        logps: log-probabilities in nats.
        entropies: nats.
        ref_logps: log-probabilities of the reference; None without a KL term.
        scored: (B,) bool, the rows that have these numbers.
        recorded: whether logps and entropies are from sampling, not from a pass of their own.
    """

    logps: Tensor
    entropies: Tensor
    ref_logps: Tensor | None
    scored: Tensor
    recorded: bool = False


@dataclass
class RolloutBatch:
    """A rollout batch with everything decided: who gets credit, which tokens, what divides, which rows go where.

    Attributes:
        sampled: tokens and rewards.
        scores: the sampling policy's numbers.
        advantages: (B, 1) or (B, T).
        loss_mask: (B, T) bool, tokens that may carry loss: sampled, and not of a row whose truncation is masked.
        candidates: (B, T) bool, tokens that vote.
        kept: (B, T) bool, selected tokens; all candidates where the loss decides.
        kl_mask: (B, T) bool, tokens the KL term acts on.
        weights: (B, T) importance weights over a separate sampler; None for all 1.
        selection: the decision's threshold and counts; None where the loss decides.
        plan: `plan[step][slice]` lists rows of this rank.
        policy_divisors: `[step][slice]`: Z of the policy term.
        kl_divisors: `[step]`: Z of the KL term.
        step_counts: `[step]`: rows, tokens and kept tokens over all ranks.
        row_tokens: (B,) tokens that a row's own mean divides by, at least 1.
        metrics: numbers about the rollout, equal on every rank.
    """

    sampled: Sampled
    scores: Scores
    advantages: Tensor
    loss_mask: Tensor
    candidates: Tensor
    kept: Tensor
    kl_mask: Tensor
    weights: Tensor | None
    selection: TokenSelection | None
    plan: list[list[list[int]]] = field(default_factory=list)
    policy_divisors: list[list[float]] = field(default_factory=list)
    kl_divisors: list[float] = field(default_factory=list)
    step_counts: list[StepCounts] = field(default_factory=list)
    row_tokens: Tensor = field(default_factory=lambda: torch.ones(0))
    metrics: dict[str, float] = field(default_factory=dict)

    def is_empty(self, step: int) -> bool:
        """Whether the policy term of a step has nothing to divide by, on any rank: Z is 0, and so is its loss."""
        return max(self.policy_divisors[step]) == 0 and self.step_counts[step].kept == 0

    def projected(self, at: Any = slice(None)) -> Tensor:
        """(B, T) bool: positions that carry gradient, or whose entropies the loss needs; no other is scored.

        Args:
            at: the rows to look at, as an index; all by default.
        """
        kept = self.kept[at]
        voting = kept if self.selection is None else kept & (self.advantages[at] != 0)
        return voting | self.kl_mask[at]


@dataclass(frozen=True)
class Slice:
    """One forward and backward pass on one rank: N rows, cut to the longest prompt and the last projected token.

    Attributes:
        tokens: the rows.
        empty: whether this rank has no row here and forwards a dummy.
        rows: (N,) int64 global row indices.
        projected: (N, T) bool.
        kept: (N, T) bool; where the loss decides, the candidates.
        kl_mask: (N, T) bool.
        advantages: (N, 1) or (N, T).
        old_logps: (N, T) of the sampling policy; None where it is the policy that is updated.
        ref_logps: (N, T), or None.
        weights: (N, T), or None.
        row_tokens: (N,) tokens of each whole row that its own mean divides by; at least 1.
        row_kl_tokens: (N,) likewise for the KL term.
        divisor: Z of the policy term.
        kl_divisor: Z of the KL term.
        recorded_entropies: (N, T) nats from sampling, to be checked against this pass; None where there is nothing to
            check.
        idle: whether nobody waits for this pass, and another one of the step gives every weight a gradient.
    """

    tokens: Tokens
    empty: bool
    rows: Tensor
    projected: Tensor
    kept: Tensor
    kl_mask: Tensor
    advantages: Tensor
    old_logps: Tensor | None
    ref_logps: Tensor | None
    weights: Tensor | None
    row_tokens: Tensor
    row_kl_tokens: Tensor
    divisor: float
    kl_divisor: float
    recorded_entropies: Tensor | None = None
    idle: bool = False


def ignore(part: Slice, logps: Tensor) -> None:
    """What a trainer does with the log-probabilities of a slice where nobody records them."""
