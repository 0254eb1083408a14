"""Means over seeds and paired differences: numbers by hand, and scipy."""

from math import atan, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlvr.sweep.statistics import PairedOverSeeds, adjusted, over_seeds, paired_over_seeds, t_p_value


def paired(a: list[float], b: list[float]) -> PairedOverSeeds:
    found = paired_over_seeds(dict(enumerate(a)), dict(enumerate(b)))
    assert found is not None
    return found


def test_an_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.30265, half = 4.30265 / sqrt(3) = 2.48414.
    found = over_seeds([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.48414, 4.48414), abs=1e-5)
    assert over_seeds([0.9, 1.0], bounds=(0, 1)).high == 1.0
    assert over_seeds([0.7]) == over_seeds([0.7], bounds=(0, 1))
    assert over_seeds([0.7]).low is None
    with pytest.raises(ValueError, match="no values"):
        over_seeds([])


def test_a_paired_t_test_by_hand() -> None:
    # Differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641; with 2 degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2)
    # = 1 - 3.4641 / sqrt(14) = 0.0742. All three have one sign: 2 of 8 sign patterns are as far, 0.25.
    found = paired([2, 4, 6], [1, 2, 3])
    assert found.p_value == pytest.approx(1 - sqrt(12) / sqrt(14), rel=1e-10)
    assert (found.sign_flip_p, found.least_sign_flip_p) == (0.25, 0.25)
    assert found.difference == over_seeds([1.0, 2.0, 3.0])
    # Two seeds: one degree of freedom, Cauchy: differences 1, 3, t = 2 / 1.
    assert paired([1, 3], [0, 0]).p_value == pytest.approx(1 - 2 / pi * atan(2), rel=1e-10)


def test_five_seeds_cannot_reach_significance_by_sign_flips() -> None:
    found = paired([10, 20, 30, 40, 50], [0, 0, 0, 0, 0])
    assert found.sign_flip_p == found.least_sign_flip_p == 0.0625
    assert found.p_value is not None
    assert found.p_value < 0.05


def test_only_seeds_that_both_have_are_paired() -> None:
    found = paired_over_seeds({0: 1.0, 1: 2.0, 5: 9.0}, {0: 0.5, 1: 1.0, 7: 3.0})
    assert found is not None
    assert found.difference == over_seeds([0.5, 1.0])
    assert paired_over_seeds({0: 1.0}, {1: 1.0}) is None


def test_differences_without_spread() -> None:
    same = paired([0.5, 0.7], [0.5, 0.7])
    assert (same.p_value, same.sign_flip_p, same.difference.low, same.difference.high) == (1.0, 1.0, 0.0, 0.0)
    assert paired([0.1 + 0.2, 0.5], [0.3, 0.5]).p_value == 1.0, "rounding is no difference"
    assert paired([0.6, 0.8], [0.5, 0.7]).p_value is None
    assert paired([0.6], [0.5]).p_value is None


@given(st.lists(st.tuples(st.integers(0, 512), st.integers(0, 512)), min_size=2, max_size=8))
def test_it_is_scipys_paired_test(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side) / 512 for side in zip(*pairs, strict=True))
    found = paired(a.tolist(), b.tolist())
    if len(set((np.array(pairs)[:, 0] - np.array(pairs)[:, 1]).tolist())) == 1:
        return
    expected = stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (interval.low, interval.high), rel=1e-5, abs=1e-9
    )
    flips = stats.permutation_test((a - b,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert found.sign_flip_p == pytest.approx(flips.pvalue, abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 4, 9, 60])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, -2.5, 20.0, 1e4])
def test_tails_are_scipys(t: float, df: int) -> None:
    assert t_p_value(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8)


def test_holm_by_hand_and_a_missing_p_value_counts() -> None:
    def with_p(p: float | None) -> PairedOverSeeds:
        return PairedOverSeeds(over_seeds([0.0, 0.0]), p, None, 1.0, 0.5)

    # Three tests: 0.01 * 3, then 0.04 * 2, and the one without a p-value stands last with 1.
    found = adjusted({"a": with_p(0.04), "b": with_p(0.01), "c": with_p(None)})
    assert {name: one.adjusted for name, one in found.items()} == {"a": 0.08, "b": 0.03, "c": None}
    assert adjusted({}) == {}
