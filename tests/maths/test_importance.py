"""Sampler weights: by hand, and against TRL's own lines."""

import math

import pytest
import torch

from rlvr.maths.importance import MODES, sampler_weights

NAN = float("nan")


def trl_weights(
    old: torch.Tensor, sampling: torch.Tensor, mask: torch.Tensor, mode: str, low: float | None, high: float | None
) -> torch.Tensor:
    """The lines of TRL 1.16's `_generate_and_score_completions`, written out."""
    diff = torch.nan_to_num((old - sampling) * mask, nan=0.0)
    if mode.startswith("sequence"):
        diff = diff.sum(dim=-1, keepdim=True)
    ratio = torch.exp(diff)
    if mode.endswith("truncate"):
        return torch.clamp(ratio, min=low, max=high)
    low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


def test_token_and_sequence_ratios_by_hand() -> None:
    logps = torch.log(torch.tensor([[0.5, 0.2, 0.9]]))
    sampling = torch.log(torch.tensor([[0.25, 0.4, 0.9]]))
    mask = torch.tensor([[True, True, False]])
    token = sampler_weights(logps, sampling, mask, "token_truncate", None, 1.5)
    torch.testing.assert_close(token, torch.tensor([[1.5, 0.5, 0.0]]))
    torch.testing.assert_close(
        sampler_weights(logps, sampling, mask, "token_mask", 0.8, 3.0), torch.tensor([[2.0, 0.0, 0.0]])
    )
    torch.testing.assert_close(sampler_weights(logps, sampling, mask, "sequence_mask"), torch.tensor([[1.0, 1.0, 0.0]]))
    assert sampler_weights(logps[:, :1], sampling[:, :1], mask[:, :1], "sequence_mask", None, 1.9).item() == 0


def test_a_token_the_sampler_could_not_score_counts_as_ratio_one() -> None:
    logps = torch.log(torch.tensor([[0.5, 0.2]]))
    sampling = torch.tensor([[math.log(0.25), NAN]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(sampler_weights(logps, sampling, mask, "token_mask"), torch.tensor([[2.0, 1.0]]))
    torch.testing.assert_close(sampler_weights(logps, sampling, mask, "sequence_mask"), torch.tensor([[2.0, 2.0]]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bounds", [(None, 3.0), (0.5, 2.0), (0.8, None)])
def test_every_mode_equals_trl(mode: str, bounds: tuple[float | None, float | None]) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(16, 12, generator=generator) < 0.8
    old = -torch.rand(16, 12, generator=generator)
    sampling = old + 0.3 * torch.randn(16, 12, generator=generator)
    sampling[2, 3] = NAN
    expected = trl_weights(old, sampling, mask.long(), mode, *bounds).expand(16, 12) * mask
    torch.testing.assert_close(sampler_weights(old, sampling, mask, mode, *bounds), expected)


def test_padding_changes_no_weight_whatever_stands_there() -> None:
    logps, sampling = torch.full((1, 3), -1.0), torch.tensor([[-1.1, -95.0, NAN]])
    mask = torch.tensor([[True, False, False]])
    for mode in MODES:
        weights = sampler_weights(logps, sampling, mask, mode)
        torch.testing.assert_close(weights, torch.tensor([[math.exp(0.1), 0.0, 0.0]]))


@pytest.mark.parametrize("mode", MODES)
def test_a_ratio_that_overflows_is_out_of_bounds_and_no_nan(mode: str) -> None:
    """exp(94.9) is above the largest float32; row 1 has ratios of exp(0.1)."""
    logps, sampling = torch.full((2, 2), -0.1), torch.tensor([[-95.0, -0.1], [-0.2, -0.2]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    weights = sampler_weights(logps, sampling, mask, mode)
    torch.testing.assert_close(weights, trl_weights(logps, sampling, mask.long(), mode, None, 3.0).expand(2, 2))
    edge = 3.0 if mode.endswith("truncate") else 0.0
    assert weights[0].tolist() == [edge, edge if mode.startswith("sequence") else 1.0]


def test_a_masked_row_leaves_a_finite_gradient_beside_a_kl_term() -> None:
    # Row 1 is masked away: sampled at -40 a token, scored at -0.5. Only its KL term reaches it.
    from rlvr.objectives.clipped import Clipped
    from rlvr.trainer.batch import Ranks, Slice
    from rlvr.trainer.forward import Tokens
    from rlvr.trainer.loss import slice_loss

    mask, ids = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.int64)
    logps = torch.full((2, 3), -0.5, requires_grad=True)
    weights = sampler_weights(logps.detach(), torch.tensor([[-0.5] * 3, [-40.0] * 3]), mask)
    kept, rows = mask & (weights > 0), torch.full((2,), 3)
    part = Slice(
        Tokens(ids[:, :1], ids[:, :1] + 1, ids, mask.long()), False, torch.arange(2), mask, kept, mask,
        torch.tensor([[1.0], [-1.0]]), None, torch.full((2, 3), -0.6), weights, rows, rows, 3.0, 6.0,
    )  # fmt: skip
    loss, _ = slice_loss(part, logps, None, Clipped(beta=0.001), Ranks())
    loss.backward()
    assert loss.isfinite()
    assert kept.tolist() == [[True] * 3, [False] * 3]
    # Of 0.001 / 6 * (exp(-d) + d - 1) * ratio at d = 0.1 and ratio 1: (1 - exp(-d)) + (exp(-d) + d - 1) = d.
    torch.testing.assert_close(logps.grad[1], torch.full((3,), 0.001 / 6 * 0.1))


def test_wrong_settings_are_refused() -> None:
    values = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="expected one of"):
        sampler_weights(values, values, values.bool(), "row_mask")
    with pytest.raises(ValueError, match="give at least one"):
        sampler_weights(values, values, values.bool(), "token_truncate", None, None)
