"""What each reward pays, with the papers' numbers."""

import subprocess
import sys

import pytest

from rlvr.errors import UserError
from rlvr.registry import load_variants
from rlvr.rewards.accuracy import Accuracy
from rlvr.rewards.base import Reward, Scored
from rlvr.rewards.soft_overlong import SoftOverlong, overlong_penalty


def batch_of(lengths: list[int], limit: int) -> Scored:
    rows = len(lengths)
    return Scored([""] * rows, ["1"] * rows, lengths, [False] * rows, limit)


ANSWERS = Scored(
    completions=[r"\boxed{3}", r"\boxed{4}", "3", r"\boxed{3}"],
    golds=["3", "3", "3", "3"],
    lengths=[4, 4, 2, 9],
    truncated=[False, False, False, True],
    max_completion_length=9,
)


def test_accuracy_pays_for_finished_right_answers_only() -> None:
    reward = Accuracy()
    assert reward(ANSWERS) == [1.0, 0.0, 0.0, 0.0]
    assert [verdict.status for verdict in reward.verdicts] == ["correct", "wrong", "no_answer", "wrong"]


def test_accuracy_with_dapos_numbers() -> None:
    assert Accuracy(correct=1.0, wrong=-1.0)(ANSWERS) == [1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize(("correct", "wrong"), [(0.0, 1.0), (0.0, -1.0), (1.0, 0.5), (float("nan"), 0.0)])
def test_accuracy_refuses_values_that_do_not_tell_right_from_wrong_by_0(correct: float, wrong: float) -> None:
    with pytest.raises(UserError, match=r"expected correct > 0 >= wrong, e\.g\. 1 and 0: KTAE and dynamic sampling"):
        Accuracy(correct=correct, wrong=wrong)


def test_verdicts_are_no_setting() -> None:
    assert "verdicts" not in repr(Accuracy())


@pytest.mark.parametrize(
    ("length", "penalty"), [(16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20480, -1.0), (20481, -1.0)]
)
def test_overlong_with_the_papers_numbers(length: int, penalty: float) -> None:
    assert overlong_penalty(length, limit=20480, cache=4096) == penalty
    assert SoftOverlong()(batch_of([length], 20480)) == [penalty]  # a fifth of 20480 is 4096


def test_overlong_without_a_cache_is_a_cliff() -> None:
    assert SoftOverlong(cache=0)(batch_of([9, 10, 11], 10)) == [0.0, 0.0, -1.0]


def test_overlong_at_a_limit_too_short_for_a_fifth() -> None:
    assert SoftOverlong()(batch_of([0, 4, 5], 4)) == [0.0, 0.0, -1.0]


def test_overlong_refuses_impossible_caches() -> None:
    with pytest.raises(UserError, match="expected 0 tokens or more"):
        SoftOverlong(cache=-1)
    with pytest.raises(UserError, match="expected cache <= the limit"):
        SoftOverlong(cache=11)(batch_of([1], 10))


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Scored(["a", "b"], ["1"], [1, 1], [False, False], 8)


def test_a_reward_has_to_say_what_it_pays() -> None:
    with pytest.raises(TypeError, match="define __call__"):
        Reward()(batch_of([1], 4))


def test_rewards_are_found_by_name() -> None:
    known = load_variants()["reward"]
    assert known["accuracy"] is Accuracy
    assert known["soft_overlong"] is SoftOverlong


def test_rewards_and_data_load_neither_torch_nor_math_verify() -> None:
    modules = "rlvr.rewards.accuracy, rlvr.rewards.soft_overlong, rlvr.data.arithmetic, rlvr.data.demonstrations"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'math_verify', 'sympy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
