"""Ratios, clipping and the KL estimate by hand and against TRL's formulas."""

import math

import pytest
import torch

from rlvr.maths.ratios import clipped_surrogate, k3_divergence, masked_log_ratio


def test_the_log_ratio_is_a_difference_inside_the_mask_and_zero_outside() -> None:
    logps = torch.tensor([[-1.0, -2.0, 0.0]])
    old = torch.tensor([[-1.5, -1.0, -95.0]])
    mask = torch.tensor([[True, True, False]])
    assert masked_log_ratio(logps, old, mask).tolist() == [[0.5, -1.0, 0.0]]


@pytest.mark.parametrize("outside", [-95.0, -1e4, -math.inf, math.nan])
def test_an_old_log_probability_outside_the_mask_reaches_neither_value_nor_gradient(outside: float) -> None:
    logps = torch.tensor([[-1.0, 0.0]], requires_grad=True)
    ratio = masked_log_ratio(logps, torch.tensor([[-1.0, outside]]), torch.tensor([[True, False]])).exp()
    loss = clipped_surrogate(ratio, torch.tensor([[2.0]]), 0.2, 0.28) + k3_divergence(ratio.log())
    assert torch.equal(ratio.detach(), torch.ones(1, 2))
    loss.sum().backward()
    assert logps.grad.tolist() == [[-2.0, 0.0]]


@pytest.mark.parametrize("outside", [-math.inf, math.nan])
def test_a_log_probability_of_the_policy_outside_the_mask_gets_gradient_zero(outside: float) -> None:
    logps = torch.tensor([[-1.0, outside]], requires_grad=True)
    masked_log_ratio(logps, torch.zeros(1, 2), torch.tensor([[True, False]])).exp().sum().backward()
    assert logps.grad[0, 1] == 0
    assert logps.grad[0, 0].item() == pytest.approx(math.exp(-1))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 1.0, -1.1, -1.0),
        (1.35, 1.0, -1.28, 0.0),  # clipped above
        (0.5, 1.0, -0.5, -1.0),  # a good token made rarer: not clipped
        (0.7, -1.0, 0.8, 0.0),  # clipped below
        (1.4, -1.0, 1.4, 1.0),  # a bad token made likelier: not clipped
        (1.0, 2.0, -2.0, -2.0),  # both branches are equal: the gradient is that of either
        (3.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_surrogate_clips_only_where_the_ratio_has_already_gone_the_right_way(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    rho = torch.tensor([[ratio]], requires_grad=True)
    result = clipped_surrogate(rho, torch.tensor([[advantage]]), 0.2, 0.28)
    result.sum().backward()
    assert result.item() == pytest.approx(loss)
    assert rho.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [(5.0, -1.0, 3.0, 0.0), (2.9, -1.0, 2.9, 1.0), (5.0, 1.0, -1.28, 0.0), (0.5, -1.0, 0.8, 0.0)],
)
def test_dual_clip_bounds_the_loss_of_a_negative_advantage(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    rho = torch.tensor([[ratio]], requires_grad=True)
    result = clipped_surrogate(rho, torch.tensor([[advantage]]), 0.2, 0.28, dual_clip=3.0)
    result.sum().backward()
    assert result.item() == pytest.approx(loss)
    assert rho.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize("delta", [None, 2.0])
def test_trl_computes_the_same_loss_and_gradient(delta: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(20, 30, generator=generator) * 0.8).exp()
    advantages = torch.randn(20, 1, generator=generator)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    clipped_surrogate(ours, advantages, 0.2, 0.28, delta).sum().backward()
    # trl.GRPOTrainer._compute_loss, loss_type "dapo"
    coef_2 = torch.clamp(theirs, 1 - 0.2, 1 + 0.28)
    coef_1 = theirs if delta is None else torch.clamp(theirs, max=delta)
    loss = -torch.min(coef_1 * advantages, coef_2 * advantages)
    loss.sum().backward()
    torch.testing.assert_close(clipped_surrogate(values, advantages, 0.2, 0.28, delta), loss.detach())
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_k3_by_hand_and_against_trls_expression() -> None:
    # current -1, reference -2: d = 1, exp(-1) + 1 - 1; and the other way round exp(1) - 2
    assert k3_divergence(torch.tensor([1.0, -1.0, 0.0])).tolist() == pytest.approx([math.exp(-1), math.e - 2, 0.0])
    logps, ref = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(k3_divergence(logps - ref), torch.exp(ref - logps) - (ref - logps) - 1)


def test_k3_is_never_negative_even_where_float32_rounds() -> None:
    small = torch.cat([torch.logspace(-8, -1, 5000), -torch.logspace(-8, -1, 5000)])
    assert (k3_divergence(small) >= 0).all()
    expected = torch.expm1(-small.double()) + small.double()
    torch.testing.assert_close(k3_divergence(small).double(), expected, atol=1e-8, rtol=1e-3)


def test_k3_averages_to_the_kl_divergence_under_samples_of_the_policy() -> None:
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    estimate = (policy * k3_divergence(policy.log() - reference.log())).sum()
    torch.testing.assert_close(estimate, (policy * (policy / reference).log()).sum())
