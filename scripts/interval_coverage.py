"""Simulated coverage of the intervals of `rlvr.evaluation`, and of the ones they were chosen from.

    python -m scripts.interval_coverage --trials 2000

Prints the Markdown tables of docs/statistics.md. A world fixes the distribution of a problem's solve rate, the samples
a problem and the number of problems; a trial draws the problems and their samples; an interval covers where it holds
the mean of the solve rate. The bootstraps are slow: they see 30 and 200 problems only, and a quarter of the trials.
Seeds are fixed: equal trials give equal tables.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit

from rlvr.evaluation.intervals import mean_interval, variance_of_mean
from rlvr.evaluation.paired import difference_limits
from rlvr.evaluation.student import t_quantile

MEANS = (0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95)
CONCENTRATIONS = (0.1, 0.3, 1.0, 3.0, 10.0, np.inf)
"""Of the Beta distribution of solve rates: 0.1 is nearly all or nothing, infinite is one rate for all problems."""
SAMPLES = (1, 4, 16, 64)
PROBLEMS = (30, 40, 200, 500)
SLOW_PROBLEMS = (30, 200)
RESAMPLES = 999
Limits = tuple[np.ndarray, np.ndarray]
Method = Callable[[np.ndarray], Limits]


class World(NamedTuple):
    """Problems of mean solve rate `mean`, `samples` each."""

    mean: float
    concentration: float
    samples: int
    problems: int


class PairWorld(NamedTuple):
    """Two checkpoints: a problem keeps its solve rate with probability `kept`, else draws one anew."""

    mean: float
    gain: float
    kept: float
    concentration: float
    samples: int
    problems: int


def worlds(problems: int) -> list[World]:
    """The grid; with one sample a problem the concentration makes no difference."""
    grid = product(MEANS, CONCENTRATIONS, SAMPLES)
    return [World(m, c, n, problems) for m, c, n in grid if n > 1 or c == CONCENTRATIONS[0]]


def pair_worlds(problems: int) -> list[PairWorld]:
    """Small gains at every level, from unrelated problems to nine in ten unchanged."""
    levels = ((0.05, 0.0), (0.05, 0.03), (0.1, 0.05), (0.2, 0.0), (0.5, 0.1), (0.8, 0.05), (0.9, 0.03), (0.95, 0.0))
    grid = product(levels, (0.0, 0.6, 0.9), (0.1, 1.0, 10.0), (1, 16))
    return [PairWorld(m, g, k, c, n, problems) for (m, g), k, c, n in grid if m + g / (1 - k) < 1]


def rates(rng: np.random.Generator, mean: float, concentration: float, shape: tuple[int, int]) -> np.ndarray:
    """Solve rates."""
    if np.isinf(concentration):
        return np.full(shape, mean)
    return rng.beta(mean * concentration, (1 - mean) * concentration, shape)


def draw(world: World, trials: int, seed: int) -> np.ndarray:
    """(trials, N) avg@n."""
    rng = np.random.default_rng(seed)
    p = rates(rng, world.mean, world.concentration, (trials, world.problems))
    return rng.binomial(world.samples, p) / world.samples


def draw_pairs(world: PairWorld, trials: int, seed: int) -> np.ndarray:
    """(trials, N) differences of avg@n whose expectation is `world.gain`."""
    rng = np.random.default_rng(seed)
    shape = (trials, world.problems)
    before = rates(rng, world.mean, world.concentration, shape)
    anew = rates(rng, world.mean + world.gain / (1 - world.kept), world.concentration, shape)
    after = np.where(rng.random(shape) < world.kept, before, anew)
    return (rng.binomial(world.samples, after) - rng.binomial(world.samples, before)) / world.samples


def ours(values: np.ndarray, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Limits:
    """`mean_interval`, trial by trial."""
    pairs = np.array([(i.low, i.high) for i in (mean_interval(row, bounds=bounds) for row in values)])
    return pairs[:, 0], pairs[:, 1]


def ours_paired(differences: np.ndarray) -> Limits:
    """The interval of `paired_difference`, trial by trial."""
    pairs = []
    for row in differences:
        quantile = t_quantile(0.95, variance_of_mean(row, None)[1])
        pairs.append(difference_limits(row, None, quantile, (0.0, 1.0)))
    return np.array(pairs)[:, 0], np.array(pairs)[:, 1]


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and standard error of each trial, and the t quantile."""
    n = values.shape[1]
    return values.mean(1), values.std(1, ddof=1) / np.sqrt(n), float(stats.t.ppf(0.975, n - 1))


