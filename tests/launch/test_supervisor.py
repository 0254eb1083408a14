"""What an end means, and what follows it."""

import pytest

from rlvr.launch.status import CRASHED, DONE, INTERRUPTED, PREEMPTED, REFUSED, End
from rlvr.launch.supervisor import TERMINATED, Decision, Outcome, decide, outcome, supervise

TWO = range(2)
UNWRITTEN = "a rank ended with exit code 2; what it said stands above, or in its log"


@pytest.mark.parametrize(
    ("ends", "code", "expected"),
    [
        ({0: End(0), 1: End(0)}, 0, Outcome(DONE)),
        ({0: End(75), 1: End(75)}, 1, Outcome(PREEMPTED)),
        ({1: End(75)}, 1, Outcome(PREEMPTED)),  # rank 0 was ended by the launcher, after the barrier
        ({0: End(75), 1: End(1)}, 1, Outcome(CRASHED, failed=(1,))),
        ({0: End(0), 1: End(1)}, 1, Outcome(CRASHED, failed=(1,))),
        ({0: End(0)}, 1, Outcome(CRASHED, failed=(1,))),  # killed by the system
        ({}, 1, Outcome(CRASHED, failed=(0, 1))),
        ({}, 0, Outcome(CRASHED, failed=(0, 1))),  # a launcher that says 0 although no rank was ever there
        ({0: End(1), 1: End(2, "no room")}, 1, Outcome(REFUSED, "no room")),  # rank 0 lost its peer
        ({0: End(2, "first"), 1: End(2, "second")}, 1, Outcome(REFUSED, "first")),
        ({0: End(1)}, 2, Outcome(REFUSED, UNWRITTEN)),  # the other one's disk was full
        ({0: End(2)}, 1, Outcome(REFUSED, UNWRITTEN)),
    ],
)
def test_the_code_of_a_start_is_that_of_its_ranks(ends: dict[int, End], code: int, expected: Outcome) -> None:
    assert outcome(ends, TWO, code, interrupted=False, terminated=False) == expected


def test_signals_say_why_ranks_ended() -> None:
    assert outcome({}, TWO, 1, interrupted=True, terminated=False).code == INTERRUPTED
    assert outcome({}, TWO, 1, interrupted=False, terminated=True).code == TERMINATED
    saved = {0: End(75), 1: End(75)}
    assert outcome(saved, TWO, 1, interrupted=False, terminated=True).code == PREEMPTED


@pytest.mark.parametrize("code", [DONE, REFUSED, PREEMPTED, INTERRUPTED, TERMINATED])
def test_only_a_crash_is_started_again(code: int) -> None:
    assert decide(code, None, 5, 0, max_restarts=3) == Decision(restart=False)


def test_no_restart_unless_it_is_wanted() -> None:
    assert decide(CRASHED, None, 5, 0, max_restarts=0) == Decision(restart=False)


@pytest.mark.parametrize(
    ("before", "after", "fruitless", "restart", "spent"),
    [
        (None, None, 0, True, 1),
        (None, None, 1, True, 2),
        (None, None, 2, False, 0),
        (None, 4, 2, True, 1),  # a first checkpoint is progress
        (4, 6, 2, True, 1),
        (4, 4, 1, True, 2),
        (4, 4, 2, False, 0),
    ],
)
def test_restarts_in_a_row_without_progress_are_counted(
    before: int | None, after: int | None, fruitless: int, restart: bool, spent: int
) -> None:
    found = decide(CRASHED, before, after, fruitless, max_restarts=2)
    assert (found.restart, found.fruitless) == (restart, spent)


class Fake:
    """A run that crashes: step of the newest checkpoint and exit code after each start."""

    def __init__(self, *story: tuple[int | None, int]) -> None:
        self.story, self.step, self.said = list(story), None, list[str]()
        self.starts = list[int]()

    def start(self, starts: int) -> Outcome:
        self.starts.append(starts)
        self.step, code = self.story.pop(0)  # type: ignore[assignment]
        return Outcome(code)

    def run(self, max_restarts: int) -> int:
        return supervise(self.start, lambda: self.step, max_restarts, self.said.append).code


def test_a_run_that_goes_on_is_started_as_often_as_it_takes() -> None:
    fake = Fake((2, 1), (4, 1), (6, 1), (6, 0))
    assert fake.run(1) == DONE
    assert fake.starts == [0, 1, 2, 3]
    assert fake.said[-1] == "the run crashed; restart 1 of 1 in a row, from the checkpoint of step 6"


def test_a_run_that_does_not_get_on_is_given_up() -> None:
    fake = Fake((None, 1), (2, 1), (2, 1), (2, 1), (9, 0))
    assert fake.run(2) == CRASHED
    assert fake.starts == [0, 1, 2, 3]
    assert fake.said[0] == "the run crashed; restart 1 of 2 in a row, from the beginning, for there is no checkpoint"
    assert (
        "gave up after 2 restarts in a row without a newer checkpoint: there is the checkpoint of step 2"
        in (fake.said[-1])
    )


@pytest.mark.parametrize("code", [PREEMPTED, REFUSED, INTERRUPTED])
def test_an_end_that_is_no_crash_ends_the_restarts(code: int) -> None:
    fake = Fake((2, 1), (4, code), (6, 0))
    assert fake.run(3) == code
    assert fake.starts == [0, 1]
