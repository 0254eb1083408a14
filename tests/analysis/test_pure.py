"""Distribution, tokens, overlap and drift, on numbers that one can redo on paper."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rlvr.analysis.entropy import TRACES, distribution, percentile_trace
from rlvr.analysis.shift import clustered_error, drift, overlaps, top_positions
from rlvr.analysis.vocabulary import TokenTally


def test_a_distribution_by_hand() -> None:
    # 0, 1, ... 10: the 80th percentile is the value at place 0.8 * 10; 25 lies between 2 and 3.
    found = distribution(np.arange(11, dtype=np.float32), percentiles=(25, 80, 100), bins=5, certain=1.0)
    assert (found.count, found.mean) == (11, 5.0)
    assert found.certain == pytest.approx(1 / 11)  # 1.0 itself is not below 1
    assert found.percentiles == {25: 2.5, 80: 8.0, 100: 10.0}
    assert found.edges.tolist() == [0, 2, 4, 6, 8, 10]
    assert found.counts.tolist() == [2, 2, 2, 2, 3]


def test_a_distribution_of_one_value() -> None:
    found = distribution(np.zeros(3, dtype=np.float32), bins=2)
    assert found.counts.tolist() == [3, 0]
    assert found.certain == 1.0
    assert set(found.percentiles.values()) == {0.0}
    with pytest.raises(ValueError, match="there is no entropy"):
        distribution(np.zeros(0))


def test_every_token_is_in_the_histogram() -> None:
    values = np.random.default_rng(0).exponential(0.3, 10_000).astype(np.float32)
    found = distribution(values)
    assert found.counts.sum() == 10_000
    ordered = np.sort(values.astype(np.float64))
    place = Fraction(80, 100) * 9_999
    low = int(place)
    by_hand = ordered[low] + float(place - low) * (ordered[low + 1] - ordered[low])
    assert found.percentiles[80] == pytest.approx(by_hand, abs=1e-6)


def test_traces_are_the_percentiles_of_five_per_cent() -> None:
    np.testing.assert_allclose(percentile_trace(np.arange(101, dtype=np.float32)), range(0, 101, 5))
    assert len(TRACES) == 21


def test_tokens_by_hand() -> None:
    tally = TokenTally()
    tally.add(np.array([3, 3, 5]), np.array([1.0, 2.0, 4.0]), np.array([True, False, True]))
    tally.add(np.array([], dtype=np.int32), np.array([]), np.array([], dtype=bool))
    tally.add(
        np.array([9, 5, 3, 9, 0]), np.array([0.5, 0.0, 3.0, 0.5, 9.0]), np.array([False, True, False, False, True])
    )
    # 3: (1 + 2 + 3) / 3, 5: (4 + 0) / 2, 9: 0.5, and 0 stands there once.
    table = tally.table(minimum=2)
    assert table.ids.tolist() == [3, 5, 9]  # of equal means the smaller id first
    assert table.counts.tolist() == [3, 2, 2]
    assert table.means.tolist() == [2.0, 2.0, 0.5]
    np.testing.assert_allclose(table.kept, [1 / 3, 1.0, 0.0])
    assert tally.table(minimum=1).ids.tolist() == [0, 3, 5, 9]
    assert tally.table(minimum=4).ids.tolist() == []


@settings(max_examples=30)
@given(arrays.arrays(np.int32, st.integers(1, 40), elements=st.integers(0, 6)), st.integers(1, 39))
def test_a_tally_does_not_depend_on_how_tokens_are_dealt(ids: np.ndarray, cut: int) -> None:
    entropies, kept = ids * 0.25 + 0.5, ids % 2 == 0
    whole, parts = TokenTally(), TokenTally()
    whole.add(ids, entropies, kept)
    for part in (slice(cut), slice(cut, None)):
        parts.add(ids[part], entropies[part], kept[part])
    one, other = whole.table(1), parts.table(1)
    for name in ("ids", "counts", "means", "kept"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_overlap_by_hand() -> None:
    # Top 40 % of five tokens are two: {1, 3}, {1, 4}, {0, 2}.
    a, b, c = [0, 5, 1, 4, 2], [0, 5, 1, 2, 4], [5, 0, 4, 1, 2]
    found = overlaps([np.array(values, dtype=np.float32) for values in (a, b, c)], keep=0.4)
    assert found.tolist() == [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]


def test_of_equal_entropies_the_first_are_taken_as_in_training() -> None:
    values = np.array([0.5, 0.0, 0.5, 0.5, 0.0], dtype=np.float32)
    assert top_positions(values, 0.4).tolist() == [True, False, True, False, False]
    assert top_positions(np.zeros(7), 0.2).tolist() == [True, True] + [False] * 5  # ceil(1.4)


@settings(max_examples=30)
@given(arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 4, width=32)))
def test_a_policy_overlaps_with_itself_and_with_any_monotone_change(values: np.ndarray) -> None:
    doubled = values * 2  # exact in binary, so ties stay ties
    np.testing.assert_array_equal(overlaps([values, values, doubled]), np.ones((3, 3)))


def test_overlap_of_strangers_is_chance() -> None:
    random = np.random.default_rng(0)
    found = overlaps([random.random(50_000) for _ in range(2)])
    assert found[0, 1] == pytest.approx(0.2, abs=0.01)
    assert found[0, 1] == found[1, 0]


def test_bins_by_hand() -> None:
    # Forty tokens in twenty bins of two. Before: 39, 38, ... 0; after: one more for each token at or above 20.
    before = np.arange(39, -1, -1, dtype=np.float32)
    after = before + (before >= 20)
    found = drift(before, after, np.arange(40))
    assert found.counts.tolist() == [2] * 20
    assert found.low.tolist() == list(range(0, 40, 2))
    assert found.high.tolist() == list(range(1, 40, 2))
    assert found.means.tolist() == [0.0] * 10 + [1.0] * 10
    assert found.errors.tolist() == [0.0] * 20


def test_bins_that_do_not_come_out_even_differ_by_one() -> None:
    found = drift(np.arange(7.0), np.zeros(7), np.arange(7), bins=3)
    assert found.counts.tolist() == [3, 2, 2]
    assert found.means.tolist() == [-1.0, -3.5, -5.5]
    with pytest.raises(ValueError, match="2 tokens for 3 bins"):
        drift(np.zeros(2), np.zeros(2), np.zeros(2), bins=3)
    with pytest.raises(ValueError, match=r"expected \(N,\) of each"):
        drift(np.zeros(4), np.zeros(3), np.zeros(4), bins=2)


def test_a_clustered_error_by_hand() -> None:
    # Two problems: 1, 3 and 5. Mean 3; residual sums (4 - 3 * 2) = -2 and (5 - 3) = 2; sqrt(2 / 1 * 8) / 3 = 4 / 3.
    assert clustered_error(np.array([1.0, 3.0, 5.0]), np.array(["a", "a", "b"])) == pytest.approx(4 / 3)
    values = np.array([1.0, 2.0, 4.0, 9.0])
    assert clustered_error(values, np.arange(4)) == pytest.approx(values.std(ddof=1) / 2)
    assert np.isnan(clustered_error(values, np.zeros(4)))


def test_a_clustered_error_is_the_spread_of_means() -> None:
    """Tokens of a problem that move together: the error that takes them for independent is far too small."""
    random = np.random.default_rng(1)
    means, errors = [], []
    problems = np.repeat(np.arange(50), 20)
    for _ in range(400):
        values = random.normal(size=50)[problems] + 0.1 * random.normal(size=1000)
        means.append(values.mean())
        errors.append(clustered_error(values, problems))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
    assert np.mean(errors) > 3 * values.std() / np.sqrt(1000)
