"""What a step's sum is divided by, counted on paper."""

from dataclasses import replace

import pytest

from rlvr.maths.denominators import REDUCTIONS, StepCounts, denominator

# A rollout batch of 8 rows in W = 2 steps: 100 tokens of which 20 are kept; this step has 3 rows, 40 tokens, 12 kept.
COUNTS = StepCounts(
    rows=3, tokens=40, kept=12, rollout_tokens=100, rollout_kept=20, updates=2, max_completion_length=64
)


@pytest.mark.parametrize(
    ("reduction", "kept", "expected"),
    [
        ("token_mean", False, 40.0),
        ("token_mean", True, 12.0),
        ("token_mean_rollout", False, 50.0),  # 100 / 2
        ("token_mean_rollout", True, 10.0),  # 20 / 2
        ("sequence_mean", False, 3.0),
        ("sequence_mean", True, 3.0),  # a row's own mean already counts kept tokens
        ("sequence_sum", False, 3.0),
        ("sequence_sum", True, 0.6),  # 3 * 20 / 100: sums over a fifth of the tokens, and the loss of all of them
        ("constant", False, 192.0),  # 3 * 64
        ("constant", True, 38.4),  # 3 * 64 * 20 / 100
    ],
)
def test_each_reduction_by_hand(reduction: str, kept: bool, expected: float) -> None:
    result = denominator(reduction, kept, COUNTS)
    assert isinstance(result, float)
    assert result == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kept", [False, True])
def test_a_step_with_nothing_in_it_divides_by_zero_which_the_caller_can_see(reduction: str, kept: bool) -> None:
    nothing = replace(COUNTS, rows=0, tokens=0, kept=0, rollout_tokens=0, rollout_kept=0)
    assert denominator(reduction, kept, nothing) == 0.0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_with_every_token_kept_both_normalisers_are_the_same_number(reduction: str) -> None:
    everything = replace(COUNTS, kept=COUNTS.tokens, rollout_kept=COUNTS.rollout_tokens)
    assert denominator(reduction, True, everything) == denominator(reduction, False, everything)


def test_the_windows_of_a_rollout_batch_average_to_the_steps_own_counts() -> None:
    other = replace(COUNTS, tokens=60, kept=8)
    window = denominator("token_mean_rollout", True, COUNTS)
    assert window == (denominator("token_mean", True, COUNTS) + denominator("token_mean", True, other)) / 2


def test_an_unknown_reduction_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"reduction is 'bnpo'; expected one of .*token_mean_rollout"):
        denominator("bnpo", False, COUNTS)
