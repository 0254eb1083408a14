"""Which tokens carry gradient: the forking tokens, exactly as many as asked for, the same on any split over ranks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from rlvr.maths.masked import reduce_sum
from rlvr.maths.order import (
    CHUNK,
    FLOAT_BITS,
    HASH_BITS,
    from_sortable_key,
    kth_largest_key,
    random_keys,
    sortable_keys,
)

RULES = ("top_entropy", "bottom_entropy", "random", "all")
POOLED_SCOPES = ("rollout", "micro_batch", "micro_batch_all_ranks")
SCOPES = ("rollout", "group", "sequence", "micro_batch", "micro_batch_all_ranks")
TIE_BITS = 62
TOKEN_BITS = 31


@dataclass(frozen=True)
class TokenSelection:
    """The selected tokens.

    Attributes:
        mask: (B, T) bool, true where a token carries gradient.
        threshold: nats; the entropy of the last token taken by `top_entropy` (for `bottom_entropy`, of the last one
            left out). A scalar, (P,) for scope `group`, (B,) for scope `sequence`; NaN where entropy did not decide.
        kept: selected tokens, over all ranks of the process group.
        candidates: tokens that were chosen from, over the same ranks.
    """

    mask: Tensor
    threshold: Tensor
    kept: int
    candidates: int


def exact_share(keep: float) -> Fraction:
    """`keep` as the decimal it was written as: 0.2 is 1/5, not the nearest binary fraction.

    Raises:
        ValueError: unless 0 < keep <= 1.
    """
    share = Fraction(str(keep))
    if not 0 < share <= 1:
        raise ValueError(f"selection.keep is {keep}; expected a share above 0 and at most 1, e.g. 0.2 for the top 20 %")
    return share


def kept_count(rule: str, keep: float, candidates: int) -> int:
    """How many of N candidates a rule keeps: ceil(keep * N); the bottom keeps what the top 1 - keep leaves.

    So `top_entropy` at 0.2 and `bottom_entropy` at 0.8 partition the candidates.
    """
    if rule == "all":
        return candidates
    if rule == "bottom_entropy":
        return candidates - _ceil((1 - exact_share(keep)) * candidates)
    return _ceil(exact_share(keep) * candidates)


def _ceil(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


@dataclass
class _Pool:
    """The candidates of this rank, handed out in chunks of rows so that no second copy of them exists."""

    entropies_BT: Tensor
    mask_BT: Tensor
    votes_BT: Tensor
    rows_B: Tensor
    rule: str
    seed: int
    step: int
    chunk_rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.chunk_rows = max(1, CHUNK // max(1, self.mask_BT.shape[1]))

    @property
    def bits(self) -> int:
        return HASH_BITS if self.rule == "random" else FLOAT_BITS

    def row_slices(self) -> Iterator[slice]:
        for start in range(0, self.mask_BT.shape[0], self.chunk_rows):
            yield slice(start, start + self.chunk_rows)

    def positions(self, part: slice) -> tuple[Tensor, Tensor]:
        """Global row and token index of every position; padding is not counted, so padding columns change nothing."""
        tokens = self.mask_BT[part].long().cumsum(dim=1) - 1
        return self.rows_B[part].unsqueeze(1).expand_as(tokens), tokens

    def keys(self, part: slice) -> Tensor:
        """What the rule orders by: larger keys are taken first."""
        if self.rule == "random":
            return random_keys(self.seed, self.step, *self.positions(part))
        return sortable_keys(self.entropies_BT[part])

    def tie_keys(self, part: slice) -> Tensor:
        """Among equals the lower (global row, token index) comes first, so it gets the larger key."""
        rows, tokens = self.positions(part)
        return ((1 << TIE_BITS) - 1) - ((rows << TOKEN_BITS) + tokens)


def _top(pool: _Pool, count: int, process_group: Any) -> tuple[Tensor, int]:
    """Mask of the `count` largest candidates over all ranks, and the key of the last one taken."""
    device = pool.mask_BT.device
    taken_BT = torch.zeros_like(pool.votes_BT)
    cut, larger = kth_largest_key(
        lambda: (pool.keys(part)[pool.votes_BT[part]] for part in pool.row_slices()),
        count, pool.bits, device, process_group,
    )  # fmt: skip
    ties = torch.zeros((), dtype=torch.int64, device=device)
    for part in pool.row_slices():
        keys = pool.keys(part)
        taken_BT[part] = pool.votes_BT[part] & (keys >= cut)
        ties += (pool.votes_BT[part] & (keys == cut)).sum()
    wanted_ties = count - larger
    if int(reduce_sum(ties, process_group)) > wanted_ties:
        tied = [pool.votes_BT[part] & (pool.keys(part) == cut) for part in pool.row_slices()]
        last, _ = kth_largest_key(
            lambda: (pool.tie_keys(part)[here] for part, here in zip(pool.row_slices(), tied, strict=True)),
            wanted_ties, TIE_BITS, device, process_group,
        )  # fmt: skip
        for part, here in zip(pool.row_slices(), tied, strict=True):
            taken_BT[part] &= ~(here & (pool.tie_keys(part) < last))
    return taken_BT, cut


def _pooled(pool: _Pool, keep: float, total: int, process_group: Any) -> tuple[Tensor, Tensor]:
    """One threshold for all candidates of all ranks."""
    nothing = torch.tensor(float("nan"))
    if pool.rule == "all":
        return pool.votes_BT, nothing
    kept = kept_count(pool.rule, keep, total)
    count = total - kept if pool.rule == "bottom_entropy" else kept
    if count == 0:
        top_BT, threshold = torch.zeros_like(pool.votes_BT), nothing
    else:
        top_BT, cut = _top(pool, count, process_group)
        threshold = nothing if pool.rule == "random" else torch.tensor(from_sortable_key(cut))
    return (pool.votes_BT & ~top_BT if pool.rule == "bottom_entropy" else top_BT), threshold


def _segmented(pool: _Pool, keep: float, segments: int) -> tuple[Tensor, Tensor]:
    """A threshold per segment of consecutive rows (a row, or a group), all on this rank."""
    shape = (segments, -1)
    votes_SN = pool.votes_BT.reshape(shape)
    if pool.rule == "all":
        return pool.votes_BT, torch.full((segments,), float("nan"))
    keys_SN = pool.keys(slice(None)).reshape(shape).masked_fill(~votes_SN, -1)
    order_SN = keys_SN.argsort(dim=1, descending=True, stable=True)
    rank_SN = torch.empty_like(order_SN).scatter_(
        1, order_SN, torch.arange(order_SN.shape[1], device=order_SN.device).expand_as(order_SN)
    )
    totals = votes_SN.sum(dim=1).tolist()
    counts = [kept_count(pool.rule, keep, n) for n in totals]
    if pool.rule == "bottom_entropy":
        counts = [n - kept for n, kept in zip(totals, counts, strict=True)]
    count_S1 = torch.tensor(counts, device=keys_SN.device).unsqueeze(1)
    top_SN = votes_SN & (rank_SN < count_S1)
    threshold_S = pool.entropies_BT.float().reshape(shape).masked_fill(~top_SN, float("inf")).amin(dim=1)
    undecided_S = (count_S1.squeeze(1) == 0) | (pool.rule == "random")
    mask_SN = votes_SN & ~top_SN if pool.rule == "bottom_entropy" else top_SN
    return mask_SN.reshape(pool.votes_BT.shape), threshold_S.masked_fill(undecided_S, float("nan"))


def _check(entropies: Tensor, mask: Tensor, rule: str, scope: str, group_size: int | None) -> None:
    if rule not in RULES:
        raise ValueError(f"selection rule is {rule!r}; expected one of {RULES}")
    if scope not in SCOPES:
        raise ValueError(f"selection.scope is {scope!r}; expected one of {SCOPES}")
    if mask.dim() != 2 or entropies.shape != mask.shape:
        raise ValueError(
            f"entropies are {tuple(entropies.shape)} and mask {tuple(mask.shape)}; expected both (B, T), "
            "completions by tokens"
        )
    if scope == "group" and (not group_size or mask.shape[0] % group_size):
        raise ValueError(
            f"scope 'group' got group_size={group_size} for {mask.shape[0]} rows; give group_size=G that divides them"
        )


def select_tokens(
    entropies: Tensor,
    mask: Tensor,
    keep: float = 0.2,
    rule: str = "top_entropy",
    scope: str = "rollout",
    group_size: int | None = None,
    candidates: Tensor | None = None,
    rows: Tensor | None = None,
    seed: int = 0,
    step: int = 0,
    process_group: Any = None,
) -> TokenSelection:
    """Select the tokens that carry gradient (arXiv 2506.01939, section 5.1), with an exact count and exact ties.

    `top_entropy` keeps ceil(keep * N) of N candidate tokens; `bottom_entropy` keeps the complement of the top
    ceil((1 - keep) * N); `random` keeps ceil(keep * N) by a counter-based hash; `all` keeps every candidate. Ties go
    to the lower (global row, token index). The result does not depend on padding, on the order of rows, or on how
    rows are split over ranks. No gradient flows into the mask.

    Args:
        entropies: (B, T) nats, compared in float32; ignored by `random` and `all`.
        mask: (B, T) bool, true on completion tokens that may carry loss.
        keep: share to keep, above 0 and at most 1, read as a decimal.
        rule: one of `RULES`.
        scope: where a threshold holds: `rollout` and `micro_batch_all_ranks` pool what they are given over
            `process_group`, `micro_batch` pools it on this rank, `group` and `sequence` decide each on its own.
        group_size: G, for scope `group`; groups are contiguous and whole.
        candidates: (B,) bool, rows whose tokens vote and may be kept; None for all.
        rows: (B,) int64 global row indices; None for 0..B-1. Needed for the same result on any split over ranks.
        seed: for `random`, the run's seed.
        step: for `random`, the rollout step.
        process_group: torch.distributed group that holds the other rows, or None.

    Returns:
        A `TokenSelection`.

    Raises:
        ValueError: for a share, rule, scope or shape out of range, or an entropy that is NaN (on every rank alike).
    """
    _check(entropies, mask, rule, scope, group_size)
    exact_share(keep)
    entropies, mask = entropies.detach(), mask.bool()
    votes_BT = mask if candidates is None else mask & candidates.bool().unsqueeze(1)
    rows_B = torch.arange(mask.shape[0], device=mask.device) if rows is None else rows.long()
    pool = _Pool(entropies, mask, votes_BT, rows_B, rule, seed, step)
    group = process_group if scope in ("rollout", "micro_batch_all_ranks") else None
    decides = rule in ("top_entropy", "bottom_entropy")
    nan_count = sum((entropies[p].isnan() & votes_BT[p]).sum() for p in pool.row_slices()) if decides else 0
    tally = torch.stack([votes_BT.sum(), torch.as_tensor(nan_count, device=mask.device)])
    total, not_numbers = reduce_sum(tally, group).tolist()
    if not_numbers:
        raise ValueError(f"{not_numbers} of {total} candidate entropies are NaN; expected nats: check the forward pass")
    if scope in POOLED_SCOPES:
        mask_BT, threshold = _pooled(pool, keep, total, group)
        return TokenSelection(mask_BT, threshold, kept_count(rule, keep, total), total)
    mask_BT, threshold = _segmented(pool, keep, mask.shape[0] // (group_size if scope == "group" else 1))  # type: ignore[operator]
    return TokenSelection(mask_BT, threshold, int(mask_BT.sum()), total)
