"""Draws: the distribution they follow, what is kept, and that no small error changes a draw that counts as safe."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from rlvr.errors import UserError
from rlvr.evaluation.requests import Key, sample_seed
from rlvr.sampling.drawing import TOLERANCE, draw, uniforms
from rlvr.sampling.settings import Sampling

LOGITS = torch.tensor([math.log(p) for p in (0.1, 0.4, 0.2, 0.3)])
"""A distribution one can see through."""


def frequencies(logits: torch.Tensor, sampling: Sampling, points: int = 10_000) -> torch.Tensor:
    """Shares of the tokens (V,) where the numbers are the middles of a fine grid: the probabilities, to 1/points."""
    numbers = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    tokens = draw(logits.expand(points, -1), numbers, sampling).tokens
    return torch.bincount(tokens, minlength=logits.shape[-1]).double() / points


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.1, 0.4, 0.2, 0.3]),
        # Squares 1, 16, 4, 9 of 30.
        (Sampling(temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(top_k=4), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(top_k=9), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(top_p=0.35), [0, 1, 0, 0]),
        (Sampling(top_p=0.65), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        # Of the two likeliest, 4/7 and 3/7, the first alone has half.
        (Sampling(top_k=2, top_p=0.5), [0, 1, 0, 0]),
        # At temperature 0.5 the likeliest has 16/30; two have 25/30.
        (Sampling(temperature=0.5, top_p=0.6), [0, 16 / 25, 0, 9 / 25]),
    ],
)
def test_frequencies_by_hand(sampling: Sampling, expected: list[float]) -> None:
    torch.testing.assert_close(frequencies(LOGITS, sampling), torch.tensor(expected).double(), atol=2e-4, rtol=0)


SETTINGS = [
    Sampling(temperature, top_p, top_k)
    for temperature in (0.3, 0.6, 1.0, 1.7) for top_p in (0.05, 0.7, 0.95, 1.0) for top_k in (0, 1, 5, 20)
]  # fmt: skip


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_frequencies_are_those_of_transformers_own_warpers(sampling: Sampling) -> None:
    logits = 3 * torch.randn(30, generator=torch.Generator().manual_seed(sampling.top_k)).double()
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    expected = torch.softmax(warpers(None, logits[None])[0], dim=-1)
    found = frequencies(logits, sampling)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    assert bool((found[expected == 0] == 0).all())


def test_draws_with_the_samples_own_numbers_pass_a_chi_square_test() -> None:
    seeds = torch.tensor([sample_seed(7, Key("b", f"p{index // 16}", index % 16)) for index in range(20_000)])
    numbers = uniforms(seeds, torch.zeros_like(seeds))
    tokens = draw(LOGITS.expand(len(seeds), -1), numbers, Sampling()).tokens
    counts = torch.bincount(tokens, minlength=4).numpy()
    assert stats.chisquare(counts, np.array([0.1, 0.4, 0.2, 0.3]) * len(seeds)).pvalue > 0.001


def test_greedy_is_the_likeliest_token_whatever_the_number() -> None:
    logits = torch.randn(50, 11, generator=torch.Generator().manual_seed(0))
    for number in (0.0, 0.5, 1 - 2**-53):
        drawn = draw(logits, torch.full((50,), number).double(), Sampling(temperature=0))
        assert torch.equal(drawn.tokens, logits.argmax(dim=-1))
    one = draw(torch.zeros(3, 1), torch.zeros(3).double(), Sampling(temperature=0))
    assert one.tokens.tolist() == [0, 0, 0]
    assert not bool(one.doubtful.any())


@pytest.mark.parametrize("number", [0.0, 2**-53, 1 - 2**-53])
def test_the_ends_of_the_interval_give_no_impossible_token(number: float) -> None:
    logits = torch.tensor([[-torch.inf, 0.3, -torch.inf, 1.1, 0.2, -torch.inf]]).repeat(40, 1)
    logits[:, 1] += torch.arange(40) / 7
    tokens = draw(logits, torch.full((40,), number).double(), Sampling()).tokens
    assert set(tokens.tolist()) == ({4} if number > 0.5 else {1})


@pytest.mark.parametrize(
    ("logits", "number", "sampling"),
    [
        ([0.0, 0.0], 0.5 + TOLERANCE / 2, Sampling()),  # beside the boundary of two tokens
        ([0.0, 0.0], 0.5 - TOLERANCE / 2, Sampling()),
        # An error of 1e-6 is one of 1e-3 at this temperature: the boundary moves by 1e-3 / 2.
        ([0.0, 0.0], 0.5 + 4e-4, Sampling(temperature=0.001)),
        ([0.0, 1.0, 1.0 - TOLERANCE / 2], 0.5, Sampling(temperature=0)),  # two arg-maxima, nearly
        ([0.0, 1.0, 1.0 - TOLERANCE / 2], 0.25, Sampling(top_k=1)),  # either may be the one that is kept
        ([math.log(0.5), math.log(0.3), math.log(0.2)], 0.25, Sampling(top_p=0.8 + TOLERANCE / 2)),
        ([math.log(0.5), math.log(0.3), math.log(0.2)], 0.25, Sampling(top_p=0.8 - TOLERANCE / 2)),
        ([math.log(0.5), math.log(0.25), math.log(0.25)], 0.25, Sampling(top_p=0.7)),  # which of two equals is in
    ],
)
def test_close_calls_are_doubtful(logits: list[float], number: float, sampling: Sampling) -> None:
    numbers = torch.tensor([number]).double()
    assert bool(draw(torch.tensor([logits]).double(), numbers, sampling).doubtful[0])


def test_clear_draws_are_not_doubtful() -> None:
    numbers = torch.tensor([0.05, 0.3, 0.6, 0.85]).double()
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(top_k=3), Sampling(top_p=0.65)):
        drawn = draw(LOGITS.expand(4, -1), numbers, sampling)
        assert not bool(drawn.doubtful.any())
    assert draw(LOGITS.expand(4, -1), numbers, Sampling()).tokens.tolist() == [0, 1, 2, 3]


def test_doubt_is_rare() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 50, generator=generator)
    numbers = torch.rand(4000, generator=generator).double()
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(temperature=0.6, top_p=0.95)):
        assert draw(logits, numbers, sampling).doubtful.double().mean() < 0.05


@given(
    seed=st.integers(0, 2**31), width=st.integers(2, 40), scale=st.floats(0.01, 20), top_k=st.integers(0, 6),
    top_p=st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
    temperature=st.sampled_from([0.0, 0.001, 0.02, 0.3, 0.6, 1.0, 2.0]), rounded=st.booleans(),
)  # fmt: skip
def test_a_small_error_never_changes_a_draw_that_is_not_doubtful(
    seed: int, width: int, scale: float, top_k: int, top_p: float, temperature: float, rounded: bool
) -> None:
    rows, generator = 64, torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, width, generator=generator).double()
    logits = logits.round(decimals=1) if rounded else logits  # ties
    numbers = torch.rand(rows, generator=generator, dtype=torch.float64)
    numbers = numbers.round(decimals=2).clamp(max=0.99) if rounded else numbers
    errors = 2e-6 * torch.rand(8, rows, width, generator=generator).double() - 1e-6
    errors[:4] = 1e-6 * errors[:4].sign()  # the corners of the box, too
    sampling = Sampling(temperature, top_p, top_k)
    drawn = draw(logits, numbers, sampling)
    for error in errors:
        changed = draw(logits + error, numbers, sampling).tokens != drawn.tokens
        assert not bool((changed & ~drawn.doubtful).any())


def test_errors_do_change_doubtful_draws() -> None:
    """The control of the test above: 1e-6 is large enough to change a draw."""
    numbers = torch.full((2000,), 0.5).double()
    errors = 1e-6 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).double()
    drawn = draw(errors, numbers, Sampling())
    assert drawn.tokens.unique().tolist() == [0, 1]
    assert bool(drawn.doubtful.all())


def test_uniforms_are_uniform_over_seeds_and_positions() -> None:
    seeds = torch.tensor([sample_seed(0, Key("aime24", "p", sample)) for sample in range(4000)])
    over_seeds = uniforms(seeds, torch.full_like(seeds, 5)).numpy()
    positions = torch.arange(4000)
    over_positions = uniforms(torch.full_like(positions, int(seeds[0])), positions).numpy()
    for numbers in (over_seeds, over_positions):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert len(np.unique(numbers)) == len(numbers)
        assert stats.kstest(numbers, "uniform").pvalue > 0.001
        # Neighbours know nothing of each other: 10 x 10 cells of pairs, as often each.
        cells = np.histogram2d(numbers[:-1], numbers[1:], bins=10, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(cells.ravel()).pvalue > 0.001


def test_a_number_is_one_of_its_seed_and_position_alone() -> None:
    seeds, positions = torch.tensor([3, 4, 3, 2**63 - 1]), torch.tensor([0, 0, 1, 0])
    together = uniforms(seeds, positions)
    assert len(together.unique()) == 4
    for index in range(4):
        assert torch.equal(
            uniforms(seeds[index : index + 1], positions[index : index + 1]), together[index : index + 1]
        )
    assert torch.equal(uniforms(seeds.flip(0), positions.flip(0)), together.flip(0))


def test_a_draw_does_not_depend_on_the_rows_around_it() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, numbers = torch.randn(20, 30, generator=generator), torch.rand(20, generator=generator).double()
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(0.7, 0.9, 10)):
        together = draw(logits, numbers, sampling)
        alone = [draw(logits[i : i + 1], numbers[i : i + 1], sampling) for i in range(20)]
        assert together.tokens.tolist() == [int(one.tokens) for one in alone]
        assert together.doubtful.tolist() == [bool(one.doubtful) for one in alone]


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"max_tokens": 0}]
)
def test_settings_that_are_none(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(values))} is .*; expected"):
        Sampling(**values)  # type: ignore[arg-type]


def test_the_seed_of_a_sample_is_its_own() -> None:
    keys = [Key(b, p, s) for b in ("a", "b") for p in ("1", "11") for s in range(12)]
    seeds = [sample_seed(seed, key) for seed in (0, 1) for key in keys]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [sample_seed(seed, key) for seed in (0, 1) for key in keys]
