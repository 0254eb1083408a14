"""Adaptive temperature: by hand, against a root finder, at its bounds, row by row."""

import math
from typing import Any

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from rlvr.config.convert import build_variant
from rlvr.decoding.adaptive_temperature import AdaptiveTemperature, adaptive_temperature
from rlvr.errors import UserError

Z = torch.tensor([[2.0, 1.0, 0.0]])


def entropy(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits.double()).entropy()


def draws(rows: int, words: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, words, generator=generator) * torch.rand(rows, 1, generator=generator) * 6


def test_by_hand() -> None:
    """H = .8324, half of it is .4162, and softmax((2, 1, 0) / .4807) has that."""
    found = adaptive_temperature(Z, alpha=0.5, delta=0.3)
    assert float(found) == pytest.approx(0.4807, abs=5e-5)
    assert float(entropy(Z / found)) == pytest.approx(0.4162, abs=5e-5)
    # delta above the share: .5 nats may stay.
    assert float(entropy(Z / adaptive_temperature(Z, alpha=0.5, delta=0.5))) == pytest.approx(0.5, abs=1e-5)


def test_a_root_finder_agrees() -> None:
    logits = draws(100, 40).double()
    found = adaptive_temperature(logits, alpha=0.6, delta=0.2)
    assert found.dtype == torch.float64
    cooled = 0
    for row, temperature in zip(logits, found.tolist(), strict=True):
        target = max(0.6 * float(entropy(row)), 0.2)
        if float(entropy(row)) <= target:
            assert temperature == 1
            continue
        if float(entropy(row / 0.01)) > target:  # so flat that the lowest temperature is too high
            assert temperature == 0.01
            continue
        cooled += 1
        root = brentq(lambda t, row=row, target=target: float(entropy(row / t)) - target, 0.01, 1.0, xtol=1e-12)
        assert temperature == pytest.approx(root, abs=2e-9)
    assert 10 < cooled < 100


def test_no_more_entropy_stays_than_allowed_and_the_order_is_kept() -> None:
    logits = draws(300, 50, seed=1)
    found = adaptive_temperature(logits, alpha=0.4, delta=0.1)
    coldest = found == torch.tensor(0.01)
    assert int(coldest.sum()) < 10
    enough = entropy(logits / found[:, None]) <= (0.4 * entropy(logits)).clamp(min=0.1) + 1e-5
    assert bool((enough | coldest).all())
    changed = AdaptiveTemperature(alpha=0.4, delta=0.1)(logits)
    assert torch.equal(changed.argsort(dim=1, stable=True), logits.argsort(dim=1, stable=True))


def test_less_may_stay_with_a_smaller_share() -> None:
    logits = draws(100, 50, seed=2)
    found = torch.stack([adaptive_temperature(logits, alpha=alpha, delta=0.1) for alpha in (0.1, 0.3, 0.6, 0.9, 1.0)])
    assert bool((found.diff(dim=0) >= 0).all())
    assert torch.equal(found[-1], torch.ones(100))


def test_a_row_that_is_decided_enough_keeps_temperature_one() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 0.0]])  # .0012 and .69 nats
    assert adaptive_temperature(logits, alpha=0.1, delta=0.5).tolist()[0] == 1
    assert torch.equal(AdaptiveTemperature(delta=0.7)(logits), logits)
    assert adaptive_temperature(logits, 0.1, 0.5, highest=0.8)[0] == 1


def test_bounds() -> None:
    tied = torch.tensor([[3.0, 3.0, 0.0]])  # ln 2 stays at any temperature
    assert float(adaptive_temperature(tied, alpha=0.1, delta=0.0)) == pytest.approx(0.01)
    assert float(adaptive_temperature(tied, alpha=0.1, delta=0.0, lowest=0.2)) == pytest.approx(0.2)
    assert float(adaptive_temperature(Z, alpha=0.9, highest=0.3)) == pytest.approx(0.3)


def test_a_tolerance_stops_early_at_a_temperature_tried() -> None:
    """The first middle of .01 and 1 is .505, with .4483 nats: within .1 of .4162."""
    assert float(adaptive_temperature(Z, alpha=0.5, delta=0.3, tolerance=0.1)) == pytest.approx(0.505)


@pytest.mark.parametrize("words", [30, 1001, 151_936])
def test_a_batch_is_its_rows_bit_for_bit_and_the_logits_stay(words: int) -> None:
    logits = draws(4, words)
    logits[1], logits[2, 1:] = 0.0, -torch.inf
    copy, rule = logits.clone(), AdaptiveTemperature()
    together = rule(logits)
    assert torch.equal(logits, copy)
    assert torch.equal(torch.cat([rule(row[None]) for row in logits]), together)
    assert together.dtype == torch.float32


def test_a_token_that_cannot_come_stays_impossible() -> None:
    changed = AdaptiveTemperature(alpha=0.5)(torch.tensor([[1.0, 0.0, -torch.inf]]))
    assert changed[0, 2] == -math.inf
    assert changed[0, :2].isfinite().all()


def test_empty_batches_and_dtypes() -> None:
    logits = draws(5, 30).bfloat16()
    assert adaptive_temperature(logits[:0]).shape == (0,)
    assert torch.equal(adaptive_temperature(logits), adaptive_temperature(logits.float()))
    assert AdaptiveTemperature()(logits).dtype == torch.bfloat16


@pytest.mark.parametrize("values", [{"alpha": -0.1}, {"delta": math.nan}, {"lowest": 0.0}, {"tolerance": -1.0}])
def test_numbers_that_are_none(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"decoding.{next(iter(values))} is .*; expected"):
        AdaptiveTemperature(**values)
    with pytest.raises(ValueError, match=r"lowest is 0\.5 and highest 0\.4; expected"):
        adaptive_temperature(Z, lowest=0.5, highest=0.4)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits are \(3,\); expected \(B, V\)"):
        adaptive_temperature(Z[0])


def test_the_defaults_are_the_released_scripts() -> None:
    rule = build_variant("decoding", {"name": "adaptive_temperature"})
    assert (rule.alpha, rule.delta, rule.lowest, rule.highest) == (0.85, 1e-5, 0.01, 1.0)
