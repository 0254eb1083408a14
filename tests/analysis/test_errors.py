"""Entropy as an error signal: what is read from records and ledgers, and what comes out."""

from math import log
from pathlib import Path

import numpy as np
import pytest

from rlvr.analysis.answers import (
    LENGTH,
    MEAN,
    MOST,
    SEMANTIC,
    Answers,
    answer_entropies,
    entropy_summaries,
    ledger_answers,
    record_answers,
    with_levels,
)
from rlvr.analysis.errors import error_signals
from rlvr.analysis.records import find_records
from rlvr.analysis.semantic import semantic_entropy
from rlvr.errors import UserError
from rlvr.evaluation.ledger import Cell
from rlvr.rewards.policy import Policy
from tests.analysis.made_records import made_file, made_row
from tests.evaluation.test_scores import make_cell


def test_semantic_entropy_by_hand() -> None:
    # Four answers in classes of 2, 1 and 1: 1/2 ln 2 + 2 * 1/4 ln 4 = 1.0397, the discrete value of the reference.
    assert semantic_entropy(["a", "a", "b", "c"]) == pytest.approx(1.5 * log(2))
    assert semantic_entropy(["a", "a", "b", "c"]) == pytest.approx(1.0397, abs=5e-5)
    assert semantic_entropy(["a"] * 7) == 0.0
    assert semantic_entropy(["a", "b", "c"]) == pytest.approx(log(3))
    assert semantic_entropy(["a", "a", None, None]) == pytest.approx(1.5 * log(2))  # each None by itself
    with pytest.raises(ValueError, match="there is no answer"):
        semantic_entropy([])


def test_every_sample_has_the_entropy_of_its_problem() -> None:
    draws = np.array(["p", "q", "p", "r", "q"], dtype=object)
    found = answer_entropies(draws, ["1", "2", "1", "3", None])
    np.testing.assert_allclose(found, [0, log(2), 0, np.nan, log(2)])


