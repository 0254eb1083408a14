"""Choosing the best of many checkpoints: how much the choice flatters."""

import numpy as np
import pytest

from rlvr.evaluation.selection_bias import honest_best


def test_on_paper() -> None:
    # Two problems, one right for each candidate: whichever wins on one problem fails on the other.
    found = honest_best(np.array([[1.0, 0.0], [0.0, 1.0]]), splits=20)
    assert (found.best, found.naive_mean, found.honest_mean, found.flattery) == (0, 0.5, 0.0, 0.5)


def test_one_candidate_is_not_flattered() -> None:
    values = np.random.default_rng(0).binomial(4, 0.5, (1, 40)) / 4
    found = honest_best(values, splits=50)
    # Both halves of a split have 20 problems, so their means average to the whole.
    assert found.honest_mean == pytest.approx(found.naive_mean)


def test_a_clear_winner_is_not_flattered() -> None:
    values = np.random.default_rng(0).binomial(4, [[0.2], [0.9], [0.3]], (3, 60)) / 4
    found = honest_best(values, splits=50)
    assert found.best == 1
    assert found.honest_mean == pytest.approx(found.naive_mean)


def test_identical_noise_is_flattered_by_the_maximum_only() -> None:
    found = []
    for seed in range(150):
        p = np.full(40, 0.5)
        found.append(honest_best(np.random.default_rng(seed).binomial(1, p, (20, 40)), splits=40, seed=seed))
    honest, naive = np.mean([f.honest_mean for f in found]), np.mean([f.naive_mean for f in found])
    # The expected maximum of 20 means with standard deviation .079 is 1.87 of them above .5.
    assert naive == pytest.approx(0.5 + 1.87 * 0.079, abs=0.02)
    assert honest == pytest.approx(0.5, abs=0.015)


def test_halves_are_halves_of_every_stratum() -> None:
    # The candidates differ in one stratum only, so the share of it in a half would move the scores.
    strata = np.repeat([0, 1], [10, 10])
    values = np.stack([np.repeat([1.0, 0.0], 10), np.repeat([0.9, 0.0], 10)])
    found = honest_best(values, strata=strata, splits=200)
    assert found.honest_mean == pytest.approx(0.5)
    assert found.best == 0


def test_odd_strata_of_one_keep_both_halves_filled() -> None:
    values = np.arange(6.0).reshape(2, 3) / 6
    found = honest_best(values, strata=np.array([0, 1, 2]), splits=30)
    assert found.best == 1
    assert 3 / 6 <= found.honest_mean <= 5 / 6


def test_seeds_repeat() -> None:
    values = np.random.default_rng(0).binomial(4, 0.5, (5, 31)) / 4
    assert honest_best(values, seed=1, splits=50) == honest_best(values, seed=1, splits=50)
    assert honest_best(values, seed=1, splits=50) != honest_best(values, seed=2, splits=50)


@pytest.mark.parametrize(
    ("values", "splits", "message"),
    [
        (np.zeros(3), 10, r"expected \(C, N\)"),
        (np.zeros((2, 1)), 10, "two problems"),
        (np.full((2, 3), np.nan), 10, "6 values are not finite"),
        (np.zeros((2, 3)), 0, "at least 1"),
    ],
)
def test_refusals(values: np.ndarray, splits: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        honest_best(values, splits=splits)
