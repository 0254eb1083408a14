"""The clipped objective: its terms by hand and against TRL's formulas, and what it refuses."""

import math

import pytest
import torch

from rlvr.errors import UserError
from rlvr.objectives.clipped import Clipped

RATIO = torch.tensor([[1.1, 1.35, 1.0, 0.7], [0.7, 1.0, 0.9, 1.4]])
ADVANTAGES = torch.tensor([[1.0], [-1.0]])


def test_the_losses_of_the_worked_example() -> None:
    losses = Clipped(epsilon=0.2, epsilon_high=0.28).token_losses(RATIO, ADVANTAGES)
    torch.testing.assert_close(losses, torch.tensor([[-1.1, -1.28, -1.0, -0.7], [0.8, 1.0, 0.9, 1.4]]))


def test_without_epsilon_high_both_sides_clip_alike() -> None:
    losses = Clipped(epsilon=0.2).token_losses(RATIO, ADVANTAGES)
    torch.testing.assert_close(losses, torch.tensor([[-1.1, -1.2, -1.0, -0.7], [0.8, 1.0, 0.9, 1.4]]))
    high = Clipped(epsilon=0.2).measures(RATIO, ADVANTAGES)["clip_ratio/high_mean"]
    assert high.tolist() == [[False, True, False, False], [False] * 4]


def test_advantages_may_differ_from_token_to_token() -> None:
    advantages = torch.tensor([[1.0, -1.0, 2.0, 0.0], [0.0, 0.5, -2.0, 1.0]])
    expected = torch.tensor([[-1.1, 1.35, -2.0, 0.0], [0.0, -0.5, 1.8, -1.28]])
    torch.testing.assert_close(Clipped(epsilon=0.2, epsilon_high=0.28).token_losses(RATIO, advantages), expected)


def test_tokens_whose_gradient_a_bound_cuts_are_reported_on_the_side_that_cut() -> None:
    clipped = Clipped(epsilon=0.2, epsilon_high=0.28)
    ratio = RATIO.clone().requires_grad_()
    clipped.token_losses(ratio, ADVANTAGES).sum().backward()
    measures = clipped.measures(RATIO, ADVANTAGES)
    assert tuple(measures) == clipped.measured
    low, high, either = measures.values()
    assert torch.equal(either, low | high)
    assert low.tolist() == [[False] * 4, [True, False, False, False]]
    assert high.tolist() == [[False, True, False, False], [False] * 4]
    assert torch.equal(ratio.grad == 0, low | high)


def test_dual_clip_reaches_the_loss() -> None:
    losses = Clipped(dual_clip=3.0).token_losses(torch.tensor([[5.0]]), torch.tensor([[-2.0]]))
    assert losses.item() == 6.0


def test_the_ratio_is_one_without_gradient_outside_the_mask() -> None:
    logps = torch.tensor([[-1.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    ratio = Clipped().ratio(logps, torch.tensor([[-1.0 - math.log(2), -95.0]]), mask)
    torch.testing.assert_close(ratio, torch.tensor([[2.0, 1.0]]))
    ratio.sum().backward()
    torch.testing.assert_close(logps.grad, torch.tensor([[2.0, 0.0]]))


def test_the_kl_term_is_k3_times_the_ratio_as_in_trl() -> None:
    generator = torch.Generator().manual_seed(0)
    values, old, ref = -torch.rand(3, 4, 6, generator=generator)
    mask = torch.rand(4, 6, generator=generator) < 0.7
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    clipped = Clipped(beta=0.1)
    kl = clipped.kl(ours, ref, clipped.ratio(ours, old, mask), mask)
    kl.sum().backward()
    # trl.GRPOTrainer._compute_loss with use_bias_correction_kl
    expected = (torch.exp(ref - theirs) - (ref - theirs) - 1) * torch.exp(theirs - old)
    (expected * mask).sum().backward()
    torch.testing.assert_close(kl, expected.detach() * mask)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_kl_term_ignores_a_reference_far_away_outside_the_mask() -> None:
    logps = torch.tensor([[-1.0, 0.0]], requires_grad=True)
    mask, far = torch.tensor([[True, False]]), torch.tensor([[-1.0, -95.0]])
    clipped = Clipped(beta=0.1)
    kl = clipped.kl(logps, far, clipped.ratio(logps, far, mask), mask)
    kl.sum().backward()
    assert kl.tolist() == [[0.0, 0.0]]
    assert logps.grad.tolist() == [[0.0, 0.0]]


def test_the_weight_makes_the_kl_estimate_right_under_samples_of_an_older_policy() -> None:
    old = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    new = torch.tensor([[0.4, 0.2, 0.4]], dtype=torch.float64)
    ref = torch.tensor([[0.3, 0.3, 0.4]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    clipped = Clipped(beta=0.1)
    estimate = (old * clipped.kl(new.log(), ref.log(), clipped.ratio(new.log(), old.log(), mask), mask)).sum()
    torch.testing.assert_close(estimate, (new * (new / ref).log()).sum())


@pytest.mark.parametrize("kl_tokens", ["all", "kept"])
def test_a_row_without_advantage_has_a_gradient_exactly_when_there_is_a_kl_term(kl_tokens: str) -> None:
    logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for beta in (0.0, 0.04):
        clipped = Clipped(beta=beta, kl_tokens=kl_tokens)
        ratio = clipped.ratio(logps, torch.tensor([[-1.5, -2.5]]), mask)
        loss = clipped.token_losses(ratio, torch.zeros(1, 1)) + beta * clipped.kl(
            logps, logps.detach() - 1, ratio, mask
        )
        (gradient,) = torch.autograd.grad(loss.sum(), logps)
        assert clipped.reaches_every_row == bool((gradient != 0).any()) == (beta > 0)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            {"epsilon": 0.0},
            "objective.epsilon is 0.0 .*expected 0 < epsilon < 1 and epsilon_high > 0, e.g. 0.2 and 0.28",
        ),
        ({"epsilon": 1.0}, "objective.epsilon is 1.0"),
        ({"epsilon": math.nan}, "objective.epsilon is nan"),
        ({"epsilon_high": -0.1}, "objective.epsilon_high -0.1; expected"),
        ({"dual_clip": 1.0}, "objective.dual_clip is 1.0; expected a number above 1, or null for off"),
        ({"beta": -0.1}, "objective.beta is -0.1; expected 0 or a positive KL weight"),
        ({"beta": math.nan}, "objective.beta is nan"),
        ({"kl_tokens": "some"}, "objective.kl_tokens is 'some'; expected all or kept"),
        ({"reduction": "mean"}, "objective.reduction is 'mean'; expected one of token_mean, token_mean_rollout"),
        ({"reduction": "bnpo"}, "bnpo depends on how rows are sharded and is not offered"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_with_what_was_expected(numbers: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Clipped(**numbers)
