"""Outcome distributions, drift, hazard and survival: numbers that can be redone on paper, and what always holds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.analysis.forking.outcomes import (
    OTHER,
    branch_distances,
    branch_weights,
    drift,
    effective_samples,
    expected_distance,
    fold_rare,
    hazard,
    histogram,
    mixture,
    survival,
    total_variation,
)

PATH = np.array([[0.6, 0.4], [0.6, 0.4], [0.58, 0.42], [0.1, 0.9], [0.05, 0.95]])


def test_drift_of_the_worked_example() -> None:
    """y_2 = sqrt(.02^2 + .02^2), y_3 = sqrt(2) * .5, y_4 = sqrt(2) * .55."""
    expected = [0, 0, 0.02 * math.sqrt(2), 0.5 * math.sqrt(2), 0.55 * math.sqrt(2)]
    np.testing.assert_allclose(drift(PATH, PATH[0]), expected, atol=1e-12)
    np.testing.assert_allclose(drift(PATH, PATH[0]), [0, 0, 0.0283, 0.7071, 0.7778], atol=5e-5)
    np.testing.assert_allclose(np.linalg.norm(np.diff(PATH, axis=0), axis=1), [0, 0.028, 0.679, 0.071], atol=5e-4)


def test_total_variation_of_the_worked_example() -> None:
    """With two categories it is the change of either share."""
    np.testing.assert_allclose(total_variation(PATH), [0, 0, 0.02, 0.48, 0.05], atol=1e-12)


def test_survival_of_the_worked_example() -> None:
    """1, .9, .9 * .95, .855 * .7, and a hazard of 0 changes nothing."""
    np.testing.assert_allclose(survival(np.array([0, 0.1, 0.05, 0.3, 0])), [1, 0.9, 0.855, 0.5985, 0.5985])


def test_hazard_by_hand() -> None:
    """Distances to the base token's (1, 0): 0, sqrt(2) * .1, sqrt(2). Only the last is 0.6 or more."""
    weights, histograms = np.array([0.7, 0.2, 0.1]), np.array([[1, 0], [0.9, 0.1], [0, 1]])
    np.testing.assert_allclose(branch_distances(histograms), [0, 0.1 * math.sqrt(2), math.sqrt(2)])
    assert hazard(weights, histograms, 0.6) == pytest.approx(0.1)
    assert hazard(weights, histograms, 0.14) == pytest.approx(0.3)
    assert hazard(weights, histograms, 1.5) == 0
    assert expected_distance(weights, histograms) == pytest.approx((0.2 * 0.1 + 0.1) * math.sqrt(2))
    np.testing.assert_allclose(mixture(weights, histograms), [0.88, 0.12])


def test_a_distance_of_exactly_epsilon_leads_elsewhere() -> None:
    assert hazard(np.array([0.5, 0.5]), np.array([[1.0, 0, 0], [0.5, 0.5, 0]]), math.sqrt(0.5)) == 0.5


def test_where_only_the_base_token_is_a_branch_nothing_is_at_stake() -> None:
    weights, histograms = branch_weights([0.3]), np.array([[0.2, 0.8]])
    assert weights.tolist() == [1.0]
    assert hazard(weights, histograms, 0.6) == 0
    assert expected_distance(weights, histograms) == 0


def test_weights_are_scaled_and_a_sum_of_zero_is_the_base_tokens() -> None:
    np.testing.assert_allclose(branch_weights([0.1, 0.3, 0.4]), [0.125, 0.375, 0.5])
    assert branch_weights([0.0, 0.0]).tolist() == [1.0, 0.0]


def test_histogram_by_hand() -> None:
    assert histogram(["12", "9", "12", "7"], ["12", OTHER]).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="'9' is none of the categories"):
        histogram(["12", "9"], ["12"])
    with pytest.raises(ValueError, match="no outcomes"):
        histogram([], ["12"])


def test_rare_outcomes_are_folded() -> None:
    """A share of exactly .1 is rare; the seventh of those above is one too many."""
    assert fold_rare({"a": 0.3, "b": 0.1, "c": 0.9}) == ["c", "a", OTHER]
    assert fold_rare({"a": 0.3, "c": 0.9}) == ["c", "a"]
    many = {name: 0.2 + index / 100 for index, name in enumerate("abcdefg")}
    assert fold_rare(many) == ["g", "f", "e", "d", "c", "b", OTHER]
    assert fold_rare(dict.fromkeys("abc", 0.05)) == [OTHER]


def test_effective_samples_by_hand() -> None:
    """One branch of 30 is worth 30. Two alike: 1 / (2 * .25 / 30) = 60. (.9, .1): 1 / ((.81 + .01) / 30) = 36.6."""
    assert effective_samples(np.array([1.0]), np.array([30])) == pytest.approx(30)
    assert effective_samples(np.array([0.5, 0.5]), np.array([30, 30])) == pytest.approx(60)
    assert effective_samples(np.array([0.9, 0.1]), np.array([30, 30])) == pytest.approx(30 / 0.82)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_what_always_holds(positions: int, branches: int, categories: int, seed: int) -> None:
    """Distributions sum to 1; survival falls within [0, 1]; hazards are chances; TV is within [0, 1]."""
    rng = np.random.default_rng(seed)
    weights = [branch_weights(rng.random(branches)) for _ in range(positions)]
    tables = [rng.dirichlet(np.ones(categories), branches) for _ in range(positions)]
    path = np.stack([mixture(*pair) for pair in zip(weights, tables, strict=True)])
    np.testing.assert_allclose(path.sum(axis=1), 1)
    hazards = np.array([hazard(*pair, 0.6) for pair in zip(weights, tables, strict=True)])
    assert ((hazards >= 0) & (hazards <= 1 + 1e-12)).all()
    alive = survival(np.minimum(hazards, 1))
    assert (np.diff(alive) <= 0).all()
    assert alive[-1] >= 0
    steps = total_variation(path)
    assert steps.shape == (positions,)
    assert ((steps >= 0) & (steps <= 1 + 1e-12)).all()
