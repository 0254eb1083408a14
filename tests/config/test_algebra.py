"""The batch algebra: worked numbers, messages that name valid values, and rows dealt evenly to ranks and steps."""

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlvr.config.algebra import BatchSizes, divisors, nearest
from rlvr.errors import UserError

FIELDS = {
    "rollouts.prompts": "prompts",
    "optimizer.micro_batch_rows": "micro_batch_rows",
}
SIZES = {
    "prompts": st.integers(1, 40), "num_generations": st.integers(1, 9), "updates_per_rollout": st.integers(1, 6),
    "micro_batch_rows": st.integers(1, 70), "ranks": st.integers(1, 6), "window": st.sampled_from(["group", "row"]),
}  # fmt: skip


def refusal(**sizes: Any) -> str | None:
    """The message, or None where the sizes are valid."""
    try:
        BatchSizes(**sizes)
    except UserError as error:
        return str(error)
    return None


def test_sizes_worked_by_hand() -> None:
    sizes = BatchSizes(
        prompts=8, num_generations=6, updates_per_rollout=2, num_iterations=3, micro_batch_rows=4, ranks=2
    )
    assert sizes.completions == 48
    assert sizes.rows_per_rank == 24
    assert sizes.slices_per_step == 3
    assert sizes.slices_per_rollout == 6
    assert sizes.steps_per_rollout == 6
    assert not sizes.on_policy


def test_one_update_and_one_iteration_is_on_policy() -> None:
    assert BatchSizes(4, 4, 1, 1, 4).on_policy
    assert not BatchSizes(4, 4, 2, 1, 4).on_policy
    assert not BatchSizes(4, 4, 1, 2, 4).on_policy


def test_windows_worked_by_hand() -> None:
    groups = BatchSizes(4, 2, 2, 1, 1, window="group")
    assert [groups.step_of_row(row) for row in range(8)] == [0, 0, 1, 1, 0, 0, 1, 1]
    rows = BatchSizes(4, 2, 2, 1, 1, window="row")
    assert [rows.step_of_row(row) for row in range(8)] == [0, 1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("sizes", "key", "value", "fixes"),
    [
        ({"prompts": 7, "num_generations": 4, "ranks": 2}, "rollouts.prompts", "7", "6 or 8"),
        ({"prompts": 1, "num_generations": 4, "ranks": 2}, "rollouts.prompts", "1", "2"),
        ({"prompts": 6, "num_generations": 4, "updates_per_rollout": 4}, "rollouts.prompts", "6", "4 or 8"),
        (
            {"prompts": 3, "num_generations": 3, "updates_per_rollout": 2, "window": "row"},
            "optimizer.updates_per_rollout", "2", "2 or 4",
        ),
        ({"prompts": 4, "num_generations": 4, "micro_batch_rows": 5}, "optimizer.micro_batch_rows", "5", "2 or 4 or 8"),
    ],
)  # fmt: skip
def test_a_share_that_is_not_whole_is_refused_with_the_nearest_values(
    sizes: dict, key: str, value: str, fixes: str
) -> None:
    message = refusal(**sizes)
    assert message is not None
    assert key in message
    assert value in message
    assert f" {fixes}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"prompts": 0}, "rollouts.prompts is 0"),
        ({"num_generations": 0}, "rollouts.num_generations is 0"),
        ({"updates_per_rollout": 0}, "optimizer.updates_per_rollout is 0"),
        ({"num_iterations": -1}, "optimizer.num_iterations is -1"),
        ({"micro_batch_rows": 0}, "optimizer.micro_batch_rows is 0"),
        ({"ranks": 0}, "the number of processes is 0"),
        ({"window": "rows"}, "optimizer.window is 'rows'; expected one of group, row"),
    ],
)
def test_a_size_out_of_range_is_refused_by_name(change: dict, key: str) -> None:
    assert key in str(refusal(**{"prompts": 4, "num_generations": 4, **change}))


@given(st.fixed_dictionaries(SIZES))
def test_every_suggested_value_is_accepted_for_that_key(sizes: dict) -> None:
    message = refusal(**sizes)
    assume(message is not None)
    assert message is not None
    key, values = re.search(r"set (?:it to|(\S+) to) ((?:\d+ or )*\d+)", message).groups()  # type: ignore[union-attr]
    field = FIELDS[key or message.split(" is ")[0]]
    for value in values.split(" or "):
        again = refusal(**{**sizes, field: int(value)})
        assert again is None or again.split(" is ")[0] != message.split(" is ")[0], f"{message}\n{again}"
    if "optimizer.window=row" in message:
        again = refusal(**{**sizes, "window": "row"})
        assert again is None or "optimizer.window=row" not in again


@given(st.fixed_dictionaries(SIZES))
def test_every_rank_has_the_same_number_of_rows_in_every_step(sizes: dict) -> None:
    assume(refusal(**sizes) is None)
    valid = BatchSizes(**sizes)
    counts = {
        (row // valid.rows_per_rank, step): 0
        for row in range(valid.completions)
        for step in range(valid.updates_per_rollout)
    }
    for row in range(valid.completions):
        counts[row // valid.rows_per_rank, valid.step_of_row(row)] += 1
    assert set(counts.values()) == {valid.slices_per_step * valid.micro_batch_rows}


@given(st.fixed_dictionaries(SIZES), st.integers(1, 6))
def test_the_step_of_a_row_does_not_depend_on_the_ranks(sizes: dict, ranks: int) -> None:
    other = {**sizes, "ranks": ranks}
    assume(refusal(**sizes) is None and refusal(**other) is None)
    rows = range(sizes["prompts"] * sizes["num_generations"])
    assert [BatchSizes(**sizes).step_of_row(row) for row in rows] == [
        BatchSizes(**other).step_of_row(row) for row in rows
    ]


def test_divisors_and_nearest_values() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert nearest(5, divisors(12)) == "3 or 4 or 6"
    assert nearest(100, divisors(4), 2) == "2 or 4"
