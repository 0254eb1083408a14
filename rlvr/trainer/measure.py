"""Numbers about a rollout batch, over all ranks: what was selected, and how far the sampler was from the policy."""

import torch

from rlvr.maths.masked import masked_mean
from rlvr.trainer.batch import Ranks, RolloutBatch


def rollout_metrics(batch: RolloutBatch, ranks: Ranks) -> dict[str, float]:
    """The metrics of a rollout batch by name, equal on every rank; see `docs/metrics.md`."""
    scores, candidates, selection = batch.scores, batch.candidates, batch.selection
    scored = batch.loss_mask & scores.scored.unsqueeze(1)
    metrics: dict[str, float] = {}
    # No row was scored where no group differs: there is no entropy to report, and 0 would look like a collapse.
    if bool(ranks.gather(scored.any()).any()):
        metrics["entropy"] = float(masked_mean(scores.entropies, scored, ranks.group))
    if selection is not None:
        kept = selection.mask
        metrics["selection/candidates"] = float(selection.candidates)
        metrics["selection/kept_fraction"] = selection.kept / max(selection.candidates, 1)
        metrics["selection/entropy_kept"] = float(masked_mean(scores.entropies, kept, ranks.group))
        metrics["selection/entropy_dropped"] = float(masked_mean(scores.entropies, candidates & ~kept, ranks.group))
        thresholds = selection.threshold.reshape(-1).to(kept.device)
        threshold, decided = masked_mean(thresholds, ~thresholds.isnan(), ranks.group), ~thresholds.isnan()
        if bool(ranks.gather(decided.any()).any()):  # nothing decides by entropy where tokens are random, or none vote
            metrics["selection/threshold"] = float(threshold)
    return metrics | _sampler_metrics(batch, ranks)


def _sampler_metrics(batch: RolloutBatch, ranks: Ranks) -> dict[str, float]:
    """Under TRL's names, over the scored tokens: how far a separate sampler is, and weights where they correct for it.

    Nothing where the policy itself sampled.
    """
    scores, sampler_logps, weights = batch.scores, batch.sampled.sampler_logps, batch.weights
    if sampler_logps is None:
        return {}
    mask = batch.sampled.tokens.completion_mask.bool() & scores.scored.unsqueeze(1)
    known = mask & ~sampler_logps.isnan()
    differences = (scores.logps - sampler_logps).abs()
    nothing = torch.zeros(1, device=mask.device)
    observed = [differences[known], nothing if weights is None else weights[mask]]
    largest = torch.stack([torch.cat([values, nothing]).max() for values in observed])
    difference_max, ratio_max = ranks.gather(largest).amax(dim=0).tolist()
    metrics = {
        "sampling/sampling_logp_difference/mean": float(masked_mean(differences, known, ranks.group)),
        "sampling/sampling_logp_difference/max": difference_max,
    }
    if weights is None:
        return metrics
    return metrics | {
        "sampling/importance_sampling_ratio/mean": float(masked_mean(weights, mask, ranks.group)),
        "sampling/importance_sampling_ratio/max": ratio_max,
        "sampling/masked_fraction": float(masked_mean((weights == 0).float(), mask, ranks.group)),
    }
