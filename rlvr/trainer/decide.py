"""From scored rollouts to a plan: credit, selection, denominators, slices. Tensors and numbers, no model, no TRL."""

from dataclasses import replace

import torch
from torch import Tensor

from rlvr.config.algebra import BatchSizes
from rlvr.maths.denominators import StepCounts, denominator
from rlvr.maths.groups import has_spread
from rlvr.maths.importance import sampler_weights
from rlvr.maths.masked import last_true, reduce_sum
from rlvr.rollouts.plan import plan_slices, unplanned_slices
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import Correction, Ranks, RolloutBatch, Sampled, Scores
from rlvr.trainer.measure import rollout_metrics

Plan = list[list[list[int]]]
"""`plan[step][slice]`: rows of this rank."""


def loss_and_candidate_masks(sampled: Sampled, algorithm: Algorithm) -> tuple[Tensor, Tensor]:
    """Tokens that may carry loss, and those of them that vote in the selection: both (B, T) bool.

    A truncated row whose loss is masked keeps its reward in the group's baseline, but never votes and counts in no
    denominator. `candidates=informative` looks at the verdicts, not at shaped rewards: a length penalty must not make
    a solved group informative.
    """
    loss_mask = sampled.tokens.completion_mask.bool()
    if algorithm.objective.mask_truncated:
        loss_mask = loss_mask & ~sampled.truncated.unsqueeze(1)
    if algorithm.selection.candidates == "all":
        return loss_mask, loss_mask
    informative = has_spread(sampled.rollouts.verdicts, sampled.rollouts.group_size)
    return loss_mask, loss_mask & informative.unsqueeze(1)


def rows_to_score(sampled: Sampled, algorithm: Algorithm) -> Tensor:
    """(B,) bool: rows that vote or train; every other row is left out of all passes."""
    if algorithm.advantage.needs_scores:
        return sampled.rollouts.mask.any(dim=1)  # those whose loss is masked too: they stand in the baseline
    loss_mask, candidates = loss_and_candidate_masks(sampled, algorithm)
    return (loss_mask if algorithm.objective.reaches_every_row else candidates).any(dim=1)


def _step_counts(
    loss_mask: Tensor, kept_per_step: Tensor, rows_of_step: list[list[int]], ranks: Ranks, longest: int
) -> list[StepCounts]:
    """Counts of every optimizer step over all ranks, taken before any row is dropped.

    `kept_per_step` (W,) counts this rank's kept tokens.
    """
    per_row = torch.stack([loss_mask.any(dim=1), loss_mask.sum(dim=1)], dim=1).long()
    rows_and_tokens = torch.stack([per_row[rows].sum(dim=0) for rows in rows_of_step])
    steps = reduce_sum(torch.cat([rows_and_tokens, kept_per_step.unsqueeze(1)], dim=1), ranks.group).tolist()
    tokens, kept = sum(step[1] for step in steps), sum(step[2] for step in steps)
    return [StepCounts(rows, here, kept_here, tokens, kept, len(steps), longest) for rows, here, kept_here in steps]


def _kept_in_loss(candidates: Tensor, plan: Plan, algorithm: Algorithm, ranks: Ranks) -> tuple[Tensor, list[list[int]]]:
    """What the loss will keep: this rank's count per step (W,), and the count per [step][slice] of its own pool.

    A pool of N candidates keeps a number that depends on N alone, so Z is known before the first slice runs. A pool
    over all ranks is credited to the first rank, so that the sum over ranks is right.
    """
    per_row = candidates.sum(dim=1)
    local = torch.stack([torch.stack([per_row[rows].sum() for rows in step]) for step in plan])
    pooled = algorithm.selection.scope == "micro_batch_all_ranks"
    counts = reduce_sum(local, ranks.group) if pooled else local
    kept = [[algorithm.selection.kept_count(count) for count in step] for step in counts.tolist()]
    per_step = torch.tensor([sum(step) for step in kept], device=candidates.device)
    return (per_step * (ranks.index == 0) if pooled else per_step), kept


def _policy_divisors(
    counts: list[StepCounts], kept_in_slice: list[list[int]] | None, algorithm: Algorithm, sizes: BatchSizes
) -> list[list[float]]:
    """Z of the policy term for every [step][slice]."""
    if algorithm.selection.normalizer == "released" and kept_in_slice is not None:
        # A kept mean per slice, weighted by its share of the step's rows: every slice is full, so the shares are equal.
        return [[float(kept * sizes.slices_per_step * sizes.ranks) for kept in step] for step in kept_in_slice]
    by_kept = algorithm.divides_by_kept
    return [[denominator(algorithm.objective.reduction, by_kept, step)] * sizes.slices_per_step for step in counts]


