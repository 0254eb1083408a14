"""Key-token values of KTAE (arXiv 2505.16826): how much a token tells correct rollouts of a prompt from wrong ones.

For a whole batch at once. The (token, rollout) pairs of each group are sorted; everything else is counting between
neighbours. Time and memory grow with the number of tokens, and not with the vocabulary.

Values are looked up with `gather` rather than with indices in brackets: on a CPU those wake the other threads for 3000
values, which takes milliseconds where the cores are busy.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.maths.fisher import TESTS, arcsine_differences, fisher_p_values, information_gains
from rlvr.maths.order import chunk_size

SCALES = ("code", "paper")
ONE_SIDED = ("ratio", "presence", "zero")
SATURATION, LENGTH_SHARE = 2.0, 0.5
"""k1 and b of the BM25-like term frequency, as released."""


@dataclass
class KeyTokenRule:
    """The numbers of a key-token value, checked.

    With p Fisher's p-value, F = exp(-2 p), but 0 where p = 1; IG the information gain in bits; h half of Cohen's h;
    TF_T and TF_F the term frequencies in all correct and in all wrong rollouts of the group, each as one document:

        D = h + gamma * (TF_T / (TF_F + ratio_eps) - TF_F / (TF_T + ratio_eps))
        code:  value = 2 top (sigmoid((alpha F + beta IG) D / (alpha + beta)) - 1/2)
        paper: value =   top (sigmoid((alpha F + beta IG) D) - 1/2)

    Attributes:
        scale: `code`, the released code's form, within (-top, top); `paper`, within (-top/2, top/2).
        fisher: `two_sided` p-values, as the released code has them, or the `point` probability of the paper's formula.
        alpha: weight of Fisher's test.
        beta: weight of the information gain. The released scripts pass 2, and the released code ignores it.
        gamma: weight of the term-frequency ratios; 0 turns them off.
        top: the largest value (half of it with `paper`).
        ratio_eps: keeps the ratios finite. At the released 1e-5, a token seen once, on one side, counts as decisive.
        one_sided: what tokens get that only correct or only wrong rollouts contain: `ratio`, the formula; `presence`,
            the formula with gamma = 0; `zero`.

    Raises:
        ValueError: for an unknown name or a number out of range.
    """

    scale: str = "code"
    fisher: str = "two_sided"
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    top: float = 1.0
    ratio_eps: float = 1e-5
    one_sided: str = "ratio"

    def __post_init__(self) -> None:
        for name, known in (("scale", SCALES), ("fisher", TESTS), ("one_sided", ONE_SIDED)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        for name in ("alpha", "beta", "gamma", "top"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or a positive number, e.g. 1")
        if not 0 < self.ratio_eps < float("inf"):
            raise ValueError(f"ratio_eps is {self.ratio_eps}; expected a small positive number, e.g. 1e-5")
        if self.alpha + self.beta == 0:
            raise ValueError("alpha and beta are both 0, so that every value is 0; expected at least one above 0")


def key_token_values(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_size: int,
    *,
    scale: str = "code",
    fisher: str = "two_sided",
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    top: float = 1.0,
    ratio_eps: float = 1e-5,
    one_sided: str = "ratio",
    excluded_ids: Iterable[int] = (),
) -> Tensor:
    """The value of each position's token within its group (arXiv 2505.16826, section 3, as the authors' code runs it).

    A token has one value in all rollouts of its group, right or wrong. It is positive where correct rollouts use the
    token more, 0 in a group without both kinds, and negated exactly when all labels of a group are swapped. Computed
    in float64 from integer counts; see `KeyTokenRule` for the formula and the numbers.

    Args:
        token_ids: (B, T) integers, groups contiguous; what stands outside the mask is ignored.
        mask: (B, T) bool, what was sampled, the end-of-text token included.
        rewards: (B,) unshaped verdicts: correct where above 0, wrong where not; NaN or infinite where unscorable: such
            a row is left out of the counts and gets 0.
        group_size: G.
        scale: `code` or `paper`.
        fisher: `two_sided` or `point`.
        alpha: weight of Fisher's test.
        beta: weight of the information gain.
        gamma: weight of the term-frequency ratios.
        top: the largest value.
        ratio_eps: keeps the ratios finite.
        one_sided: `ratio`, `presence` or `zero`.
        excluded_ids: tokens whose value is 0: the tokenizer's special ids. They count in the lengths.

    Returns:
        (B, T) float32, 0 outside the mask.

    Raises:
        ValueError: for shapes that do not fit, a negative token id, or numbers out of range.
    """
    rule = KeyTokenRule(scale, fisher, alpha, beta, gamma, top, ratio_eps, one_sided)
    _check(token_ids, mask, rewards, group_size)
    groups, width = len(rewards) // group_size, group_size * token_ids.shape[1]
    verdicts_PG = rewards.double().reshape(groups, group_size)
    scorable_PG = verdicts_PG.isfinite()
    correct_PG = scorable_PG & (verdicts_PG > 0)
    mixed_P = correct_PG.any(dim=1) & (scorable_PG & ~correct_PG).any(dim=1)
    values = torch.zeros(groups, width, dtype=torch.float32, device=token_ids.device)
    ids, inside = token_ids.reshape(groups, width), mask.reshape(groups, width)
    excluded = torch.tensor(sorted({int(token) for token in excluded_ids}), dtype=torch.int64, device=ids.device)
    mixed = mixed_P.nonzero().flatten()
    for chosen in mixed.split(max(1, chunk_size(ids.device) // width)) if width and mixed.numel() else ():
        correct, scorable = correct_PG.index_select(0, chosen), scorable_PG.index_select(0, chosen)
        counted = inside.index_select(0, chosen) & scorable.repeat_interleave(token_ids.shape[1], dim=1)
        found = _chunk_values(ids.index_select(0, chosen), counted, correct, scorable, excluded, rule)
        values.index_copy_(0, chosen, found)
    return values.view(token_ids.shape)


def _check(token_ids: Tensor, mask: Tensor, rewards: Tensor, group_size: int) -> None:
    if group_size < 1 or len(rewards) % group_size:
        raise ValueError(
            f"{len(rewards)} rewards do not divide into groups of {group_size}; expected whole, contiguous groups"
        )
    if token_ids.dim() != 2 or mask.shape != token_ids.shape or rewards.shape != token_ids.shape[:1]:
        shapes = f"{tuple(token_ids.shape)}, {tuple(mask.shape)} and {tuple(rewards.shape)}"
        raise ValueError(f"token_ids, mask and rewards are {shapes}; expected (B, T), (B, T) and (B,)")
    if token_ids.is_floating_point() or mask.dtype != torch.bool:
        raise ValueError(f"token_ids are {token_ids.dtype} and mask is {mask.dtype}; expected integers and torch.bool")
    if bool((mask & (token_ids < 0)).any()):
        raise ValueError("token_ids has a negative id inside the mask; expected ids of the vocabulary")


@dataclass(frozen=True)
class _Counts:
    """Counts of K distinct (group, token) pairs: `a`, `b` rollouts with it, `in_T`, `in_F` occurrences; all (K,)."""

    group: Tensor
    token: Tensor
    a: Tensor
    b: Tensor
    in_T: Tensor
    in_F: Tensor


def _chunk_values(
    ids: Tensor, counted: Tensor, correct_PG: Tensor, scorable_PG: Tensor, excluded: Tensor, rule: KeyTokenRule
) -> Tensor:
    """(P, G * T) float32 values of mixed groups; `ids` and `counted` are (P, G * T)."""
    group_size = correct_PG.shape[1]
    rows = torch.arange(group_size, device=ids.device).repeat_interleave(ids.shape[1] // group_size)
    highest = int(torch.where(counted, ids, 0).max())
    # Half as wide keys sort in half the time, and no known vocabulary needs the wide ones.
    dtype = torch.int32 if (highest + 1) * group_size < 2**31 - 1 else torch.int64
    last = torch.iinfo(dtype).max
    keys, order = torch.where(counted, ids * group_size + rows, last).to(dtype).sort(dim=1)
    valid = keys != last
    new_row = torch.ones_like(valid)  # the first position of a token in a rollout
    torch.ne(keys[:, 1:], keys[:, :-1], out=new_row[:, 1:])
    tokens, row = keys // group_size, keys % group_size
    new_token = torch.ones_like(valid)
    torch.ne(tokens[:, 1:], tokens[:, :-1], out=new_token[:, 1:])
    is_correct = correct_PG.gather(1, row.long())
    counts = _count(tokens, valid, new_token, new_row, is_correct)
    lengths_T, lengths = (valid & is_correct).sum(dim=1), valid.sum(dim=1)
    values_K = _pair_values(counts, correct_PG, scorable_PG, lengths_T, lengths - lengths_T, excluded, rule)
    sorted_values = values_K.float().gather(0, new_token.flatten().cumsum(0) - 1).view_as(tokens) * valid
    return torch.zeros_like(sorted_values).scatter_(1, order, sorted_values)


def _count(tokens: Tensor, valid: Tensor, new_token: Tensor, new_row: Tensor, is_correct: Tensor) -> _Counts:
    """Counts between the first positions of neighbouring tokens; all arguments are (P, G * T), sorted."""
    starts = new_token.flatten().nonzero().flatten()
    ends = torch.cat([starts[1:], starts.new_tensor([tokens.numel()])])

    def between(flags: Tensor) -> Tensor:
        total = torch.cat([starts.new_zeros(1), (flags & valid).flatten().cumsum(0)])
        return total.gather(0, ends) - total.gather(0, starts)

    a, in_T = between(new_row & is_correct), between(is_correct)
    b, in_F = between(new_row & ~is_correct), between(~is_correct)
    return _Counts(starts // tokens.shape[1], tokens.flatten().gather(0, starts).long(), a, b, in_T, in_F)


def _pair_values(
    counts: _Counts, correct_PG: Tensor, scorable_PG: Tensor, lengths_T: Tensor, lengths_F: Tensor, excluded: Tensor,
    rule: KeyTokenRule,
) -> Tensor:  # fmt: skip
    """(K,) float64 values; `lengths_T` and `lengths_F` are (P,) tokens of all correct and of all wrong rollouts."""
    strengths, differences, starts, columns = _tables(correct_PG, scorable_PG, rule)
    cell = starts.gather(0, counts.group) + counts.a * columns.gather(0, counts.group) + counts.b
    mean = (lengths_T + lengths_F).double() / 2

    def frequency(occurrences: Tensor, lengths: Tensor) -> Tensor:
        saturation = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * lengths / mean.clamp(min=0.5))
        share = occurrences / lengths.clamp(min=1).gather(0, counts.group)
        return (SATURATION + 1) * share / (share + saturation.gather(0, counts.group))

    often_T, often_F = frequency(counts.in_T, lengths_T), frequency(counts.in_F, lengths_F)
    ratios = often_T / (often_F + rule.ratio_eps) - often_F / (often_T + rule.ratio_eps)
    one_sided = (counts.a == 0) | (counts.b == 0)
    if rule.one_sided == "presence":
        ratios = ratios.masked_fill(one_sided, 0.0)
    direction = differences.gather(0, cell) + rule.gamma * ratios
    divisor, reach = (rule.alpha + rule.beta, rule.top) if rule.scale == "code" else (1.0, rule.top / 2)
    raw = strengths.gather(0, cell) * direction / divisor
    values = reach * (raw.sigmoid() - (-raw).sigmoid())  # 2 sigmoid(x) - 1, odd to the last bit
    ignored = torch.isin(counts.token, excluded)
    return values.masked_fill(ignored | one_sided if rule.one_sided == "zero" else ignored, 0.0)


def _tables(correct_PG: Tensor, scorable_PG: Tensor, rule: KeyTokenRule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tables of alpha F + beta IG and of h, end to end, and for each group where its own starts and how wide it is."""
    numbers = torch.stack([correct_PG.sum(dim=1), (scorable_PG & ~correct_PG).sum(dim=1)], dim=1).tolist()
    strengths: list[float] = []
    differences: list[float] = []
    starts: dict[tuple[int, int], int] = {}
    for correct, wrong in sorted({(correct, wrong) for correct, wrong in numbers}):
        starts[correct, wrong] = len(strengths)
        p_values, gains = fisher_p_values(correct, wrong, rule.fisher), information_gains(correct, wrong)
        weights = torch.tensor(p_values, dtype=torch.float64).mul(-2).exp()
        weights[torch.tensor(p_values, dtype=torch.float64) == 1] = 0.0
        combined = rule.alpha * weights + rule.beta * torch.tensor(gains, dtype=torch.float64)
        strengths += combined.flatten().tolist()
        differences += [value for row in arcsine_differences(correct, wrong) for value in row]
    device = correct_PG.device
    return (
        torch.tensor(strengths, dtype=torch.float64, device=device),
        torch.tensor(differences, dtype=torch.float64, device=device),
        torch.tensor([starts[correct, wrong] for correct, wrong in numbers], device=device),
        torch.tensor([wrong + 1 for _, wrong in numbers], device=device),
    )
