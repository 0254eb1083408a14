"""From outcomes to forks on a path that was made up: what is found, and where."""

from dataclasses import replace

import numpy as np
import pytest

from rlvr.analysis.forking.cells import START, CellKey
from rlvr.analysis.forking.ledger import Outcomes
from rlvr.analysis.forking.output import csv_rows, finding_of
from rlvr.analysis.forking.result import CUT, NO_ANSWER, analyse, outcome_names
from rlvr.analysis.forking.settings import ForkSettings
from tests.analysis.forking.made import FORK, LENGTH, RIGHT, WRONG, analysed, base_of, outcomes_of


@pytest.mark.parametrize("seed", range(10))
def test_the_planted_fork_is_found_and_nothing_else(seed: int) -> None:
    """The outcomes are 40 : 60 up to position 4, and certain from position 5: the token at 4 decides."""
    result = analysed(seed=seed)
    assert [(fork.first, fork.last, fork.text) for fork in result.forks] == [(FORK, FORK, "e")]
    assert [one.hazard for one in result.positions] == pytest.approx([0.6 if at == FORK else 0 for at in range(LENGTH)])
    assert [one.survival for one in result.positions] == pytest.approx([1.0] * FORK + [0.4] * (LENGTH - FORK))
    assert sorted(result.categories) == sorted([RIGHT, WRONG])
    assert result.right == RIGHT
    right = result.categories.index(RIGHT)
    assert result.positions[FORK].outcomes[right] == pytest.approx(0.4)  # 0.4 * 1 + 0.6 * 0, without noise
    assert result.forks[0].after[right] == 1
    assert result.positions[-1].tv == 0


def test_a_stride_brackets_the_fork() -> None:
    """Positions 0, 3, 6, 9: the change is between 3 and 6, so one of the tokens 3, 4 and 5 decides."""
    result = analysed(ForkSettings(stride=3))
    assert [one.position for one in result.positions] == [0, 3, 6, 9]
    assert [(fork.first, fork.last, fork.text) for fork in result.forks] == [(3, 5, "def")]


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_stride_sees_what_is_seen_without(stride: int) -> None:
    every, some = analysed(), analysed(ForkSettings(stride=stride))
    for one in some.positions:
        assert one.hazard == every.positions[one.position].hazard
        assert one.drift == every.positions[one.position].drift


def test_a_cell_that_is_missing_is_not_made_up() -> None:
    base = base_of()
    known = outcomes_of(base)
    del known[CellKey(FORK, 50)]
    with pytest.raises(KeyError):
        analyse(base, known, ForkSettings(), list("abcdefghij"), str)


def test_names_of_outcomes_by_hand() -> None:
    """Equal answers are one category, named by the first; all right ones are one; cut and missing have their own."""
    first = Outcomes(START, START, ["0.5", "1/2", None, "7", "8"], [True, True, False, False, False],
                     [False, False, False, False, True], [3] * 5)  # fmt: skip
    second = Outcomes(0, 5, ["7.0", "9", None], [False] * 3, [False, False, True], [3] * 3)
    names, right = outcome_names([first, second])
    assert names == [["0.5", "0.5", NO_ANSWER, "7", CUT], ["7", "9", CUT]]
    assert right == "0.5"


def test_rare_answers_are_put_together_and_shares_still_sum_to_one() -> None:
    base = base_of()
    known = outcomes_of(base)
    odd = {key: replace(one, answers=[str(50 + at) if at < 2 else text for at, text in enumerate(one.answers)],
                        right=[at >= 2 and right for at, right in enumerate(one.right)])
           for key, one in known.items()}  # fmt: skip
    result = analyse(base, odd, ForkSettings(), list("abcdefghij"), str)
    assert result.categories[-1] == "(other)"
    np.testing.assert_allclose([one.outcomes.sum() for one in result.positions], 1)
    assert [fork.first for fork in result.forks] == [FORK]


def test_rows_of_the_csv_file_and_the_table() -> None:
    result = analysed()
    rows = csv_rows(result)
    assert [row["fork"] for row in rows] == [int(at == FORK) for at in range(LENGTH)]
    assert rows[FORK]["mass"] == 1.0
    assert rows[0]["mass"] == 0.95
    assert set(rows[0]) >= {"position", "text", "entropy", "drift", "tv", "hazard", "survival", f"o_{RIGHT}"}
    sheet = finding_of(result, "title").sheet
    assert len(sheet.rows) == 1
    assert sheet.rows[0][:4] == ["4", "e", "50 0.60", "0.67"]
    assert sheet.rows[0][6] == f"{RIGHT}* 100 %"
    assert sheet.notes[0].startswith("1 fork in 10 positions; p = 0.005 against")
