"""Log-probabilities and entropies of the rows that vote or train: recorded, or by a planned pass without gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from rlvr.rollouts.plan import plan_slices
from rlvr.trainer.batch import Ranks, Sampled, Scores
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
            if not part_rows and ranks.count == 1:
                continue
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


def scores_of(trainer: Any, sampled: Sampled, needed: Tensor) -> Scores:
    """The sampling policy's numbers in the rows (B,) that need them, and the reference's for a KL term.

    What was recorded while sampling is taken as it is; every other number costs a forward pass.
    """

    def scored(model: Any) -> tuple[Tensor, Tensor]:
        return score_rows(
            lambda tokens, projected: trainer._forward(model, tokens, projected), sampled.tokens, needed,
            trainer.sizes.micro_batch_rows, trainer.ranks,
        )  # fmt: skip

    with disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs):
        if sampled.recorded is None:
            logps, entropies = scored(trainer.model)
        else:
            logps, entropies = sampled.recorded.padded(sampled.tokens.completion_ids)
        recorded = sampled.recorded is not None
        if trainer.beta == 0.0:  # then every row has what was recorded, whoever needs it
            return Scores(logps, entropies, None, torch.ones_like(needed) if recorded else needed, recorded)
        inside = needed.unsqueeze(1)
        logps, entropies = logps * inside, entropies * inside
        if trainer.ref_model is not None:
            return Scores(logps, entropies, scored(trainer.ref_model)[0], needed, recorded)
        adapted = trainer.accelerator.unwrap_model(trainer.model)
        with use_adapter(adapted, adapter_name="ref" if "ref" in adapted.peft_config else None):
            return Scores(logps, entropies, scored(trainer.model)[0], needed, recorded)
