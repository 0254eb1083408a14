"""Which tokens are kept: the worked table, the brute-force oracle, ties, padding and refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.maths import order
from rlvr.maths.denominators import StepCounts, denominator
from rlvr.objectives.clipped import Clipped
from rlvr.selection.select import RULES, SCOPES, kept_count, select_tokens
from tests.selection.oracle import make_case, select

# Two responses of 3 and 5 tokens, advantages +1 and -1; clip range 0.2 below and 0.28 above.
H = torch.tensor([[0.1, 1.2, 0.05, 0.0, 0.0], [0.9, 0.02, 0.3, 2.0, 0.01]])
MASK = torch.tensor([[True, True, True, False, False], [True] * 5])
RATIO = torch.tensor([[1.1, 1.35, 1.0, 1.0, 1.0], [0.7, 1.0, 0.95, 0.9, 1.4]])
ADVANTAGES = torch.tensor([[1.0], [-1.0]])


def objective(kept: torch.Tensor, normalizer: str) -> float:
    """J of the worked example: minus the summed loss of the kept tokens over Z."""
    losses = Clipped(epsilon=0.2, epsilon_high=0.28).token_losses(RATIO, ADVANTAGES)
    n = int(kept.sum())
    counts = StepCounts(rows=2, tokens=8, kept=n, rollout_tokens=8, rollout_kept=n, updates=1, max_completion_length=5)
    return -float(losses[kept].sum()) / denominator("token_mean", normalizer == "kept", counts)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    # Objectives of the rows sum to 3.38 and -5.05: over 8 tokens; as means of 3 and of 5; over 2 x 5; over 2 rows.
    [("token_mean", -0.20875), ("sequence_mean", 0.05833), ("constant", -0.167), ("sequence_sum", -0.835)],
)
def test_the_reduction_decides_even_the_sign(reduction: str, expected: float) -> None:
    rule = Clipped(epsilon=0.2, epsilon_high=0.28, reduction=reduction)
    losses = torch.where(MASK, rule.token_losses(RATIO, ADVANTAGES, None), 0.0).sum(dim=1)
    counts = StepCounts(rows=2, tokens=8, kept=8, rollout_tokens=8, rollout_kept=8, updates=1, max_completion_length=5)
    summed = (losses / MASK.sum(dim=1)).sum() if rule.per_row else losses.sum()
    assert -float(summed) / denominator(reduction, False, counts) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(
    ("keep", "threshold", "kept", "j_kept", "j_all"),
    [
        (0.1, 2.0, {2.0}, -0.9, -0.1125),
        (0.2, 1.2, {1.2, 2.0}, 0.19, 0.0475),
        (0.5, 0.3, {0.3, 0.9, 1.2, 2.0}, -0.3425, -0.17125),
        (1.0, 0.01, {0.1, 1.2, 0.05, 0.9, 0.02, 0.3, 2.0, 0.01}, -0.20875, -0.20875),
    ],
)
def test_the_worked_table_row_by_row(keep: float, threshold: float, kept: set, j_kept: float, j_all: float) -> None:
    result = select_tokens(H, MASK, keep=keep)
    assert {round(value, 4) for value in H[result.mask].tolist()} == kept
    assert result.threshold.item() == pytest.approx(threshold)
    assert (result.kept, result.candidates) == (len(kept), 8)
    assert objective(result.mask, "kept") == pytest.approx(j_kept, abs=1e-5)
    assert objective(result.mask, "all") == pytest.approx(j_all, abs=1e-5)


def test_the_bottom_80_percent_of_the_worked_table_are_six_tokens() -> None:
    result = select_tokens(H, MASK, keep=0.8, rule="bottom_entropy")
    assert result.kept == int(result.mask.sum()) == 6
    assert result.threshold.item() == pytest.approx(1.2)
    assert objective(result.mask, "kept") == pytest.approx(-0.34167, abs=1e-5)


def test_one_threshold_for_all_differs_from_one_per_micro_batch() -> None:
    values = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5], [1.1, 1.2, 1.3, 1.4, 1.5]])
    ones = torch.ones(2, 5, dtype=torch.bool)
    assert select_tokens(values, ones).mask.sum(dim=1).tolist() == [0, 2]
    assert select_tokens(values, ones, scope="sequence").mask.sum(dim=1).tolist() == [1, 1]


@settings(max_examples=400)
@given(st.integers(0, 2**40))
def test_sorting_in_plain_python_keeps_the_same_tokens(seed: int) -> None:
    case = make_case(seed)
    result = select_tokens(case.entropies, case.mask, **case.keywords())
    mask, thresholds = select(case)
    assert torch.equal(result.mask, mask)
    assert result.kept == int(mask.sum())
    assert result.candidates == int((case.mask & case.candidates.unsqueeze(1)).sum())
    if case.scope in ("group", "sequence"):
        torch.testing.assert_close(result.threshold, torch.tensor(thresholds), rtol=0, atol=0, equal_nan=True)
    elif thresholds:
        torch.testing.assert_close(result.threshold, torch.tensor(thresholds[0]), rtol=0, atol=0, equal_nan=True)


@settings(max_examples=150)
@given(st.integers(0, 2**40), st.sampled_from(["rollout", "sequence"]))
def test_top_20_and_bottom_80_percent_partition_the_candidates_ties_included(seed: int, scope: str) -> None:
    case = make_case(seed, (scope,))
    where = case.keywords() | {"scope": scope}
    for keep, rest in ((0.2, 0.8), (0.3, 0.7), (0.1, 0.9)):
        top = select_tokens(case.entropies, case.mask, **where | {"rule": "top_entropy", "keep": keep})
        bottom = select_tokens(case.entropies, case.mask, **where | {"rule": "bottom_entropy", "keep": rest})
        assert torch.equal(top.mask ^ bottom.mask, case.mask & case.candidates.unsqueeze(1))
        assert torch.equal(top.threshold.nan_to_num(-1), bottom.threshold.nan_to_num(-1))


@settings(max_examples=150)
@given(st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_permuting_rows_permutes_the_mask(seed: int, random) -> None:
    case = make_case(seed)
    blocks = [list(range(s, s + case.group_size)) for s in range(0, len(case.rows), case.group_size)]
    random.shuffle(blocks)
    for block in blocks:
        random.shuffle(block)  # within a group as well
    index = torch.tensor([b for block in blocks for b in block], dtype=torch.int64)
    plain = select_tokens(case.entropies, case.mask, **case.keywords())
    moved = case.take(index)
    assert torch.equal(select_tokens(moved.entropies, moved.mask, **moved.keywords()).mask, plain.mask[index])


@settings(max_examples=150)
@given(st.integers(0, 2**40), st.data())
def test_padding_columns_anywhere_change_nothing(seed: int, data: st.DataObject) -> None:
    case = make_case(seed)
    width = case.mask.shape[1]
    extra = data.draw(st.integers(0, 4))
    at = torch.tensor(sorted(data.draw(st.permutations(range(width + extra)))[:width]), dtype=torch.int64)
    entropies, mask = torch.full((len(case.rows), width + extra), 99.0), torch.zeros(len(case.rows), width + extra)
    entropies[:, at], mask[:, at] = case.entropies, case.mask.float()
    plain = select_tokens(case.entropies, case.mask, **case.keywords())
    padded = select_tokens(entropies, mask.bool(), **case.keywords())
    assert torch.equal(padded.mask[:, at], plain.mask)
    assert (padded.kept, padded.candidates) == (plain.kept, plain.candidates)


@pytest.mark.parametrize("scope", ["rollout", "group"])
def test_among_equal_entropies_the_lower_global_row_comes_first_wherever_it_stands(scope: str) -> None:
    entropies, mask = torch.full((2, 5), 0.7), torch.ones(2, 5, dtype=torch.bool)
    first = select_tokens(entropies, mask, keep=0.3, scope=scope, group_size=2, rows=torch.tensor([4, 9]))
    assert first.mask.tolist() == [[True, True, True, False, False], [False] * 5]
    second = select_tokens(entropies, mask, keep=0.3, scope=scope, group_size=2, rows=torch.tensor([9, 4]))
    assert second.mask.tolist() == [[False] * 5, [True, True, True, False, False]]


@pytest.mark.parametrize("scope", ["rollout", "group", "sequence", "micro_batch"])
def test_ten_equal_entropies_at_20_percent_keep_exactly_two(scope: str) -> None:
    result = select_tokens(torch.full((1, 10), 0.4), torch.ones(1, 10), keep=0.2, scope=scope, group_size=1)
    assert result.mask.tolist() == [[True, True] + [False] * 8]


def test_many_ties_are_cut_at_the_exact_count_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "CACHED_KEYS", 100)
    entropies = (torch.rand(50, 2001, generator=torch.Generator().manual_seed(0)) * 4).round() / 4
    mask = torch.ones_like(entropies, dtype=torch.bool)
    result = select_tokens(entropies, mask, keep=0.3)
    assert int(result.mask.sum()) == result.kept == math.ceil(0.3 * 50 * 2001)
    flat = torch.sort(entropies.flatten(), descending=True, stable=True).indices[: result.kept]
    assert torch.equal(result.mask.flatten().nonzero().flatten(), flat.sort().values)


def test_bfloat16_entropies_tie_often_and_are_still_cut_at_the_exact_count() -> None:
    entropies = torch.rand(20, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert int(select_tokens(entropies, torch.ones(20, 1000)).mask.sum()) == 4000


def test_minus_zero_ties_with_zero_and_a_tiny_negative_entropy_is_below_both() -> None:
    entropies = torch.tensor([[-1e-9, -0.0, 0.0, -1e-7]])
    for keep, kept in ((0.25, [1]), (0.5, [1, 2]), (0.75, [0, 1, 2])):
        assert select_tokens(entropies, torch.ones(1, 4), keep=keep).mask[0].nonzero().flatten().tolist() == kept


@pytest.mark.parametrize(
    ("keep", "candidates", "kept"),
    [(0.2, 5, 1), (0.2, 10, 2), (0.2, 11, 3), (0.3, 10, 3), (0.1, 30, 3), (0.7, 10, 7), (0.07, 100, 7), (1e-05, 7, 1)],
)
def test_the_share_is_read_as_a_decimal(keep: float, candidates: int, kept: int) -> None:
    assert kept_count("top_entropy", keep, candidates) == kept_count("random", keep, candidates) == kept
    result = select_tokens(torch.arange(candidates).float().unsqueeze(0), torch.ones(1, candidates), keep=keep)
    assert result.kept == int(result.mask.sum()) == kept


@given(st.integers(0, 10**7), st.integers(1, 999))
def test_the_bottom_count_is_what_the_top_leaves(candidates: int, thousandths: int) -> None:
    top = kept_count("top_entropy", thousandths / 1000, candidates)
    assert top == -(-thousandths * candidates // 1000)
    assert kept_count("bottom_entropy", (1000 - thousandths) / 1000, candidates) == candidates - top


@pytest.mark.parametrize("rule", ["top_entropy", "bottom_entropy", "random"])
@pytest.mark.parametrize("scope", SCOPES)
def test_keep_one_is_the_rule_all(rule: str, scope: str) -> None:
    where = {"scope": scope, "group_size": 2, "candidates": torch.tensor([True, False])}
    one, everything = (select_tokens(H, MASK, keep=1, rule=name, **where) for name in (rule, "all"))
    assert torch.equal(one.mask, everything.mask)
    assert (one.kept, one.candidates) == (everything.kept, everything.candidates) == (3, 3)


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0), (4, 5)])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scope", SCOPES)
def test_nothing_to_choose_from_gives_an_empty_mask(shape: tuple[int, int], rule: str, scope: str) -> None:
    result = select_tokens(torch.full(shape, math.nan), torch.zeros(shape), rule=rule, scope=scope, group_size=2)
    assert torch.equal(result.mask, torch.zeros(shape, dtype=torch.bool))
    assert (result.kept, result.candidates) == (0, 0)
    assert result.threshold.shape == {"group": (shape[0] // 2,), "sequence": (shape[0],)}.get(scope, ())
    assert result.threshold.isnan().all()


@pytest.mark.parametrize("scope", SCOPES)
def test_a_nan_entropy_of_a_candidate_is_refused_and_one_outside_is_ignored(scope: str) -> None:
    broken = H.clone()
    broken[0, 3] = math.nan  # padding
    where = {"scope": scope, "group_size": 2}
    assert torch.equal(select_tokens(broken, MASK, **where).mask, select_tokens(H, MASK, **where).mask)
    broken[1, 2] = math.nan
    with pytest.raises(ValueError, match="1 of 8 candidate entropies are NaN; expected nats"):
        select_tokens(broken, MASK, **where)
    assert select_tokens(broken, MASK, candidates=torch.tensor([True, False]), **where).candidates == 3
    assert select_tokens(broken, MASK, rule="random", **where).candidates == 8


def test_the_mask_has_no_gradient_and_is_a_tensor_of_its_own() -> None:
    entropies = H.clone().requires_grad_()
    for rule in RULES:
        result = select_tokens(entropies, MASK, rule=rule)
        assert not result.mask.requires_grad
        assert not result.threshold.requires_grad
        assert result.mask.data_ptr() != MASK.data_ptr()


def test_dropped_tokens_get_exactly_zero_gradient_on_their_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator).requires_grad_()
    tokens = torch.randint(7, (2, 5, 1), generator=generator)
    logps = torch.log_softmax(logits, dim=-1).gather(2, tokens).squeeze(2)
    kept = select_tokens(H, MASK, keep=0.5).mask
    clipped = Clipped(epsilon=0.2, epsilon_high=0.28)
    ratio = clipped.ratio(logps, logps.detach(), kept)
    torch.where(kept, clipped.token_losses(ratio, ADVANTAGES), 0.0).sum().div(4).backward()
    assert torch.equal(logits.grad.abs().sum(dim=-1) > 0, kept)
    assert torch.equal(logits.grad[~kept], torch.zeros(6, 7))


def test_random_tokens_are_a_share_of_the_given_size_that_changes_with_seed_and_step() -> None:
    entropies, mask = torch.zeros(100, 100), torch.ones(100, 100)
    masks = [
        select_tokens(entropies, mask, rule="random", seed=seed, step=step).mask
        for seed, step in ((0, 0), (1, 0), (0, 1))
    ]
    for one in masks:
        assert int(one.sum()) == 2000
        assert one.sum(dim=1).float().std().item() == pytest.approx(4.0, abs=1.2)  # sqrt(100 * 0.2 * 0.8)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert int((masks[one] & masks[other]).sum()) == pytest.approx(400, abs=80)  # independent: 0.2 * 0.2
    again = select_tokens(entropies + 1, mask, rule="random").mask
    assert torch.equal(again, masks[0])  # neither entropies nor a global generator matter


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, math.nan, math.inf, None, "much"])
def test_a_share_out_of_range_is_refused(keep: object) -> None:
    with pytest.raises(ValueError, match=r"selection.keep is .*; expected a share above 0 and at most 1, e.g. 0.2"):
        select_tokens(H, MASK, keep=keep)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rule": "top"}, "selection rule is 'top'; expected one of top_entropy, bottom_entropy, random, all"),
        ({"scope": "batch"}, "selection.scope is 'batch'; expected one of rollout, group"),
        ({"mask": MASK[:, :4]}, r"entropies are \(2, 5\) and mask \(2, 4\); expected both \(B, T\)"),
        ({"mask": MASK[0], "entropies": H[0]}, r"entropies are \(5,\) and mask \(5,\); expected both"),
        ({"candidates": MASK}, r"candidates is \(2, 5\); expected \(2,\), one value a completion"),
        ({"rows": torch.arange(3)}, r"rows is \(3,\); expected \(2,\)"),
        ({"scope": "group"}, "group_size=None for 2 rows; give group_size=G"),
        ({"scope": "group", "group_size": 3}, "group_size=3 for 2 rows"),
        ({"scope": "group", "group_size": -2}, "group_size=-2 for 2 rows"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_was_given_and_expected(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_tokens(**{"entropies": H, "mask": MASK} | wrong)
