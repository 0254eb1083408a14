"""Change points: costs by hand, PELT against brute force, a planted jump, and how often noise alone shows one."""

import itertools
import math
import sys

import numpy as np
import pytest

from rlvr.analysis.forking.change_points import Drawn, affordable, find_changes, pelt, segment_costs
from rlvr.errors import UserError

SAMPLES = 30


def drawn_path(path: np.ndarray, seed: int, weights: tuple[float, ...] = (0.8, 0.2)) -> list[Drawn]:
    """A path (T, K) of true distributions, drawn with the same branches at each position."""
    rng = np.random.default_rng(seed)
    samples = np.full(len(weights), SAMPLES)
    return [
        Drawn(np.array(weights), samples, rng.multinomial(samples, shares) / SAMPLES) for shares in path
    ]  # fmt: skip


def brute_force(costs: np.ndarray, changes: int) -> tuple[float, list[int]]:
    """The least cost with so many change points, over every choice of them."""
    ends = len(costs) - 1
    best = (math.inf, [])
    for starts in itertools.combinations(range(1, ends), changes):
        edges = [0, *starts, ends]
        total = sum(costs[low, high] for low, high in itertools.pairwise(edges))
        best = min(best, (total, list(starts)))
    return best


def test_costs_by_hand() -> None:
    """Alone: -2 (3 ln 3/4 + ln 1/4). Together (4, 4): -2 * 8 ln 1/2 = 16 ln 2."""
    costs = segment_costs(np.array([[3.0, 1.0], [1.0, 3.0]]))
    alone = -2 * (3 * math.log(0.75) + math.log(0.25))
    assert costs[0, 1] == pytest.approx(alone)
    assert costs[1, 2] == pytest.approx(alone)
    assert costs[0, 2] == pytest.approx(16 * math.log(2))
    assert np.isinf(costs[1, 0])
    assert np.isinf(costs[1, 1])
    # One change point saves this much, so a penalty up to it pays.
    assert affordable(costs) == pytest.approx(16 * math.log(2) - 2 * alone)
    assert pelt(costs, 16 * math.log(2) - 2 * alone - 0.01) == [1]
    assert pelt(costs, 16 * math.log(2) - 2 * alone + 0.01) == []


@pytest.mark.parametrize("seed", range(12))
def test_pelt_and_the_affordable_penalty_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = np.repeat(rng.dirichlet(np.ones(3), 3), [3, 2, 3], axis=0)
    costs = segment_costs(np.stack([rng.multinomial(20, one) for one in shares]).astype(float))
    by_count = [(costs[0, 8], [])] + [brute_force(costs, changes) for changes in range(1, 8)]
    for penalty in (0.5, 2.0, 5.0, 12.0, 40.0):
        best = min(by_count, key=lambda one: one[0] + penalty * len(one[1]))
        assert pelt(costs, penalty) == best[1]
    saved = [(costs[0, 8] - by_count[changes][0]) / changes for changes in range(1, 7)]
    assert affordable(costs) == pytest.approx(max(saved))


def test_the_worked_example_changes_at_its_fourth_position() -> None:
    """(.6, .4) three times, then (.1, .9) and (.05, .95), as shares of 30: the jump is at index 3."""
    path = np.array([[0.6, 0.4], [0.6, 0.4], [0.58, 0.42], [0.1, 0.9], [0.05, 0.95]])
    found = find_changes([Drawn(np.ones(1), np.array([SAMPLES]), one[None]) for one in path])
    assert found.starts == [3]
    assert found.p_value == pytest.approx(1 / 200)
    assert found.gains[0] > found.penalty


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("at", [1, 7, 18])
def test_a_planted_jump_is_found_where_it_is(at: int, seed: int) -> None:
    """From (.9, .1, 0) to (.1, .8, .1), even where it is the second or the last but one of 20 positions."""
    path = np.repeat([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1]], [at, 20 - at], axis=0)
    assert find_changes(drawn_path(path, seed)).starts == [at]


def test_two_jumps_are_both_found() -> None:
    path = np.repeat([[0.5, 0.5, 0.0], [0.05, 0.95, 0.0], [0.05, 0.05, 0.9]], [8, 6, 6], axis=0)
    assert find_changes(drawn_path(path, 3)).starts == [8, 14]


def test_constant_outcomes_give_none_in_at_least_47_of_50_paths() -> None:
    """At alpha = 0.01 one false alarm in 100 paths is expected; four in 50 would have a chance of 0.2 %."""
    false = 0
    for seed in range(50):
        rng = np.random.default_rng(1000 + seed)
        path = np.tile(rng.dirichlet(np.ones(3)), (15, 1))
        false += bool(find_changes(drawn_path(path, seed), seed=seed).starts)
    assert false <= 3


@pytest.mark.slow
def test_the_rate_of_false_alarms_is_alpha() -> None:
    """500 constant paths at alpha = 0.1: 50 expected, standard deviation 6.7."""
    false = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        weights = tuple(rng.dirichlet(np.ones(3)))
        path = np.tile(rng.dirichlet(np.ones(3)), (12, 1))
        false += bool(find_changes(drawn_path(path, seed, weights), alpha=0.1, seed=seed).starts)
    assert 25 <= false <= 75


def test_outcomes_that_never_differ_give_none_without_any_noise() -> None:
    path = [Drawn(np.ones(1), np.array([SAMPLES]), np.array([[1.0, 0.0]])) for _ in range(9)]
    found = find_changes(path)
    assert (found.starts, found.p_value) == ([], 1.0)


def test_fewer_than_two_positions_cannot_change() -> None:
    one = Drawn(np.ones(1), np.array([SAMPLES]), np.array([[1.0, 0.0]]))
    assert find_changes([one]).starts == find_changes([]).starts == []


def test_the_same_path_gives_the_same_result() -> None:
    path = drawn_path(np.tile([0.5, 0.5], (10, 1)), 0)
    assert find_changes(path, seed=4) == find_changes(path, seed=4)


def test_a_level_that_so_few_simulations_cannot_tell() -> None:
    path = drawn_path(np.tile([0.5, 0.5], (4, 1)), 0)
    with pytest.raises(ValueError, match=r"alpha is 0\.001; expected at least 1 / 200"):
        find_changes(path, alpha=0.001)


def test_without_ruptures_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruptures", None)
    with pytest.raises(UserError, match=r"install it: pip install ruptures"):
        find_changes(drawn_path(np.tile([0.5, 0.5], (4, 1)), 0))
