"""The loss of one slice: sums over its tokens, divided by what the whole optimizer step says."""

import torch
from torch import Tensor

from rlvr.maths.masked import last_true
from rlvr.objectives.base import Objective
from rlvr.trainer.batch import Ranks, RolloutBatch, Slice
from rlvr.trainer.forward import Tokens

Sums = dict[str, tuple[Tensor, Tensor]]
"""(sum, count) of this rank by metric name."""


def cut_slice(batch: RolloutBatch, step: int, index: int, ranks: Ranks, on_policy: bool, sparse: bool = True) -> Slice:
    """The rows of one slice, cut to the last projected token.

    Args:
        batch: the decided rollout batch of this rank.
        step: optimizer step within the rollout batch, 0 to W - 1.
        index: slice within the step.
        ranks: for the rows' global indices.
        on_policy: whether the policy that is updated is the one that sampled; old log-probabilities are then taken
            from the gradient pass itself, since recomputed ones differ by rounding (3.6 % in the ratio under bf16).
        sparse: project only positions that carry gradient; False projects every token that may carry loss.
    """
    device = batch.kept.device
    divisor, kl_divisor = batch.policy_divisors[step][index], batch.kl_divisors[step]
    rows, checks = batch.plan[step][index], on_policy and batch.scores.recorded
    if not rows:
        idle = ranks.count == 1 and any(batch.plan[step])
        return _dummy_slice(device, divisor, kl_divisor, checks, idle)
    at = torch.tensor(rows, device=device)
    projected = batch.projected(at) if sparse else batch.projected(at) | batch.loss_mask[at]
    columns = max(1, int(last_true(projected).max()))

    def cut(values: Tensor) -> Tensor:
        return values[at][:, :columns]

    scores = batch.scores
    return Slice(
        tokens=batch.sampled.tokens.rows(at).trimmed(columns),
        empty=False,
        rows=batch.sampled.global_rows(ranks)[at],
        projected=projected[:, :columns],
        kept=cut(batch.kept),
        kl_mask=cut(batch.kl_mask),
        advantages=cut(batch.advantages),
        old_logps=None if on_policy else cut(scores.logps),
        ref_logps=None if scores.ref_logps is None else cut(scores.ref_logps),
        weights=None if batch.weights is None else cut(batch.weights),
        row_tokens=batch.row_tokens[at],
        row_kl_tokens=batch.kl_mask[at].sum(dim=1).clamp(min=1),
        divisor=divisor,
        kl_divisor=kl_divisor,
        recorded_entropies=cut(scores.entropies) if checks else None,
    )


def _dummy_slice(
    device: torch.device, divisor: float, kl_divisor: float, checks: bool = False, idle: bool = False
) -> Slice:
    """A row of two tokens and no loss; it names the same metrics as any other, which all ranks reduce together."""
    tokens = Tokens.dummy(device)
    nothing = torch.zeros_like(tokens.completion_ids, dtype=torch.bool)
    zeros, ones = nothing.float(), torch.ones(1, dtype=torch.int64, device=device)
    return Slice(
        tokens, True, torch.zeros_like(ones), nothing, nothing, nothing, zeros, None, zeros, None, ones, ones,
        divisor, kl_divisor, zeros if checks else None, idle,
    )  # fmt: skip


def _reduced(losses: Tensor, mask: Tensor, row_tokens: Tensor, per_row: bool, divisor: float, ranks: int) -> Tensor:
    """ranks * sum / Z: gradients are averaged over ranks and summed over slices, so nobody else divides again."""
    summed = torch.where(mask, losses, 0.0)
    if per_row:
        summed = summed.sum(dim=1) / row_tokens
    return summed.sum() * (ranks / divisor) if divisor > 0 else summed.sum() * 0.0


def slice_loss(
    part: Slice,
    logps: Tensor,
    entropies: Tensor | None,
    objective: Objective,
    ranks: Ranks,
    loss_entropies: Tensor | None = None,
) -> tuple[Tensor, Sums]:
    """The loss that this rank backpropagates for one slice, and sums for the metrics.

    Args:
        part: the slice, its tokens chosen: see `rlvr/trainer/inside.py` for scopes that decide from the current policy.
        logps: (N, T) log-probabilities of the current policy, with gradient; 0 where not projected.
        entropies: (N, T) nats, to be compared with recorded ones; None for none.
        objective: what is minimised.
        ranks: the processes that share the step.
        loss_entropies: (N, T) nats at `objective.entropy_temperature`, with gradient; None where that is None.

    Returns:
        A scalar connected to every parameter, and (sum, count) pairs of this rank by metric name; the count of what
        the objective measures is 0 here, because it is the step's kept tokens, those of dropped rows included.
    """
    kept = part.kept
    sums: Sums = {}
    if part.recorded_entropies is not None and entropies is not None:
        gap = (entropies.detach() - part.recorded_entropies).abs()
        sums["sampling/entropy_gap"] = (gap[part.projected].sum(), part.projected.sum())
    per_row = objective.per_row
    old_logps = logps.detach() if part.old_logps is None else part.old_logps
    acts = part.projected & (kept | part.kl_mask)
    ratio = objective.ratio(logps, old_logps, acts if objective.uses_advantages else acts & part.kl_mask)
    losses = objective.token_losses(ratio, part.advantages, loss_entropies)
    losses = losses if part.weights is None else losses * part.weights
    loss = _reduced(losses, kept & acts, part.row_tokens, per_row, part.divisor, ranks.count)
    if objective.beta > 0 and part.ref_logps is not None:
        kl = objective.kl(logps, part.ref_logps, ratio, part.kl_mask)
        loss = loss + objective.beta * _reduced(
            kl, part.kl_mask, part.row_kl_tokens, per_row, part.kl_divisor, ranks.count
        )
        sums["kl"] = (kl.detach()[part.kl_mask].sum(), part.kl_mask.sum())
    for name, values in objective.measures(ratio, part.advantages, loss_entropies).items():
        total = torch.where(kept, values, 0).sum()
        sums[name] = (total, torch.zeros_like(total))
    # A row that contributes nothing still has to give every parameter a gradient: DDP waits for it.
    return loss + (logps if loss_entropies is None else loss_entropies).sum() * 0.0, sums
