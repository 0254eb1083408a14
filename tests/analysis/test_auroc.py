"""The area under the ROC curve, with ties, and its interval over problems."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from rlvr.analysis.auroc import auroc, auroc_interval, auroc_within


def test_an_area_by_hand() -> None:
    # Positives 3, 1; negatives 2, 1, 0. Pairs won: 3 of 3 and 1 of 3; one tie counts half: 4.5 of 6.
    scores, positive = np.array([3, 1, 2, 1, 0]), np.array([1, 1, 0, 0, 0], dtype=bool)
    assert auroc(scores, positive) == 0.75
    assert auroc(-scores, positive) == 0.25
    assert auroc(np.zeros(5), positive) == 0.5
    assert auroc(np.array([9, 8, 1, 2, 3]), positive) == 1.0


def test_one_kind_alone_has_no_area() -> None:
    assert np.isnan(auroc(np.arange(3), np.ones(3, dtype=bool)))
    assert np.isnan(auroc(np.zeros(0), np.zeros(0, dtype=bool)))
    area = auroc_interval(np.arange(3), np.zeros(3, dtype=bool), np.arange(3))
    assert np.isnan([area.value, area.low, area.high]).all()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=50))
def test_the_area_is_that_of_mann_whitney_and_of_all_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    ups, downs = scores[positive], scores[~positive]
    if not ups.size or not downs.size:
        assert np.isnan(auroc(scores, positive))
        return
    pairs = [(up > down) + (up == down) / 2 for up in ups for down in downs]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
    statistic = mannwhitneyu(ups, downs, method="asymptotic").statistic
    assert auroc(scores, positive) == pytest.approx(statistic / (ups.size * downs.size))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="1 scores are not finite"):
        auroc(np.array([0.0, np.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"expected \(N,\) of both"):
        auroc(np.zeros(3), np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match="one label a row"):
        auroc_interval(np.zeros(2), np.array([True, False]), np.arange(3))


def test_the_interval_is_that_of_resampled_rows() -> None:
    """Against the plain way: copy the rows of the problems drawn, and compute the area of the copies."""
    random = np.random.default_rng(3)
    problems = np.repeat(np.arange(12), 4)
    positive = random.random(48) < 0.4
    scores = np.round(random.normal(size=48) + positive, 1)
    area = auroc_interval(scores, positive, problems, resamples=200, seed=5)
    draws = np.random.default_rng(5)
    plain = []
    for _ in range(200):
        rows = np.concatenate([np.flatnonzero(problems == one) for one in draws.integers(0, 12, 12)])
        plain.append(auroc(scores[rows], positive[rows]))
    assert (area.low, area.high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])))
    assert area.low < area.value == auroc(scores, positive) < area.high
    assert area == auroc_interval(scores, positive, problems, resamples=200, seed=5)


def test_copies_of_a_sample_add_no_certainty() -> None:
    """Eight equal samples a problem: resampling completions would make the interval a third as wide."""
    random = np.random.default_rng(0)
    positive = random.random(60) < 0.5
    scores = random.normal(size=60) + positive
    once = auroc_interval(scores, positive, np.arange(60))
    eight = auroc_interval(np.repeat(scores, 8), np.repeat(positive, 8), np.repeat(np.arange(60), 8))
    assert (eight.value, eight.low, eight.high) == pytest.approx((once.value, once.low, once.high))
    wrong = auroc_interval(np.repeat(scores, 8), np.repeat(positive, 8), np.arange(480))
    assert wrong.high - wrong.low < 0.5 * (once.high - once.low)


def test_resamples_without_a_kind_are_left_out() -> None:
    area = auroc_interval(np.array([0.0, 1.0, 2.0]), np.array([False, False, True]), np.arange(3))
    assert (area.value, area.low, area.high) == (1.0, 1.0, 1.0)
    alone = auroc_interval(np.array([0.0, 1.0]), np.array([False, True]), np.zeros(2))
    assert alone.value == 1.0
    assert np.isnan(alone.low)


@pytest.mark.slow
def test_the_interval_covers() -> None:
    """Forty problems of eight samples whose difficulty moves score and verdict: nominally 95 %."""
    random = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        hard = random.normal(size=count)
        positive = random.random((count, 8)) < 1 / (1 + np.exp(-1.5 * hard[:, None]))
        scores = hard[:, None] + random.normal(size=(count, 8))
        return scores.ravel(), positive.ravel(), np.repeat(np.arange(count), 8)

    truth = auroc(*draw(100_000)[:2])
    found = [auroc_interval(*draw(40), resamples=400) for _ in range(400)]
    covered = np.mean([area.low <= truth <= area.high for area in found])
    assert 0.91 < covered < 0.98


def test_pairs_within_a_draw_by_hand() -> None:
    # Draw a: 2 > 1 won, 2 < 3 lost. Draw b: a tie counts half. Draw c has one kind. 1.5 of 3.
    scores = np.array([2.0, 1, 3, 7, 7, 9])
    positive = np.array([1, 0, 0, 1, 0, 1], dtype=bool)
    draws = np.array(list("aaabbc"))
    assert auroc_within(scores, positive, draws, draws, resamples=100).value == 0.5
    assert auroc(scores, positive) == pytest.approx((1 + 2.5 + 3) / 9)


def test_what_tells_problems_apart_alone_says_nothing_within() -> None:
    random = np.random.default_rng(0)
    problems = np.repeat(np.arange(100), 8)
    hard = random.normal(size=100)[problems]
    positive = random.random(800) < 1 / (1 + np.exp(-2 * hard))
    area = auroc_within(hard, positive, problems, problems)
    assert np.isnan([area.value, area.low, area.high]).all()
    noisy = hard + random.normal(size=800)
    assert auroc_interval(noisy, positive, problems).low > 0.6
    area = auroc_within(noisy, positive, problems, problems)
    assert area.low < 0.5 < area.high
    told = auroc_within(hard + 0.5 * positive, positive, problems, problems)
    assert (told.value, told.low, told.high) == (1.0, 1.0, 1.0)
