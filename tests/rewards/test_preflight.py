"""Golds are graded before a run: against themselves, other values and other ways to write them."""

import time

import pytest

from rlvr.cli import main
from rlvr.data.base import Gold, Problem
from rlvr.errors import UserError
from rlvr.rewards.policy import Policy
from rlvr.rewards.preflight import examine, other_value, preflight


def problems(*golds: Gold) -> list[Problem]:
    return [Problem(f"question {index}", gold) for index, gold in enumerate(golds)]


@pytest.mark.parametrize(
    ("form", "other"),
    [
        ("15", "25"), ("0.5", "0.6"), ("-90", "-10"), (r"\frac{1}{2}", r"\frac{2}{2}"), ("B", "C"), ("Z", "A"),
        (r"\pi", None), ("0", None), ("yes", None), (r"\{1,2\}", r"\{2,2\}"),
    ],
)  # fmt: skip
def test_other_value(form: str, other: str | None) -> None:
    assert other_value(form) == other


def test_good_golds_pass() -> None:
    found = preflight(problems("15", "12345", r"\frac{1}{2}", "$x+1$", ("0.5", "1/2"), r"\boxed{3}", "B", r"2\sqrt{3}"))
    assert found.failed == []
    assert found.graded["itself"] == 8
    assert found.graded["1,000"] == 1
    assert found.graded[r"\dfrac"] == 1
    assert found.graded["other value"] == 8


def test_golds_that_say_nothing_are_named() -> None:
    data = problems(*["15"] * 10, "", " ", "x" * 600)
    found = examine(data)
    assert found.rows("itself") == [10, 11, 12]
    assert found.unfit() == [10, 11, 12]
    lines = found.lines(data)
    assert lines[0].startswith(f"row 10, prompt_id {data[10].prompt_id}, gold '': itself, '' is unparseable")
    with pytest.raises(UserError, match=r"3 of 13 golds \(23\.1%\) do not grade themselves.*row 10, prompt_id"):
        preflight(data)
    assert preflight(data, limit=0.5).unfit() == found.unfit()


def test_equal_golds_are_graded_once_and_counted_each() -> None:
    found = examine(problems("", "5", "", "5"))
    assert found.graded["itself"] == 4
    assert found.rows("itself") == [0, 2]


def test_other_values_are_refused_under_a_tolerance_too() -> None:
    golds = [r"\frac{1}{3}", "123456.789", "0.00001"]
    assert examine(problems(*golds), Policy(relative_tolerance=0.05)).rows("other value") == []


def test_integer_golds_take_less_than_a_second() -> None:
    data = problems(*[str(number) for number in range(5000)])
    started = time.perf_counter()
    assert preflight(data).unfit() == []
    assert time.perf_counter() - started < 2.0  # a busy machine


def test_the_table_has_a_row_for_every_kind() -> None:
    table = examine(problems("12345", "")).table()
    assert table.row_count == 6
    assert list(table.columns[0].cells)[:2] == ["itself", "itself boxed"]


def test_the_command_checks_a_data_set(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "train.jsonl"
    path.write_text("".join(f'{{"problem": "p{n}", "answer": "{n}"}}\n' for n in range(50)))
    assert main(["check", "data=files", f"data.train_files={path}"]) == 0
    assert "golds of" in capsys.readouterr().out
    path.write_text(path.read_text() + f'{{"problem": "bad", "answer": "{"y" * 600}"}}\n' * 1)
    assert main(["check", "data=files", f"data.train_files={path}", "--limit", "0"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("rlvr: 1 of 51 training golds do not grade themselves")
    assert "row 50, prompt_id" in said.out
