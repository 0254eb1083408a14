"""Agreement as a reward: shares and majorities by hand, against brute force, in any order; and its place in a run."""

import itertools
import random
from collections.abc import Sequence

import pytest

from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.rewards.adapter import RewardFunction
from rlvr.rewards.answer_classes import answer_names
from rlvr.rewards.base import Scored
from rlvr.rewards.grade import grade
from rlvr.rewards.self_consistency import SelfConsistency


def boxed(text: str) -> str:
    return f"So \\boxed{{{text}}}"


def scored(completions: Sequence[str], group_size: int | None, truncated: Sequence[int] = ()) -> Scored:
    rows = len(completions)
    cut = [index in truncated for index in range(rows)]
    return Scored(list(completions), ["no gold"] * rows, [1] * rows, cut, 100, group_size)


def paid(
    *completions: str, size: int | None = None, truncated: Sequence[int] = (), majority: bool = False
) -> list[float | None]:
    return SelfConsistency(majority=majority)(scored(completions, size or len(completions), truncated))


def test_shares_by_hand() -> None:
    # 1/2, 0.5 and \frac12 are one answer of three completions; 2 and 4/2 one of two; one completion has no answer.
    group = [boxed("1/2"), boxed("2"), boxed("0.5"), "none", boxed("\\frac{4}{2}"), boxed("\\frac12")]
    assert paid(*group) == [3 / 6, 2 / 6, 3 / 6, 0.0, 2 / 6, 3 / 6]
    assert paid(*group, majority=True) == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]


def test_a_cut_completion_has_no_answer_and_still_counts() -> None:
    group = [boxed("3"), boxed("3"), boxed("3"), boxed("4")]
    assert paid(*group) == [0.75, 0.75, 0.75, 0.25]
    assert paid(*group, truncated=[0]) == [0.0, 0.5, 0.5, 0.25]


def test_empty_and_endless_boxes_are_no_answers() -> None:
    assert paid(boxed(""), boxed(""), boxed("1")) == [0.0, 0.0, 1 / 3]
    assert paid(boxed("1" * 600), boxed("1" * 600)) == [0.0, 0.0]


def test_nobody_answers() -> None:
    assert paid("a", "b") == [0.0, 0.0]
    assert paid("a", "b", majority=True) == [0.0, 0.0]


def test_equally_frequent_answers_are_all_the_majority() -> None:
    group = [boxed("1"), boxed("2"), boxed("3"), boxed("2.0"), boxed("1.0")]
    assert paid(*group, majority=True) == [1.0, 1.0, 0.0, 1.0, 1.0]


def test_groups_do_not_see_one_another() -> None:
    rows = [boxed("1"), boxed("2"), boxed("2"), boxed("2"), boxed("1"), boxed("1")]
    assert paid(*rows, size=2) == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert paid(*rows, size=3) == [1 / 3, 2 / 3, 2 / 3, 1 / 3, 2 / 3, 2 / 3]
    assert paid(*rows, size=1) == [1.0] * 6


def test_the_gold_is_not_read() -> None:
    rows = [boxed("1"), boxed("2")]
    batch = Scored(rows, ["1", "1"], [1, 1], [False, False], 9, 2)
    assert SelfConsistency()(batch) == [0.5, 0.5]


ANSWERS = ("1/2", "0.5", "\\frac{2}{4}", "2", "2.0", "x+1", "1+x", "7", "\\sqrt{4}")


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_those_of_counting_equal_pairs(seed: int) -> None:
    """These answers have classes in which every two are equal, so no order matters."""
    rng = random.Random(seed)
    texts = [rng.choice(ANSWERS) for _ in range(8)]
    equal = {(a, b): a == b or grade(boxed(a), b).correct for a, b in itertools.product(texts, texts)}
    expected = [sum(equal[text, other] for other in texts) / 8 for text in texts]
    found = paid(*map(boxed, texts))
    assert found == expected
    order = rng.sample(range(8), 8)
    assert paid(*(boxed(texts[index]) for index in order)) == [found[index] for index in order]


def test_shares_add_up_to_the_square_sum_of_class_sizes() -> None:
    found = paid(*map(boxed, ["1", "1.0", "2", "3", "3", "3.0"]))
    assert sum(value or 0.0 for value in found) == pytest.approx((2**2 + 1**2 + 3**2) / 6)


def test_classes_are_named_by_their_first_answer_and_problems_are_apart() -> None:
    names = answer_names([["6/2", "3", "4", "3.0", "3"], [], ["3", "6/2"], ["\\frac{", "x", "\\frac{"]])
    assert names == [
        {"6/2": "6/2", "3": "6/2", "4": "4", "3.0": "6/2"},
        {},
        {"3": "3", "6/2": "3"},
        {"\\frac{": "\\frac{", "x": "x"},
    ]


def test_a_batch_without_groups_is_refused() -> None:
    with pytest.raises(UserError, match="compares the completions of one prompt, but does not know how many"):
        SelfConsistency()(scored([boxed("1")], None))
    with pytest.raises(ValueError, match="3 completions are no whole groups of 2"):
        scored([boxed("1")] * 3, 2)


def test_settings_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"reward\.self_consistency\.extract is 'box'; expected one of boxed"):
        SelfConsistency(extract="box")
    with pytest.raises(UserError, match=r"reward\.self_consistency\.workers is 0; expected 1 or more"):
        SelfConsistency(workers=0)


def test_answers_are_read_as_the_settings_say() -> None:
    batch = scored(["The answer is 4.", "Answer: 4", "It is 5", boxed("4")], 4)
    assert SelfConsistency(extract="answer_line")(batch) == [0.5, 0.5, 0.0, 0.0]
    assert SelfConsistency(extract="last_number")(batch) == [0.75, 0.75, 0.25, 0.75]


def test_the_trainer_says_how_large_groups_are() -> None:
    reward = RewardFunction("self_consistency", SelfConsistency())
    reward.bind([9], 8, 2)
    completions = [boxed("1"), boxed("1"), boxed("1"), boxed("2")]
    assert reward(completions=completions, completion_ids=[[1, 9]] * 4) == [1.0, 1.0, 0.5, 0.5]
    assert reward(completions=completions, completion_ids=[[1, 9], [1], [1, 9], [1, 9]]) == [0.5, 0.0, 0.5, 0.5]


@pytest.mark.parametrize("name", ["self_consistency", "random", "format"])
def test_rewards_without_labels_stand_alone_and_give_the_verdict_while_accuracy_is_only_measured(name: str) -> None:
    config = compose([f"reward={name}"])
    assert list(config.reward) == [name, "accuracy"]
    assert [reward.weight for reward in config.reward.values()] == [1.0, 0.0]
