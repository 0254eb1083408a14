"""What the summed token losses of an optimizer step are divided by.

Every denominator Z counts the whole optimizer step over all ranks, before rows without gradient are dropped. A rank's
loss is `ranks * sum / Z`: gradients are averaged over ranks and summed over slices, so nothing else may divide again.
"""

from dataclasses import dataclass

REDUCTIONS = ("token_mean", "token_mean_rollout", "sequence_mean", "sequence_sum", "constant")
NORMALIZERS = ("kept", "all", "released")


@dataclass(frozen=True)
class StepCounts:
    """Counts over all ranks: of one optimizer step, and of the rollout batch it belongs to.

    `rows` are completions with at least one token that may carry loss, `tokens` those tokens, `kept` the selected
    ones among them; `updates` is W, the optimizer steps a rollout batch is split into.
    """

    rows: int
    tokens: int
    kept: int
    rollout_tokens: int
    rollout_kept: int
    updates: int
    max_completion_length: int


def denominator(reduction: str, kept: bool, counts: StepCounts) -> float:
    """Z of an optimizer step; 0 says that the step has nothing to divide.

    Args:
        reduction: `token_mean`: tokens of the step (DAPO, arXiv 2503.14476 eq. 8; with kept tokens 2506.01939 eq. 6);
            `token_mean_rollout`: tokens of the rollout batch over W, TRL's window; `sequence_mean`: rows, each of
            which is averaged over its own tokens (GRPO, arXiv 2402.03300 eq. 3); `sequence_sum`: rows, each of which is
            summed over its tokens (EM-FT, arXiv 2505.15134 eq. 2); `constant`: rows times the longest
            completion allowed (Dr. GRPO, arXiv 2503.20783). These two count no tokens, so that with kept ones they are
            multiplied by the kept share of the rollout batch.
        kept: whether kept tokens are counted instead of all.
        counts: the numbers.

    Returns:
        Z, in tokens (in rows for `sequence_mean` and `sequence_sum`).

    Raises:
        ValueError: for an unknown reduction.
    """
    if reduction == "token_mean":
        return float(counts.kept if kept else counts.tokens)
    if reduction == "token_mean_rollout":
        return (counts.rollout_kept if kept else counts.rollout_tokens) / counts.updates
    if reduction == "sequence_mean":
        return float(counts.rows)
    if reduction in ("sequence_sum", "constant"):
        share = counts.rollout_kept / max(counts.rollout_tokens, 1) if kept else 1.0
        return counts.rows * (counts.max_completion_length if reduction == "constant" else 1) * share
    raise ValueError(f"reduction is {reduction!r}; expected one of {REDUCTIONS}")
