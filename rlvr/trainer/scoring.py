"""The planned pass without gradient: log-probabilities and entropies of the rows that vote or train."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlvr.rollouts.plan import plan_slices
from rlvr.trainer.batch import Ranks
from rlvr.trainer.forward import Tokens

Forward = Callable[[Tokens, Tensor], tuple[Tensor, Tensor | None]]
"""(tokens, projected (N, T)) -> log-probabilities (N, T), and entropies (N, T) where the head computes them."""


def score_rows(
    forward: Forward, tokens: Tokens, needed: Tensor, micro_batch_rows: int, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Score every sampled token of the rows that need it, in passes of rows of like length.

    Every rank makes the same number of forwards, filled up with a dummy row: under ZeRO-3 each forward gathers
    weights from all ranks, and unequal counts abort the job.

    Args:
        forward: one pass through the model.
        tokens: this rank's B rows.
        needed: (B,) bool.
        micro_batch_rows: rows in a pass if all were as long as the longest; see `plan_slices`.
        ranks: the processes that must stay in step.

    Returns:
        (B, T) log-probabilities and (B, T) entropies in nats, float32, 0 where not scored.
    """
    lengths = (tokens.completion_mask.sum(dim=1) + tokens.prompt_mask.sum(dim=1)).tolist()
    rows = needed.nonzero().flatten().tolist()
    least = torch.tensor(-(-len(rows) // micro_batch_rows), device=needed.device)
    plan = plan_slices(rows, lengths, int(ranks.gather(least).max()), micro_batch_rows)
    logps = torch.zeros(tokens.completion_ids.shape, device=needed.device)
    entropies = torch.zeros_like(logps)
    with torch.no_grad():
        for part_rows in plan:
            if not part_rows:
                dummy = Tokens.dummy(needed.device)
                forward(dummy, torch.zeros_like(dummy.completion_mask, dtype=torch.bool))
                continue
            at = torch.tensor(part_rows, device=needed.device)
            part = tokens.rows(at).trimmed(max(1, int(tokens.completion_mask[at].sum(dim=1).max())))
            part_logps, part_entropies = forward(part, part.completion_mask.bool())
            columns = part.completion_ids.shape[1]
            logps[at, :columns] = part_logps.float()
            if part_entropies is not None:
                entropies[at, :columns] = part_entropies.float()
    return logps, entropies
