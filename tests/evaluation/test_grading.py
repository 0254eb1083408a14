"""Verdicts on a cell, and which answers are the same: by hand, in any order of arrival, under other rules."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlvr.evaluation import grading
from rlvr.evaluation.commands import grade_ledger, is_ledger
from rlvr.evaluation.grading import answer_classes, grade_cell
from rlvr.evaluation.ledger import Cell, Ledger, gold_text
from rlvr.evaluation.protocol import short_hash
from rlvr.rewards import version
from rlvr.rewards.policy import Policy

GOLDS = {"half": r"\frac{1}{2}", "forms": ("x+1", "1+x"), "seven": "7"}


def row(problem: str, index: int, completion: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "checkpoint": "c", "checkpoint_hash": "h", "benchmark": "b", "problem_id": problem, "sample": index, "seed": 0,
        "draw_hash": "d", "gold": gold_text(GOLDS[problem]), "completion": completion, "token_count": 5,
        "finish_reason": finish,
    }  # fmt: skip


def boxed(text: str) -> str:
    return f"So \\boxed{{{text}}}"


def make_cell(folder: Path, rows: Sequence[dict[str, Any]]) -> Cell:
    cell = Ledger(folder).cell("b", "h", "d", 0)
    cell.samples.add(rows)
    return cell


def classes(cell: Cell, name: str = "p") -> dict[tuple[str, int], str | None]:
    return {(r["problem_id"], r["sample"]): r["answer_class"] for r in cell.rows(name).to_pylist()}


ROWS = [
    row("half", 0, boxed("2")), row("half", 1, boxed("0.5")), row("half", 2, boxed(r"\frac{4}{2}")),
    row("half", 3, boxed(r"\frac12")), row("half", 4, boxed("0.5"), "length"), row("half", 5, "no answer"),
    row("half", 6, boxed("3")), row("half", 7, boxed("2.0")), row("half", 8, boxed(r"\frac{2}{4}")),
    row("seven", 0, boxed("2")), row("seven", 1, boxed("2"), "length"), row("seven", 2, boxed("7.0")),
    row("forms", 0, boxed("1 + x")), row("forms", 1, boxed("x + 1")), row("forms", 2, boxed("x - 1")),
    row("forms", 3, boxed("-1 + x")),
]  # fmt: skip
EXPECTED = {
    # The right answers are one class, named by the first of them; 2, 4/2 and 2.0 are another.
    ("half", 0): "2", ("half", 1): "0.5", ("half", 2): "2", ("half", 3): "0.5", ("half", 4): None, ("half", 5): None,
    ("half", 6): "3", ("half", 7): "2", ("half", 8): "0.5",
    ("seven", 0): "2", ("seven", 1): None, ("seven", 2): "7.0",
    ("forms", 0): "1 + x", ("forms", 1): "1 + x", ("forms", 2): "x - 1", ("forms", 3): "x - 1",
}  # fmt: skip


def test_verdicts_and_classes_by_hand(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, ROWS)
    assert grade_cell(cell, "p", Policy()) == len(ROWS)
    assert classes(cell) == EXPECTED
    rows = {(r["problem_id"], r["sample"]): r for r in cell.rows("p").to_pylist()}
    right = {key for key, r in rows.items() if r["correct"]}
    assert right == {("half", 1), ("half", 3), ("half", 8), ("seven", 2), ("forms", 0), ("forms", 1)}
    assert (rows["half", 4]["extracted"], rows["half", 4]["status"]) == ("0.5", "wrong")  # cut at the limit
    assert (rows["half", 5]["extracted"], rows["half", 5]["status"]) == (None, "no_answer")
    assert grade_cell(cell, "p", Policy()) == 0


def test_a_cut_answer_votes_where_the_rules_let_it(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, ROWS)
    grade_cell(cell, "p", Policy(truncated_wrong=False))
    assert classes(cell) == {**EXPECTED, ("half", 4): "0.5", ("seven", 1): "2"}


def test_samples_that_are_added_later_change_no_verdict(tmp_path: Path) -> None:
    at_once = make_cell(tmp_path / "once", ROWS)
    grade_cell(at_once, "p", Policy())
    for step in (1, 2, 3):
        cell = make_cell(tmp_path / str(step), [])
        for first in range(0, 9, step):
            later = [r for r in ROWS if first <= r["sample"] < first + step]
            cell.samples.add(later)
            before = classes(cell)
            assert grade_cell(cell, "p", Policy()) == len(later)
            assert before.items() <= classes(cell).items()
        assert cell.rows("p").equals(at_once.rows("p"))


@pytest.mark.parametrize("size", [1, 4, 9, 14])
def test_verdicts_do_not_depend_on_how_many_are_graded_at_once(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "CHUNK_ROWS", size)
    cell = make_cell(tmp_path, ROWS)
    grade_cell(cell, "p", Policy())
    assert classes(cell) == EXPECTED
    assert len(cell.verdicts.files()) == {1: 3, 4: 3, 9: 2, 14: 1}[size]  # forms 4, half 9, seven 3: whole problems


def test_killed_half_way_the_verdicts_so_far_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_cell(tmp_path, ROWS)
    verdicts, calls = grading._verdicts, []

    def killed(rows: list[dict[str, Any]], policy: Policy) -> list[dict[str, Any]]:
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return verdicts(rows, policy)

    monkeypatch.setattr(grading, "CHUNK_ROWS", 1)
    monkeypatch.setattr(grading, "_verdicts", killed)
    with pytest.raises(KeyboardInterrupt):
        grade_cell(cell, "p", Policy())
    assert len(cell.rows("p")) == 4
    assert grade_cell(cell, "p", Policy()) == len(ROWS) - 4
    assert calls == [4, 9, 9, 3]
    assert classes(cell) == EXPECTED


def test_classes_are_those_of_the_first_equal_answer() -> None:
    def found(*texts: str | None, right: Sequence[str] = (), mute: Sequence[int] = ()) -> list[str | None]:
        problem = [
            {"extracted": text, "correct": text in right, "votes": index not in mute}
            for index, text in enumerate(texts)
        ]
        return answer_classes([problem])[0]

    assert found() == []
    assert found(None, None) == [None, None]
    assert found("3", "6/2", "3.0", "4") == ["3", "3", "3", "4"]
    assert found("6/2", "3", None, "3") == ["6/2", "6/2", None, "6/2"]
    assert found("3", "3", mute=[0]) == [None, "3"]
    assert found("1/2", "3", "0.5", right=["1/2", "0.5"]) == ["1/2", "3", "1/2"]
    # A text that says nothing to the grader is a class of its own, with its equals.
    assert found("\\frac{", "x", "\\frac{") == ["\\frac{", "x", "\\frac{"]


def test_problems_do_not_see_one_another() -> None:
    def one(text: str, right: bool) -> dict[str, Any]:
        return {"extracted": text, "correct": right, "votes": True}

    first, second = [one("0.5", False), one("1/2", False)], [one("1/2", True), one("2/4", True), one("0.5", False)]
    assert answer_classes([first, second]) == [["0.5", "0.5"], ["1/2", "1/2", "0.5"]]


RULES = {"extract": "boxed", "think": "after", "truncated_wrong": True, "relative_tolerance": None, "longest": 512}


def described(folder: Path, rows: Sequence[dict[str, Any]], grader: str | None = None) -> tuple[Cell, str]:
    """A graded cell with its description."""
    cell = make_cell(folder, rows)
    protocol = {"engine": "e", "grading": RULES, "grader": grader or version.grader_version()}
    name = short_hash(protocol)
    cell.write_description({
        "checkpoint": "c", "checkpoint_hash": "h", "step": None, "benchmark": {"name": "b"}, "problems": 3, "seed": 0,
        "protocols": {name: {"name": "paper_8020", **protocol}},
    })  # fmt: skip
    grade_cell(cell, name, Policy())
    return cell, name


def test_regrading_draws_nothing_and_keeps_the_old_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [row("seven", 0, "The answer is 7."), row("seven", 1, boxed("7")), row("seven", 2, "It is 7", "length")]
    cell, old = described(tmp_path, lines)
    samples, before = cell.samples.read(), cell.rows(old)
    assert is_ledger(tmp_path)
    grade_ledger(tmp_path, {"extract": "last_number"})
    assert cell.samples.read().equals(samples)
    assert cell.rows(old).equals(before)
    (new,) = set(cell.describe()["protocols"]) - {old}
    assert [r["correct"] for r in cell.rows(old).to_pylist()] == [False, True, False]
    assert [r["correct"] for r in cell.rows(new).to_pylist()] == [True, True, False]
    assert cell.describe()["protocols"][new]["name"] == "paper_8020, extract=last_number"
    assert f"c on b: 3 samples graded under {new} (paper_8020, extract=last_number; grader" in capsys.readouterr().out
    files = [path.read_bytes() for path in cell.verdicts.files()]
    grade_ledger(tmp_path, {"extract": "last_number"})  # regrading again does nothing
    assert [path.read_bytes() for path in cell.verdicts.files()] == files
    assert set(cell.describe()["protocols"]) == {old, new}


def test_a_new_grader_grades_beside_the_old_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell, old = described(tmp_path, ROWS, grader="0 (math-verify 0.1)")
    grade_ledger(tmp_path, {})
    (new,) = set(cell.describe()["protocols"]) - {old}
    assert len(cell.rows(new)) == len(cell.rows(old)) == len(ROWS)
    assert cell.describe()["protocols"][new]["grader"] == version.grader_version()
    assert json.loads(json.dumps(cell.describe()["protocols"][new]["grading"])) == RULES
    assert capsys.readouterr().out.count("16 samples graded") == 1
