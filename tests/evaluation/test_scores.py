"""Scores: the rows of a cell as arrays per problem, and which cells a ledger gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr.errors import UserError
from rlvr.evaluation.ledger import Cell, Ledger
from rlvr.evaluation.scores import read_ledger, read_scores


def make_cell(folder: Path, benchmark: str, label: str, step: int | None, problems: dict[str, str]) -> Cell:
    """`+` is right, `-` wrong, `c` cut, `n` no answer: a letter a sample."""
    cell = Ledger(folder).cell(benchmark, label.replace("/", "_"), "d", 5)
    samples, verdicts = [], []
    for problem, letters in problems.items():
        for index, letter in enumerate(letters):
            key = {"problem_id": problem, "sample": index}
            samples.append({
                **key, "checkpoint": label, "checkpoint_hash": "h", "benchmark": benchmark, "seed": 5, "draw_hash": "d",
                "gold": "1", "completion": letter, "token_count": 10 + index,
                "finish_reason": "length" if letter == "c" else "stop",
            })  # fmt: skip
            verdicts.append({
                **key, "protocol_hash": "one", "extracted": None if letter == "n" else letter, "reason": "",
                "answer_class": letter if letter in "+-" else None, "correct": letter == "+",
                "status": {"+": "correct", "n": "no_answer"}.get(letter, "wrong"),
            })  # fmt: skip
    cell.samples.add(reversed(samples))
    cell.verdicts.add(verdicts)
    cell.write_description({
        "checkpoint": label, "checkpoint_hash": "h", "step": step, "benchmark": {"name": benchmark}, "problems": 9,
        "seed": 5, "protocols": {"one": {"name": "paper_8020"}, "none": {"name": "not graded yet"}},
    })  # fmt: skip
    return cell


def test_rows_become_arrays_per_problem(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, "b", "runs/x/checkpoints/checkpoint-7", 7, {"q": "+-", "p": "+c+n", "r": "----"})
    scores = read_scores(cell, "one")
    assert scores is not None
    assert (scores.checkpoint, scores.step, scores.benchmark) == ("runs/x/checkpoints/checkpoint-7", 7, "b")
    assert (scores.protocol, scores.protocol_hash) == ({"name": "paper_8020"}, "one")
    assert (scores.checkpoint_hash, scores.seed, scores.total) == ("h", 5, 9)
    assert scores.problems == ["p", "q", "r"]
    assert [c.tolist() for c in scores.correct] == [[True, False, True, False], [True, False], [False] * 4]
    assert all(c.dtype == bool for c in scores.correct)
    assert scores.classes == [["+", None, "+", None], ["+", "-"], ["-"] * 4]
    assert [t.tolist() for t in scores.tokens] == [[10, 11, 12, 13], [10, 11], [10, 11, 12, 13]]
    assert [t.tolist() for t in scores.truncated] == [[False, True, False, False], [False] * 2, [False] * 4]
    assert scores.statuses == [["correct", "wrong", "correct", "no_answer"], ["correct", "wrong"], ["wrong"] * 4]
    assert scores.samples is None
    np.testing.assert_array_equal(scores.means(), [0.5, 0.5, 0.0])
    assert read_scores(cell, "none") is None


def test_the_number_of_samples_where_it_is_one(tmp_path: Path) -> None:
    scores = read_scores(make_cell(tmp_path, "b", "x", None, {"p": "+-c", "q": "+++"}), "one")
    assert scores is not None
    assert scores.samples == 3


def test_a_ledger_is_sorted_by_run_step_and_benchmark(tmp_path: Path) -> None:
    for label, step in (("a/checkpoint-10", 10), ("b", None), ("a/checkpoint-9", 9), ("a", None)):
        for benchmark in ("math500", "aime24"):
            make_cell(tmp_path, benchmark, label, step, {"p": "+"})
    found = [(scores.checkpoint, scores.benchmark) for scores in read_ledger(tmp_path)]
    labels = ["a", "a/checkpoint-9", "a/checkpoint-10", "b"]
    assert found == [(label, benchmark) for label in labels for benchmark in ("aime24", "math500")]
    assert {scores.benchmark for scores in read_ledger(tmp_path, ["aime24"])} == {"aime24"}


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_that_is_no_ledger(make: bool, tmp_path: Path) -> None:
    place = tmp_path / "x"
    if make:
        place.mkdir()
    with pytest.raises(UserError, match="is no ledger; expected a folder that `rlvr evaluate` wrote"):
        read_ledger(place)


def test_a_ledger_without_the_benchmark(tmp_path: Path) -> None:
    make_cell(tmp_path, "b", "x", None, {"p": "+"})
    with pytest.raises(UserError, match="has no graded samples of c, d"):
        read_ledger(tmp_path, ["c", "d"])


def test_a_torn_description_is_one_line(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, "b", "x", None, {"p": "+"})
    (cell.folder / "cell.json").write_text('{"checkpoint": ')
    with pytest.raises(UserError, match=r"cell\.json cannot be read .*; run the evaluation again"):
        read_ledger(tmp_path)


def test_a_torn_file_of_rows_is_one_line(tmp_path: Path) -> None:
    cell: Any = make_cell(tmp_path, "b", "x", None, {"p": "+"})
    (file,) = cell.samples.files()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match="is torn; run the evaluation again"):
        read_ledger(tmp_path)