def decide(
    sampled: Sampled,
    scores: Scores,
    algorithm: Algorithm,
    sizes: BatchSizes,
    ranks: Ranks,
    max_completion_length: int,
    seed: int = 0,
    step: int = 0,
    plan_rows: bool = True,
    correction: Correction | None = None,
) -> RolloutBatch:
    """Decide everything about a rollout batch, the same for any number of ranks and any micro-batch size.

    Args:
        sampled: this rank's rows.
        scores: their log-probabilities and entropies.
        algorithm: advantage, selection, objective.
        sizes: the batch algebra.
        ranks: the processes that share the batch.
        max_completion_length: tokens; the constant of Dr. GRPO's denominator.
        seed: the run's seed, for random selection.
        step: the rollout step, likewise.
        plan_rows: drop rows without gradient and sort by length; False keeps every row in its place.
        correction: for log-probabilities of a separate sampler; None for no correction.

    Returns:
        The batch, ready to be cut into slices.
    """
    loss_mask, candidates = loss_and_candidate_masks(sampled, algorithm)
    weights = _weights(sampled, scores, correction)
    if weights is not None:
        candidates = candidates & (weights > 0)  # what is masked away has no gradient and must not use up the share
    rows = sampled.global_rows(ranks)
    selection = None if algorithm.selection.inside_loss else algorithm.selection(
        scores.entropies, candidates, group_size=sampled.rollouts.group_size, rows=rows,
        seed=seed, step=step, process_group=ranks.group,
    )  # fmt: skip
    kept = candidates if selection is None else selection.mask
    advantages = _credit(sampled, scores, algorithm)
    batch = RolloutBatch(
        sampled, scores, advantages.unsqueeze(1) if advantages.dim() == 1 else advantages, loss_mask, candidates, kept,
        _kl_mask(loss_mask, kept, algorithm), weights, selection,
    )  # fmt: skip
    rows_of_step = _rows_of_step(rows, sizes)
    batch.plan = _plan(batch, rows_of_step, sizes, plan_rows and selection is not None)
    _count(batch, rows_of_step, algorithm, sizes, ranks, max_completion_length)
    batch.metrics = rollout_metrics(batch, ranks)
    return batch


def _credit(sampled: Sampled, scores: Scores, algorithm: Algorithm) -> Tensor:
    rollouts = sampled.rollouts
    if algorithm.advantage.needs_scores:
        rollouts = replace(rollouts, logps=scores.logps, entropies=scores.entropies)
    return algorithm.advantage(rollouts)


def _weights(sampled: Sampled, scores: Scores, correction: Correction | None) -> Tensor | None:
    if sampled.sampler_logps is None or correction is None:
        return None
    mask = sampled.tokens.completion_mask.bool() & scores.scored.unsqueeze(1)
    return sampler_weights(
        scores.logps, sampled.sampler_logps, mask, correction.mode, correction.clip_min, correction.clip_max
    )


def _rows_of_step(rows: Tensor, sizes: BatchSizes) -> list[list[int]]:
    """This rank's rows, by the optimizer step they belong to."""
    of_step: list[list[int]] = [[] for _ in range(sizes.updates_per_rollout)]
    for local, row in enumerate(rows.tolist()):
        of_step[sizes.step_of_row(row)].append(local)
    return of_step


def _count(
    batch: RolloutBatch, rows_of_step: list[list[int]], algorithm: Algorithm, sizes: BatchSizes, ranks: Ranks,
    longest: int,
) -> None:  # fmt: skip
    """Fill in the counts and denominators of every step."""
    objective, kept_in_slice = algorithm.objective, None
    kept_per_step = torch.stack([batch.kept[rows].sum() for rows in rows_of_step])
    if algorithm.selection.inside_loss:
        kept_per_step, kept_in_slice = _kept_in_loss(batch.candidates, batch.plan, algorithm, ranks)
    counts = _step_counts(batch.loss_mask, kept_per_step, rows_of_step, ranks, longest)
    batch.step_counts = counts
    batch.policy_divisors = _policy_divisors(counts, kept_in_slice, algorithm, sizes)
    batch.kl_divisors = [denominator(objective.reduction, objective.kl_tokens == "kept", step) for step in counts]
    own = batch.kept if algorithm.divides_by_kept else batch.loss_mask
    batch.row_tokens = own.sum(dim=1).clamp(min=1)


def _kl_mask(loss_mask: Tensor, kept: Tensor, algorithm: Algorithm) -> Tensor:
    if algorithm.objective.beta == 0:
        return torch.zeros_like(loss_mask)
    return loss_mask if algorithm.objective.kl_tokens == "all" else kept


def _plan(batch: RolloutBatch, rows_of_step: list[list[int]], sizes: BatchSizes, plan_rows: bool) -> Plan:
    if not plan_rows:
        return [unplanned_slices(rows, sizes.slices_per_step, sizes.micro_batch_rows) for rows in rows_of_step]
    projected = batch.projected()
    carries = projected.any(dim=1).tolist()
    lengths = (batch.sampled.tokens.prompt_mask.sum(dim=1) + last_true(projected)).tolist()
    return [
        plan_slices([row for row in rows if carries[row]], lengths, sizes.slices_per_step, sizes.micro_batch_rows)
        for rows in rows_of_step
    ]
