"""Which tokens carry gradient: the forking tokens, exactly as many as asked for, the same on any split over ranks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlvr.maths.masked import reduce_sum
from rlvr.maths.order import (
    FLOAT_BITS,
    HASH_BITS,
    chunk_size,
    from_sortable_key,
    kth_largest_key,
    only,
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
        mask: (B, T) bool, true where a token carries gradient; a tensor of its own.
        threshold: nats, float32; the entropy of the last token taken by `top_entropy` (for `bottom_entropy`, of the
            last one left out). A scalar, (P,) for scope `group`, (B,) for scope `sequence`; NaN where entropy did not
            decide.
        kept: selected tokens, over all ranks of the process group (of this rank alone for scope `micro_batch`).
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
    try:
        share = Fraction(str(keep))
    except ValueError:  # nan, inf, None
        share = Fraction(0)
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
        return candidates - math.ceil((1 - exact_share(keep)) * candidates)
    return math.ceil(exact_share(keep) * candidates)


@dataclass
class _Pool:
    """The candidates of this rank, handed out in blocks of rows so that no second copy of them exists."""

    entropies_BT: Tensor
    mask_BT: Tensor
    voting_B: Tensor | None
    rows_B: Tensor
    rule: str
    seed: int
    step: int

    def blocks(self, unit: int = 1) -> list[slice]:
        """Slices of rows in multiples of `unit`, of about a chunk each."""
        rows, tokens = self.mask_BT.shape
        step = unit * max(1, chunk_size(self.mask_BT.device) // max(1, unit * tokens))
        return [slice(start, start + step) for start in range(0, rows, step)]

    def votes(self, part: slice) -> Tensor:
        """The candidates among the positions, bool."""
        mask = self.mask_BT[part].bool()
        return mask if self.voting_B is None else mask & self.voting_B[part].bool().unsqueeze(1)

    def positions(self, part: slice) -> tuple[Tensor, Tensor]:
        """Global row and token index of every position; padding is not counted, so padding columns change nothing."""
        tokens = self.mask_BT[part].bool().cumsum(dim=1) - 1
        return self.rows_B[part].unsqueeze(1).expand_as(tokens), tokens

    def keys(self, part: slice) -> Tensor:
        """What the rule orders by: larger keys are taken first, the lowest of all is no candidate."""
        if self.rule == "random":
            return torch.where(self.votes(part), random_keys(self.seed, self.step, *self.positions(part)), -1)
        return only(sortable_keys(self.entropies_BT[part]), self.votes(part))

    def tie_keys(self, part: slice) -> Tensor:
        """Among equals the lower (global row, token index) comes first, so it gets the larger key."""
        rows, tokens = self.positions(part)
        return ((1 << TIE_BITS) - 1) - ((rows << TOKEN_BITS) + tokens)

    def empty_mask(self) -> Tensor:
        return torch.zeros(self.mask_BT.shape, dtype=torch.bool, device=self.mask_BT.device)


def _top(pool: _Pool, count: int, process_group: Any) -> tuple[Tensor, int]:
    """Mask of the `count` largest candidates over all ranks, and the key of the last one taken."""
    blocks, device = pool.blocks(), pool.mask_BT.device
    bits = HASH_BITS if pool.rule == "random" else FLOAT_BITS
    cut = kth_largest_key(lambda: map(pool.keys, blocks), count, bits, device, process_group)
    surplus = cut.larger + cut.equal > count
    tied = []  # blocks with a tie: most have none, and positions are dear
    taken_BT = pool.empty_mask()
    for part in blocks:
        keys = pool.keys(part)
        torch.ge(keys, cut.key, out=taken_BT[part])
        if surplus and (keys == cut.key).any():
            tied.append(part)
    if surplus:

        def ties() -> Iterator[Tensor]:
            return (torch.where(pool.keys(part) == cut.key, pool.tie_keys(part), -1) for part in tied)

        last = kth_largest_key(ties, count - cut.larger, TIE_BITS, device, process_group).key
        for part in tied:
            taken_BT[part] &= (pool.keys(part) > cut.key) | (pool.tie_keys(part) >= last)
    return taken_BT, cut.key


def _voters(pool: _Pool, without_BT: Tensor) -> Tensor:
    """(B, T) the candidates outside a mask, which is overwritten."""
    for part in pool.blocks():
        without_BT[part] = pool.votes(part) & ~without_BT[part]
    return without_BT


def _pooled(pool: _Pool, keep: float, total: int, process_group: Any) -> tuple[Tensor, Tensor]:
    """One threshold for all candidates of all ranks."""
    nothing = torch.tensor(float("nan"), device=pool.mask_BT.device)
    if pool.rule == "all":
        return _voters(pool, pool.empty_mask()), nothing
    kept = kept_count(pool.rule, keep, total)
    count = total - kept if pool.rule == "bottom_entropy" else kept
    top_BT, cut = _top(pool, count, process_group) if count else (pool.empty_mask(), None)
    threshold = nothing if pool.rule == "random" or cut is None else torch.full_like(nothing, from_sortable_key(cut))
    return (_voters(pool, top_BT) if pool.rule == "bottom_entropy" else top_BT), threshold


def _segmented(pool: _Pool, keep: float, unit: int) -> tuple[Tensor, Tensor]:
    """A threshold per segment of `unit` consecutive rows (a row, or a group), all on this rank."""
    rows, tokens = pool.mask_BT.shape
    threshold_S = torch.full((rows // unit,), float("nan"), device=pool.mask_BT.device)
    if pool.rule == "all" or tokens == 0:
        return _voters(pool, pool.empty_mask()), threshold_S
    mask_BT = pool.empty_mask()
    for part in pool.blocks(unit):
        votes_SN = pool.votes(part).reshape(-1, unit * tokens)
        totals = votes_SN.sum(dim=1).tolist()
        kept = torch.tensor([kept_count(pool.rule, keep, n) for n in totals], device=votes_SN.device)
        count_S = votes_SN.sum(dim=1) - kept if pool.rule == "bottom_entropy" else kept
        top_SN = votes_SN & (_ranks(pool, part, votes_SN.shape) < count_S.unsqueeze(1))
        mask_BT[part] = (votes_SN & ~top_SN if pool.rule == "bottom_entropy" else top_SN).reshape(-1, tokens)
        if pool.rule != "random":
            entropies_SN = pool.entropies_BT[part].float().reshape(votes_SN.shape)
            lowest_S = torch.where(top_SN, entropies_SN, torch.inf).amin(dim=1)
            threshold_S[part.start // unit : part.stop // unit] = lowest_S.masked_fill(count_S == 0, float("nan"))
    return mask_BT, threshold_S


def _ranks(pool: _Pool, part: slice, shape: tuple[int, ...]) -> Tensor:
    """(S, N) place of every position in its segment: 0 for the one taken first, candidates before all others."""
    by_position_SN = pool.tie_keys(part).reshape(shape).argsort(dim=1, descending=True)
    keys_SN = pool.keys(part).reshape(shape).gather(1, by_position_SN)
    order_SN = by_position_SN.gather(1, keys_SN.argsort(dim=1, descending=True, stable=True))
    places_N = torch.arange(shape[1], device=order_SN.device)
    return torch.empty_like(order_SN).scatter_(1, order_SN, places_N.expand_as(order_SN))


def _check(
    entropies: Tensor,
    mask: Tensor,
    vectors: dict[str, Tensor | None],
    rule: str,
    scope: str,
    group_size: int | None,
) -> None:
    if rule not in RULES:
        raise ValueError(f"selection rule is {rule!r}; expected one of {', '.join(RULES)}")
    if scope not in SCOPES:
        raise ValueError(f"selection.scope is {scope!r}; expected one of {', '.join(SCOPES)}")
    if mask.dim() != 2 or entropies.shape != mask.shape:
        raise ValueError(
            f"entropies are {tuple(entropies.shape)} and mask {tuple(mask.shape)}; expected both (B, T), "
            "completions by tokens"
        )
    for name, vector in vectors.items():
        if vector is not None and vector.shape != mask.shape[:1]:
            raise ValueError(f"{name} is {tuple(vector.shape)}; expected ({mask.shape[0]},), one value a completion")
    if scope == "group" and ((group_size or 0) < 1 or mask.shape[0] % group_size):  # type: ignore[operator]
        raise ValueError(
            f"scope 'group' got group_size={group_size} for {mask.shape[0]} rows; give group_size=G that divides them"
        )


def _global_rows(count: int, device: torch.device, process_group: Any) -> Tensor:
    """Row indices when none are given: those of the lower ranks come first."""
    first = 0
    if process_group is not None:
        rank = dist.get_rank(process_group)
        counts = torch.zeros(dist.get_world_size(process_group), dtype=torch.int64, device=device)
        counts[rank] = count
        first = int(reduce_sum(counts, process_group)[:rank].sum())
    return torch.arange(first, first + count, device=device)


def _count_candidates(pool: _Pool, process_group: Any) -> int:
    """N over all ranks; an entropy among them that is NaN is an error, on every rank alike."""
    tally = torch.zeros(2, dtype=torch.int64, device=pool.mask_BT.device)
    decides = pool.rule in ("top_entropy", "bottom_entropy")
    for part in pool.blocks():
        votes, entropies = pool.votes(part), pool.entropies_BT[part]
        tally[0] += votes.sum()
        if decides and entropies.sum().isnan():  # else there is no NaN, and a sum is much cheaper than looking at each
            tally[1] += (entropies.isnan() & votes).sum()
    total, not_numbers = reduce_sum(tally, process_group).tolist()
    if not_numbers:
        raise ValueError(f"{not_numbers} of {total} candidate entropies are NaN; expected nats: check the forward pass")
    return total


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
            `process_group`, `micro_batch` pools it on this rank, `group` and `sequence` decide each on its own
            (`process_group` only adds up their counts).
        group_size: G, for scope `group`; groups are contiguous and whole.
        candidates: (B,) bool, rows whose tokens vote and may be kept; None for all.
        rows: (B,) int64 global row indices, distinct over all ranks; None to count rows in the order of the ranks.
            Needed for the same result when rows are permuted.
        seed: for `random`, the run's seed.
        step: for `random`, the rollout step.
        process_group: torch.distributed group that holds the other rows, all of whose ranks make this call; or None.

    Returns:
        A `TokenSelection`.

    Raises:
        ValueError: for a share, rule, scope or shape out of range, or an entropy that is NaN (on every rank alike).
    """
    _check(entropies, mask, {"candidates": candidates, "rows": rows}, rule, scope, group_size)
    exact_share(keep)
    group = None if scope == "micro_batch" else process_group
    rows_B = _global_rows(mask.shape[0], mask.device, group) if rows is None else rows.long()
    pool = _Pool(entropies.detach(), mask, candidates, rows_B, rule, seed, step)
    total = _count_candidates(pool, group)
    if scope in POOLED_SCOPES:
        mask_BT, threshold = _pooled(pool, keep, total, group)
        return TokenSelection(mask_BT, threshold, kept_count(rule, keep, total), total)
    mask_BT, threshold = _segmented(pool, keep, group_size if scope == "group" and group_size else 1)
    return TokenSelection(mask_BT, threshold, int(reduce_sum(mask_BT.sum(), group)), total)
