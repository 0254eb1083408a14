"""Strikes are counted in row order: the same outcomes for any number of workers and any order of finishing."""

import heapq
import random

from hypothesis import given
from hypothesis import strategies as st

from rlvr.rewards.breaker import Breaker, Limits
from rlvr.rewards.protocol import Outcome


def run(groups: list[int], seconds: list[float], limits: Limits, workers: int) -> tuple[list[Outcome], float]:
    """Play a batch with given durations on so many workers; also the time it takes."""
    breaker, busy, now, index = Breaker(groups, limits), [], 0.0, 0  # type: ignore[var-annotated]
    while index < len(groups) or busy:
        while index < len(groups) and len(busy) < workers:
            limit = breaker.limit(index)
            if limit is not None:
                heapq.heappush(busy, (now + min(seconds[index], limit), index, limit))
            index += 1
        if busy:
            now, done, limit = heapq.heappop(busy)
            late = seconds[done] > limit
            breaker.note(done, Outcome("timeout", "", limit) if late else Outcome("correct", "", seconds[done]))
    return breaker.settle(), now


BATCHES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.01, 0.1, 0.6, 1.5, 9.0])), min_size=1, max_size=120)


@given(BATCHES, st.sampled_from([None, 1, 3]), st.sampled_from([None, 4.0, 10.0]), st.integers(2, 9))
def test_outcomes_do_not_depend_on_the_number_of_workers(
    batch: list[tuple[int, float]], strikes: int | None, patience: float | None, workers: int
) -> None:
    groups, seconds = [group for group, _ in batch], [duration for _, duration in batch]
    limits = Limits(2.0, strikes, patience)
    several, alone = (
        [(outcome.status, outcome.reason) for outcome in run(groups, seconds, limits, count)[0]]
        for count in (workers, 1)
    )
    assert several == alone


def test_three_strikes_end_a_gold_and_no_other() -> None:
    groups, seconds = [0, 1] * 6, [9.0, 0.01] * 6
    outcomes, _ = run(groups, seconds, Limits(), 2)
    assert [outcome.status for outcome in outcomes[1::2]] == ["correct"] * 6
    assert [outcome.reason for outcome in outcomes[::2]] == (
        ["the comparison took more than 2 s"] * 3 + ["not compared: 3 answers to this gold failed"] * 3
    )


def test_crashes_are_strikes_too() -> None:
    breaker = Breaker([0] * 4, Limits(strikes=2))
    for index in range(2):
        assert breaker.limit(index) == 2.0
        breaker.note(index, Outcome("crash", "died"))
    assert breaker.limit(2) is None
    assert [outcome.status for outcome in breaker.settle()] == ["crash", "crash", "timeout", "timeout"]


def test_a_batch_of_nothing_but_hostile_answers_ends_in_time_and_quick_answers_are_still_read() -> None:
    chance = random.Random(0)
    count = 2000
    seconds = [9.0 if chance.random() < 0.1 else 0.01 for _ in range(count)]
    limits = Limits(2.0, 3, 30.0)
    outcomes, spent = run(list(range(count)), seconds, limits, 2)
    assert spent < 60
    first = seconds.index(9.0)
    assert outcomes[first].reason == "the comparison took more than 2 s"
    assert {outcome.reason for outcome in outcomes} >= {"the comparison took more than 0.5 s"}
    assert run(list(range(count)), [9.0] * count, limits, 2)[1] <= 31
    assert run(list(range(count)), [9.0] * count, limits, 2)[0][-1].reason == "not compared: this batch ran out of time"
