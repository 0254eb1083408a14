"""The outcomes on the disk: whole lines, a cut one drawn again, one process at a time, one set of settings."""

import json
from pathlib import Path

import pytest

from rlvr.analysis.forking.ledger import Ledger, Outcomes
from rlvr.errors import UserError

ROWS = [
    Outcomes(-1, -1, ["12", None], [True, False], [False, True], [9, 40]),
    Outcomes(0, 5, ["9", "12"], [False, True], [False, False], [8, 8]),
    Outcomes(3, 1, ["12"], [True], [False], [0]),
]


def fill(folder: Path) -> None:
    with Ledger(folder) as ledger:
        ledger.add(ROWS[:2])
        ledger.add(ROWS[2:])


def test_what_was_added_is_read_again(tmp_path: Path) -> None:
    fill(tmp_path / "made" / "forks")
    with Ledger(tmp_path / "made" / "forks") as ledger:
        assert ledger.known == {row.key: row for row in ROWS}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_is_taken_away_and_can_be_added_again(tmp_path: Path, cut: int) -> None:
    fill(tmp_path)
    path = tmp_path / "outcomes.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Ledger(tmp_path) as ledger:
        assert list(ledger.known.values()) == ROWS[:2]
        ledger.add(ROWS[2:])
    assert path.read_bytes() == whole


def test_a_line_torn_within_the_file_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "outcomes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[2]]) + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*outcomes.jsonl is torn; remove that line"):
        Ledger(tmp_path)


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(UserError, match="is being written by another process"):
        Ledger(tmp_path)
    Ledger(tmp_path).__exit__()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    settings = {"model": "abc", "samples": 30, "gold": ("1", "2"), "threshold": 0.05}
    for _ in range(2):
        with Ledger(tmp_path) as ledger:
            ledger.settle(settings)
    with Ledger(tmp_path) as ledger, pytest.raises(UserError, match="outcomes with samples 30, not 10; give the same"):
        ledger.settle({**settings, "samples": 10})


def test_outcomes_without_settings_are_nobodys(tmp_path: Path) -> None:
    fill(tmp_path)
    with Ledger(tmp_path) as ledger, pytest.raises(UserError, match=r"has outcomes but no settings\.json"):
        ledger.settle({"samples": 30})


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Ledger(tmp_path / "file" / "forks")


def test_a_line_is_json_of_one_cell(tmp_path: Path) -> None:
    fill(tmp_path)
    first = json.loads((tmp_path / "outcomes.jsonl").read_text().splitlines()[0])
    assert first == {
        "position": -1, "token": -1, "answers": ["12", None], "right": [True, False], "cut": [False, True],
        "tokens": [9, 40],
    }  # fmt: skip