def student(values: np.ndarray) -> Limits:
    """Mean +- t * standard error."""
    mean, error, q = moments(values)
    return mean - q * error, mean + q * error


def wilson(values: np.ndarray) -> Limits:
    """Wilson with n_eff and a t quantile, no correction. A beta-binomial fitted by moments has the same n_eff."""
    mean, error, q = moments(values)
    spread = mean * (1 - mean)
    n_eff = np.where(error > 0, spread / np.where(error > 0, error, 1) ** 2, values.shape[1])
    extra = q**2 / n_eff
    centre, half = (mean + extra / 2) / (1 + extra), q / (1 + extra) * np.sqrt(spread / n_eff + extra / 4 / n_eff)
    return centre - half, centre + half


@cache
def resampling_counts(n: int) -> np.ndarray:
    """(N, RESAMPLES) how often each problem is drawn, divided by N."""
    return np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), RESAMPLES).T / n


def resampled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(trials, RESAMPLES) means and standard errors of bootstrap samples. All trials share the resampling counts."""
    n = values.shape[1]
    counts = resampling_counts(n)
    means = values @ counts
    return means, np.sqrt(np.maximum((values**2) @ counts - means**2, 0) / (n - 1))


def percentile(values: np.ndarray) -> Limits:
    """Percentile bootstrap."""
    low, high = np.quantile(resampled(values)[0], [0.025, 0.975], axis=1)
    return low, high


def bca(values: np.ndarray) -> Limits:
    """Bias-corrected and accelerated bootstrap (Efron 1987); the acceleration of a mean is its skewness / 6 sqrt(N)."""
    means = np.sort(resampled(values)[0], axis=1)
    centred = values - values.mean(1, keepdims=True)
    below = (means < values.mean(1, keepdims=True)).mean(1) + (means == values.mean(1, keepdims=True)).mean(1) / 2
    bias = stats.norm.ppf(np.clip(below, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES))
    power = (centred**2).sum(1) ** 1.5
    speed = np.where(power > 0, (centred**3).sum(1) / np.where(power > 0, power, 1) / 6, 0)
    limits = []
    for z in stats.norm.ppf([0.025, 0.975]):
        level = stats.norm.cdf(bias + (bias + z) / (1 - speed * (bias + z)))
        limits.append(means[np.arange(len(means)), np.clip(level * RESAMPLES, 0, RESAMPLES - 1).astype(int)])
    return limits[0], limits[1]


def studentised(values: np.ndarray) -> Limits:
    """Studentised bootstrap."""
    mean, error, _ = moments(values)
    means, errors = resampled(values)
    ratios = (means - mean[:, None]) / np.where(errors > 0, errors, np.inf)
    low, high = np.quantile(ratios, [0.025, 0.975], axis=1)
    return mean - high * error, mean - low * error


def studentised_logit(values: np.ndarray) -> Limits:
    """Studentised bootstrap of the log-odds, means moved off 0 and 1 by half a problem."""
    n = values.shape[1]

    def odds(mean: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = (mean * n + 0.5) / (n + 1)
        return np.log(moved / (1 - moved)), error / (moved * (1 - moved))

    mean, error, _ = moments(values)
    at, width = odds(mean, error)
    means, errors = odds(*resampled(values))
    ratios = (means - at[:, None]) / np.where(errors > 0, errors, np.inf)
    low, high = np.quantile(ratios, [0.025, 0.975], axis=1)
    return expit(at - high * width), expit(at - low * width)


def coverage(limits: Limits, truth: float) -> float:
    """The share of trials whose interval holds the truth."""
    low, high = limits
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())


BOOTSTRAPS: dict[str, Method] = {
    "percentile bootstrap": percentile,
    "BCa bootstrap": bca,
    "studentised bootstrap": studentised,
    "studentised bootstrap, logit": studentised_logit,
}
FORMULAS: dict[str, Method] = {"t": student, "Wilson, n_eff": wilson, "**Wilson, n_eff, few problems**": ours}


def measure(
    grid: Iterable[tuple[np.ndarray, float]], methods: dict[str, Method], slow: dict[str, Method]
) -> Iterator[tuple[str, list[float], float]]:
    """(method, coverage in each world, median width averaged over worlds); slow ones see a quarter of the trials."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in {**slow, **methods}}
    for values, truth in grid:
        for name in found:
            seen = values[: max(1, len(values) // 4)] if name in slow else values
            limits = {**slow, **methods}[name](seen)
            found[name].append((coverage(limits, truth), float(np.median(limits[1] - limits[0]))))
    for name, pairs in found.items():
        yield name, [cover for cover, _ in pairs], float(np.mean([width for _, width in pairs]))


def table(title: str, groups: Iterable[tuple[str, Iterator[tuple[str, list[float], float]]]]) -> None:
    """Print one Markdown table."""
    print(f"\n{title}\n")
    print("| N | interval | lowest | mean | highest | worlds below 91 % | below 93 % | above 97 % | width |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for label, rows in groups:
        for name, covers, width in rows:
            c = np.array(covers) * 100
            counts = " | ".join(f"{int(n)}" for n in ((c < 91).sum(), (c < 93).sum(), (c > 97).sum()))
            print(f"| {label} | {name} | {c.min():.1f} | {c.mean():.1f} | {c.max():.1f} | {counts} | {width:.3f} |")


def skewed(problems: int, trials: int) -> Iterator[tuple[str, list[tuple[np.ndarray, float]]]]:
    """Log-normal values, divided by their expectation."""
    for sigma in (0.5, 1.0, 1.5):
        normal = np.random.default_rng(problems).standard_normal((trials, problems))
        yield f"{problems}, sigma {sigma}", [(np.exp(sigma * normal - sigma**2 / 2), 1.0)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="simulated evaluations a world")
    trials = parser.parse_args().trials
    two = {name: BOOTSTRAPS[name] for name in ("percentile bootstrap", "studentised bootstrap")}

    means = (
        (
            str(n),
            measure(
                ((draw(world, trials, seed), world.mean) for seed, world in enumerate(worlds(n))),
                FORMULAS,
                BOOTSTRAPS if n in SLOW_PROBLEMS else {},
            ),
        )
        for n in PROBLEMS
    )
    table(f"Mean of avg@n, {len(worlds(1))} worlds, {trials} trials each", means)
    hall: dict[str, Method] = {"t": student, "**Hall's transformed t**": lambda values: ours(values, None)}
    groups = (group for n in SLOW_PROBLEMS for group in skewed(n, trials))
    table(f"Log-normal values, {trials} trials each", ((label, measure(grid, hall, two)) for label, grid in groups))
    paired: dict[str, Method] = {"t": student, "**t, one problem added**": ours_paired}
    pairs = (
        (
            str(n),
            measure(
                ((draw_pairs(world, trials, seed), world.gain) for seed, world in enumerate(pair_worlds(n))),
                paired,
                two if n in SLOW_PROBLEMS else {},
            ),
        )
        for n in PROBLEMS
    )
    table(f"Difference of two checkpoints, {len(pair_worlds(1))} worlds, {trials} trials each", pairs)


if __name__ == "__main__":
    main()
