"""Intervals over problems: numbers on paper, degenerate cases, invariants, and simulated coverage."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import betaln

from rlvr.evaluation.intervals import effective_problems, mean_interval, variance_of_mean, with_spread
from rlvr.evaluation.metrics import pass_at_k
from rlvr.evaluation.student import t_quantile
from scripts.interval_coverage import World, coverage, draw, ours, skewed, student, wilson, worlds


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("df", [1, 1.5, 2, 7.3, 29, 199, 5000])
def test_t_quantile_is_scipys(confidence: float, df: float) -> None:
    assert t_quantile(confidence, df) == pytest.approx(stats.t.ppf((1 + confidence) / 2, df), rel=2e-6)


def test_a_coin_a_problem_is_wilson() -> None:
    # 9 right of 36 problems: m = 1/4, s^2 = 3/16 * 36/35, so n_eff = 35. Right ones are carried by 9 problems, which
    # moves the ratio 36/35 (at most 1) nowhere: n_eff = 36.
    values = np.repeat([1.0, 0.0], [9, 27])
    q2 = stats.t.ppf(0.975, 35) ** 2
    centre, half = (9 + q2 / 2) / (36 + q2), sqrt(q2) / (36 + q2) * sqrt(9 * 27 / 36 + q2 / 4)
    found = mean_interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, centre - half, centre + half))


def test_n_eff_on_paper() -> None:
    # 50 problems at .4 and 50 at .6: s^2 = .01 * 100/99, m (1 - m) = .25, ratio .01 * 100/99 / .25 = 4/99.
    # e = (50)^2 / (50 * .16 + 50 * .36) = 2500 / 26; the correction is (1.5 * 26 / 2500)^2.
    values = np.repeat([0.4, 0.6], 50)
    part = (1.5 * 26 / 2500) ** 2
    n_eff = 100 / (4 / 99 + (1 - 4 / 99) * part)
    q2 = stats.t.ppf(0.975, 99) ** 2
    half = sqrt(q2) / (1 + q2 / n_eff) * sqrt(0.25 / n_eff + q2 / 4 / n_eff**2)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_nothing_right_leaves_what_n_coins_would() -> None:
    # Wilson at 0 of 30: high = t^2 / (30 + t^2).
    q2 = stats.t.ppf(0.975, 29) ** 2
    found = mean_interval(np.zeros(30))
    assert (found.low, found.high) == (0.0, pytest.approx(q2 / (30 + q2)))
    mirrored = mean_interval(np.ones(30))
    assert (mirrored.low, mirrored.high) == (pytest.approx(30 / (30 + q2)), 1.0)


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("problems", [1, 2, 30, 1000])
def test_equal_values_give_an_interval_with_room(value: float, problems: int) -> None:
    found = mean_interval(np.full(problems, value))
    assert 0 <= found.low <= value <= found.high <= 1
    assert found.low < found.high


def test_one_problem_says_next_to_nothing() -> None:
    found = mean_interval(np.array([0.5]))
    assert found.low < 0.01
    assert found.high > 0.99


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 16), min_size=1, max_size=60))
def test_interval_holds_the_mean_and_mirrors(counts: list[int]) -> None:
    values = np.array(counts) / 16
    found, mirrored = mean_interval(values), mean_interval(1 - values)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.low < found.high
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-12)


def test_bounds_only_change_the_scale() -> None:
    values = np.random.default_rng(0).beta(2, 3, 50)
    unit, scaled = mean_interval(values), mean_interval(values * 10 - 5, bounds=(-5, 5))
    assert (scaled.low, scaled.high) == pytest.approx((unit.low * 10 - 5, unit.high * 10 - 5))


def test_higher_confidence_is_wider() -> None:
    values = np.random.default_rng(0).beta(2, 3, 50)
    widths = [found.high - found.low for found in (mean_interval(values, confidence=c) for c in (0.5, 0.9, 0.95, 0.99))]
    assert widths == sorted(widths)


def test_variance_within_strata_on_paper() -> None:
    # Two easy problems (1, .5) and three hard ones (0, 0, .3): s^2 = .125 and .03.
    # Variance of the mean: (2 * .125 + 3 * .03) / 25 = .0136; terms .01 and .0036.
    values, strata = np.array([1.0, 0.0, 0.5, 0.0, 0.3]), np.array(["e", "h", "e", "h", "h"])
    variance, df = variance_of_mean(values, strata)
    assert variance == pytest.approx(0.0136)
    assert df == pytest.approx(0.0136**2 / (0.01**2 / 1 + 0.0036**2 / 2))


def test_strata_that_do_not_differ_change_little_and_those_that_do_much() -> None:
    rng = np.random.default_rng(0)
    easy, hard = rng.binomial(4, 0.9, 200) / 4, rng.binomial(4, 0.1, 200) / 4
    values, strata = np.concatenate([easy, hard]), np.repeat([0, 1], 200)
    plain, within = mean_interval(values), mean_interval(values, strata=strata)
    mixed = mean_interval(values, strata=np.tile([0, 1], 200))
    assert within.high - within.low < 0.6 * (plain.high - plain.low)
    assert mixed.high - mixed.low == pytest.approx(plain.high - plain.low, rel=0.02)


def test_strata_of_one_problem_are_put_together() -> None:
    parts = with_spread([np.array([0]), np.array([1, 2, 3]), np.array([4]), np.array([5, 6])])
    assert sorted(part.tolist() for part in parts) == [[0, 4], [1, 2, 3], [5, 6]]
    parts = with_spread([np.array([0]), np.array([1, 2, 3]), np.array([5, 6])])
    assert sorted(sorted(part.tolist()) for part in parts) == [[0, 1, 2, 3], [5, 6]]
    assert mean_interval(np.array([0.0, 1.0, 0.5]), strata=np.array([0, 1, 2])) == mean_interval(np.array([0, 1, 0.5]))


def test_effective_problems_on_paper() -> None:
    assert effective_problems(np.array([1.0, 1.0, 0.0, 0.0])) == 2
    assert effective_problems(np.array([0.5, 0.5, 0.5])) == pytest.approx(3)
    assert effective_problems(np.array([3.0, -1.0])) == pytest.approx(16 / 10)
    assert effective_problems(np.zeros(3)) == 0


def test_without_bounds_symmetric_values_give_student() -> None:
    # No skewness: the transformation is the identity.
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    half = stats.t.ppf(0.975, 4) * sqrt(2.5 / 5)
    found = mean_interval(values, bounds=None)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))


def test_without_bounds_the_limits_solve_halls_cubic() -> None:
    values = np.exp(np.random.default_rng(0).standard_normal(40))
    found = mean_interval(values, bounds=None)
    scale, n = values.std(ddof=1), 40
    g = (((values - values.mean()) / scale) ** 3).mean()
    for limit, sign in ((found.low, 1), (found.high, -1)):
        w = (values.mean() - limit) / scale
        cubic = w + g * w**2 / 3 + g**2 * w**3 / 27 + g / (6 * n)
        assert sqrt(n) * cubic == pytest.approx(sign * stats.t.ppf(0.975, n - 1))
    assert found.high - values.mean() > values.mean() - found.low  # the long tail is above


def test_without_bounds_degenerate_cases() -> None:
    one = mean_interval(np.array([7.0]), bounds=None)
    assert (one.low, one.high) == (-np.inf, np.inf)
    equal = mean_interval(np.full(5, 7.1), bounds=None)
    assert equal.low == equal.high == pytest.approx(7.1)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.array([]), {}, "at least one problem"),
        (np.zeros((2, 2)), {}, r"shape \(2, 2\)"),
        (np.array([0.1, np.nan]), {}, "1 of 2 values are not finite"),
        (np.array([0.1, 1.2]), {}, "within the bounds"),
        (np.array([0.1, 0.2]), {"confidence": 95}, "such as 0.95"),
        (np.array([0.1, 0.2]), {"strata": np.array([1])}, "a benchmark for each problem"),
        (np.array([0.1, 0.2]), {"bounds": (1.0, 0.0)}, "smaller one first"),
    ],
)
def test_refusals(values: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(values, **options)


def exact_coverage(problems: int, mean: float) -> float:
    """Coverage with one sample a problem: a sum over the binomial distribution."""
    counts = np.arange(problems + 1)
    rows = (np.arange(problems) < counts[:, None]).astype(float)
    low, high = ours(rows)
    return float(stats.binom.pmf(counts, problems, mean)[(low <= mean) & (mean <= high)].sum())


@pytest.mark.parametrize("mean", [0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("problems", [30, 40, 200, 500])
def test_exact_coverage_with_one_sample_a_problem(problems: int, mean: float) -> None:
    covered = exact_coverage(problems, mean)
    assert covered >= 0.91
    if problems >= 200:
        assert 0.93 <= covered <= 0.97


FAST = [World(0.05, 0.3, 64, 30), World(0.95, 1.0, 64, 30), World(0.2, 1.0, 16, 40), World(0.5, np.inf, 64, 40)]


@pytest.mark.parametrize("world", FAST)
def test_coverage_at_30_and_40_problems(world: World) -> None:
    values = draw(world, 2000, seed=1)
    assert coverage(ours(values), world.mean) >= 0.91


def test_the_correction_is_what_reaches_it() -> None:
    values = draw(FAST[0], 2000, seed=1)
    assert coverage(student(values), FAST[0].mean) < 0.87
    assert coverage(wilson(values), FAST[0].mean) < 0.88


@pytest.mark.parametrize("world", [World(0.1, 0.3, 16, 200), World(0.5, 1.0, 4, 500), World(0.8, np.inf, 64, 200)])
def test_coverage_from_200_problems_on(world: World) -> None:
    assert 0.93 <= coverage(ours(draw(world, 2000, seed=1)), world.mean) <= 0.97


def pass_at_k_coverage(world: World, k: int, trials: int, seed: int) -> tuple[float, float]:
    """(true mean of pass@k, coverage of its interval). The truth is 1 - B(a, b + k) / B(a, b), a and b of the Beta."""
    counts = np.rint(draw(world, trials, seed) * world.samples).astype(int)
    values = np.array([pass_at_k(world.samples, c, k) for c in range(world.samples + 1)])[counts]
    a, b = world.mean * world.concentration, (1 - world.mean) * world.concentration
    failing = (1 - world.mean) ** k if np.isinf(world.concentration) else np.exp(betaln(a, b + k) - betaln(a, b))
    return float(1 - failing), coverage(ours(values), float(1 - failing))


@pytest.mark.parametrize(("problems", "lowest", "highest"), [(30, 0.91, 1.0), (200, 0.93, 0.97)])
def test_coverage_of_pass_at_k(problems: int, lowest: float, highest: float) -> None:
    truth, covered = pass_at_k_coverage(World(0.2, 1.0, 16, problems), 8, 1500, seed=1)
    # Beta(.2, .8): the mean of (1 - p)^8 is the product of (i - .2) / i for i from 1 to 8, .5611.
    assert truth == pytest.approx(1 - np.prod([(i - 0.2) / i for i in range(1, 9)]))
    assert lowest <= covered <= highest


def pooled(trials: int, seed: int) -> tuple[list[np.ndarray], np.ndarray, float]:
    """A hard benchmark of 30 problems, a middling one of 40 and an easy one of 200, 4 samples each."""
    parts = [World(0.1, 1.0, 4, 30), World(0.5, 1.0, 4, 40), World(0.8, 1.0, 4, 200)]
    drawn = [draw(part, trials, seed + number) for number, part in enumerate(parts)]
    strata = np.repeat([0, 1, 2], [30, 40, 200])
    return list(np.concatenate(drawn, axis=1)), strata, (0.1 * 30 + 0.5 * 40 + 0.8 * 200) / 270


def test_coverage_over_pooled_benchmarks() -> None:
    rows, strata, truth = pooled(1500, seed=1)
    found = [mean_interval(row, strata=strata) for row in rows]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in found]) <= 0.97


def test_coverage_of_log_normal_values_as_documented() -> None:
    measured = {label: coverage(ours(grid[0][0], None), 1.0) for label, grid in skewed(200, 1500)}
    assert 0.93 <= measured["200, sigma 0.5"] <= 0.97
    assert measured["200, sigma 1.0"] >= 0.92


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("problems", [30, 40, 200, 500])
def test_coverage_of_the_whole_grid(problems: int) -> None:
    # One sample a problem is exact above.
    grid = [(seed, world) for seed, world in enumerate(worlds(problems)) if world.samples > 1]
    covered = {world: coverage(ours(draw(world, 4000, seed)), world.mean) for seed, world in grid}
    lowest, highest = (0.91, 1.0) if problems < 200 else (0.93, 0.97)
    assert {world: value for world, value in covered.items() if not lowest <= value <= highest} == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("problems", [30, 200])
def test_coverage_of_pass_at_k_on_the_whole_grid(problems: int) -> None:
    grid = [(seed, world) for seed, world in enumerate(worlds(problems)) if world.samples == 16]
    found = [(world, k, *pass_at_k_coverage(world, k, 2000, seed)) for seed, world in grid for k in (4, 8, 16)]
    checked = [one for one in found if 0.05 <= one[2] <= 0.95]
    assert len(checked) > 60
    lowest, highest = (0.91, 1.0) if problems < 200 else (0.93, 0.97)
    assert [one for one in checked if not lowest <= one[3] <= highest] == []
