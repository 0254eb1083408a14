"""Which groups make a batch: the first informative ones, whole, in the order of sampling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.errors import UserError
from rlvr.rollouts.dynamic import DynamicSection, choose_groups


def test_the_first_informative_groups_make_the_batch_and_the_rest_is_surplus() -> None:
    choice = choose_groups({0: True, 1: False, 2: True, 3: True, 4: False, 5: True}, wanted=2)
    assert (choice.batch, choice.surplus, choice.missing) == ([0, 2], [3, 5], 0)


def test_an_exactly_filled_batch_misses_nothing() -> None:
    choice = choose_groups({7: True, 9: True, 8: False}, wanted=2)
    assert (choice.batch, choice.surplus, choice.missing) == ([7, 9], [], 0)


def test_what_is_missing_is_filled_with_the_first_groups_that_teach_nothing_in_order() -> None:
    groups = {0: False, 1: True, 2: False, 3: False}
    assert choose_groups(groups, wanted=3).missing == 2
    assert choose_groups(groups, wanted=3, fill=True).batch == [0, 1, 2]


@given(st.dictionaries(st.integers(0, 200), st.booleans()), st.integers(1, 20))
def test_nothing_is_lost_and_nothing_stands_twice(groups: dict[int, bool], wanted: int) -> None:
    choice = choose_groups(groups, wanted)
    good = {number for number, informative in groups.items() if informative}
    assert set(choice.batch) | set(choice.surplus) == good
    assert len(choice.batch) + len(choice.surplus) == len(good)
    assert choice.missing == max(0, wanted - len(good))
    assert choice.surplus == [] or (choice.missing == 0 and max(choice.batch) < min(choice.surplus))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_rounds": -1}, "rollouts.dynamic.max_rounds is -1"),
        ({"prompts": 0}, "rollouts.dynamic.prompts is 0"),
        ({"short": "skip"}, "rollouts.dynamic.short is 'skip'; expected one of error, fill"),
        ({"surplus": "keep"}, "rollouts.dynamic.surplus is 'keep'; expected one of drop, carry"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DynamicSection(**values)