def test_summaries_of_completions_by_hand() -> None:
    means, most = entropy_summaries(np.array([1.0, 3.0, 0.5], dtype=np.float32), np.array([2, 0, 1, 0]))
    np.testing.assert_array_equal(means, [2.0, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(most, [3.0, np.nan, 0.5, np.nan])
    means, most = entropy_summaries(np.zeros(0, dtype=np.float32), np.array([0, 0]))
    assert np.isnan([*means, *most]).all()


ROWS = [
    made_row(0, [0.1, 0.3], group=0, answer="1"),
    made_row(1, [0.4], group=0, answer="1.0"),
    made_row(2, [2.0, 0.0], group=0, answer="2", correct=False),
    made_row(3, [1.0], group=0, answer="4/2", correct=False),
    made_row(4, None, [5, 6, 7], group=1, answer="3", correct=False),
    made_row(5, [1.5], group=1, answer="1", correct=False, truncated=True),
    made_row(6, [0.2], group=2, answer="1"),
    made_row(7, [9.0], group=2, answer="1", correct=None),
]


def test_a_record_by_hand(tmp_path: Path) -> None:
    answers = record_answers(find_records([str(made_file(tmp_path, ROWS))]))
    assert answers.wrong.tolist() == [False, False, True, True, True, True, False]
    assert answers.problems.tolist() == ["p0"] * 4 + ["p1"] * 2 + ["p2"]
    assert answers.labels.tolist() == [""] * 7
    np.testing.assert_allclose(answers.predictors[MEAN], [0.2, 0.4, 1.0, 1.0, np.nan, 1.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(answers.predictors[MOST], [0.3, 0.4, 2.0, 1.0, np.nan, 1.5, 0.2], rtol=1e-6)
    assert answers.predictors[LENGTH].tolist() == [2, 1, 2, 1, 3, 1, 1]
    # Group 0: the right ones, and 2 = 4/2. Group 1: an answer and a truncated one. Group 2: ungraded ones count as
    # answers, and both say 1.
    np.testing.assert_allclose(answers.predictors[SEMANTIC][:6], [log(2)] * 6)
    assert answers.notes[0] == "1 completions are not graded and are left out."
    assert answers.notes[1].startswith("Token entropies are known for 6 of 7 completions;")


def test_rows_are_told_apart_by_columns(tmp_path: Path) -> None:
    names = ["a"] * 4 + ["b"] * 4
    path = made_file(tmp_path, ROWS, benchmark=names, level=[1, 1, 2, 2, 1, 1, 2, 2])
    files = find_records([str(path)])
    assert record_answers(files).labels.tolist() == ["a 1", "a 1", "a 2", "a 2", "b 1", "b 1", "b 2"]
    assert record_answers(files, by=["group"]).labels.tolist()[:5] == ["a 1 0", "a 1 0", "a 2 0", "a 2 0", "b 1 1"]
    with pytest.raises(UserError, match="has no column colour"):
        record_answers(files, by=["colour"])


def test_the_same_prompt_at_two_steps_is_one_problem_and_two_draws(tmp_path: Path) -> None:
    first = made_file(tmp_path, [made_row(0, [1.0], answer="1"), made_row(1, [1.0], answer="2", correct=False)], step=1)
    second = made_file(tmp_path, [made_row(0, [1.0], answer="1"), made_row(1, [1.0], answer="1")], step=2)
    answers = record_answers(find_records([str(first), str(second)]))
    assert set(answers.problems) == {"p0"}
    np.testing.assert_allclose(answers.predictors[SEMANTIC], [log(2), log(2), 0, 0])


def test_records_without_verdicts_or_with_other_rules_are_refused(tmp_path: Path) -> None:
    ungraded = made_file(tmp_path, [made_row(0, [1.0], correct=None)])
    with pytest.raises(UserError, match="no completion of .* is graded"):  # noqa: RUF043
        record_answers(find_records([str(ungraded)]))
    plain = made_file(tmp_path, [made_row(0, [1.0], completion="it is 1")])
    files = find_records([str(plain)])
    with pytest.raises(UserError, match="1 right completions hold no answer by the rules of grading"):
        record_answers(files)
    assert not record_answers(files, {plain: Policy(extract="last_number")}).wrong.any()


def made_answers(**changes: object) -> Answers:
    wrong = np.array([1, 1, 0, 0, 0, 1], dtype=bool)
    numbers = {MEAN: np.array([3, 1, 2, 1, 0, np.nan]), MOST: np.full(6, np.nan)}
    values = {"wrong": wrong, "problems": np.arange(6), "draws": np.arange(6), "labels": np.array(list("aaabbb")),
              "predictors": numbers, "notes": []} | changes  # fmt: skip
    return Answers(**values)  # type: ignore[arg-type]


def test_signals_by_hand() -> None:
    found = {one.label: one for one in error_signals(made_answers(), resamples=100)}
    assert {one.predictor for one in found.values()} == {MEAN}  # the other one nobody has
    assert (found["all"].completions, found["all"].problems) == (5, 5)
    assert found["all"].wrong == pytest.approx(0.4)
    assert found["all"].area.value == 0.75
    assert found["a"].area.value == 0.5  # 3 > 2 and 1 < 2
    assert np.isnan(found["b"].area.value)
    assert list(found) == ["all", "a", "b"]
    one_label = error_signals(made_answers(labels=np.array(["a"] * 6)), resamples=100)
    assert [one.label for one in one_label] == ["all"]


def test_a_ledger_by_hand(tmp_path: Path) -> None:
    make_cell(tmp_path, "sums", "x", None, {"p": "++--", "q": "-n", "r": "+"})
    answers = ledger_answers(tmp_path)
    assert answers.wrong.tolist() == [False, False, True, True, True, True, False]
    np.testing.assert_allclose(answers.predictors[SEMANTIC], [log(2)] * 6 + [np.nan])
    assert answers.predictors[LENGTH].tolist() == [10, 11, 12, 13, 10, 11, 10]
    assert np.isnan(answers.predictors[MEAN]).all()
    assert set(answers.labels) == {"sums"}
    assert {one.predictor for one in error_signals(answers, resamples=100)} == {SEMANTIC, LENGTH}


def graded_again(cell: Cell, name: str) -> None:
    """The same samples under another protocol, which takes all of them for wrong."""
    rows = cell.verdicts.read().to_pylist()
    cell.verdicts.add({**row, "protocol_hash": name, "correct": False} for row in rows)
    described = cell.describe()
    described["protocols"][name] = {"name": "paper_8020, extract=answer_line", "grading": {"extract": "answer_line"}}
    cell.write_description(described)


def test_samples_that_are_graded_twice_count_once(tmp_path: Path) -> None:
    graded_again(make_cell(tmp_path, "sums", "x", None, {"p": "++--", "q": "-n", "r": "+"}), "again")
    with pytest.raises(UserError) as error:
        ledger_answers(tmp_path)
    said = str(error.value)
    assert "sums was asked under two protocols, paper_8020, extract=answer_line (again, x) and paper_8020 (one" in said
    assert "grading.extract 'answer_line' against (absent)" in str(error.value)
    assert str(error.value).endswith("their scores cannot be compared; choose one with `--protocol HASH`")
    for protocol in ("paper_8020", "paper_8020, extract=answer_line", "agai"):
        assert len(ledger_answers(tmp_path, protocol).wrong) == 7
    assert ledger_answers(tmp_path, "again").wrong.all()
    with pytest.raises(UserError, match="protocol other is not in the ledger; it has paper_8020"):
        ledger_answers(tmp_path, "other")
    graded_again(make_cell(tmp_path, "terms", "x", None, {"p": "+"}), "third")  # benchmarks have their own protocols
    assert len(ledger_answers(tmp_path, "paper_8020").wrong) == 8


def test_levels_come_from_a_file(tmp_path: Path) -> None:
    make_cell(tmp_path, "sums", "x", None, {"p": "+-", "q": "--"})
    levels = tmp_path / "levels.csv"
    levels.write_text("problem_id,level\np,1\nq,5\n")
    answers = with_levels(ledger_answers(tmp_path), levels)
    assert answers.labels.tolist() == ["sums level 1"] * 2 + ["sums level 5"] * 2
    levels.write_text("problem_id,level\np,1\n")
    with pytest.raises(UserError, match="does not name problem q, and 0 others"):
        with_levels(ledger_answers(tmp_path), levels)
    levels.write_text("id,level\np,1\n")
    with pytest.raises(UserError, match="has no columns problem_id and level"):
        with_levels(ledger_answers(tmp_path), levels)
    with pytest.raises(UserError, match="cannot be read"):
        with_levels(ledger_answers(tmp_path), tmp_path / "missing.csv")


def test_a_planted_signal_is_found_and_noise_is_not(tmp_path: Path) -> None:
    """Wrong completions are undecided in one file, and no different in the other."""
    random = np.random.default_rng(0)
    areas = []
    for name, shift in (("signal", 0.5), ("noise", 0.0)):
        rows = []
        for row in range(160):
            correct = bool(random.random() < 0.5)
            entropies = random.exponential(0.3 + shift * (not correct), 30)
            answer = "1" if correct else "2"
            rows.append(made_row(row, entropies.tolist(), correct=correct, answer=answer, group=row // 4))
        answers = record_answers(find_records([str(made_file(tmp_path / name, rows))]))
        signals = error_signals(answers, resamples=300)
        areas.append(next(one.area for one in signals if one.predictor == MEAN))
    assert areas[0].low > 0.9
    assert areas[1].low < 0.5 < areas[1].high
