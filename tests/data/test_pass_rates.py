"""Training problems by their measured pass rate: which are kept, what is said about the rest, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr.config.compose import compose
from rlvr.config.convert import to_config, to_mapping
from rlvr.data.arithmetic import Arithmetic
from rlvr.data.base import Problem
from rlvr.data.files import Files
from rlvr.data.pass_rates import Filter, Rate, read_rates
from rlvr.errors import UserError
from rlvr.registry import load_variants

PROBLEMS = [Problem(f"q{index}", str(index)) for index in range(6)]


def write_rates(path: Path, rates: dict[str, tuple[Any, Any]]) -> str:
    """A file of pass rates with a column more than is read."""
    columns = {
        "prompt_id": list(rates), "n": [n for n, _ in rates.values()], "correct": [c for _, c in rates.values()],
        "prompt": ["?"] * len(rates),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)
    return str(path)


def rates_of(problems: list[Problem], path: Path, n: int, *correct: int) -> str:
    return write_rates(path, {p.prompt_id: (n, c) for p, c in zip(problems, correct, strict=True)})


def test_the_interval_is_closed_and_the_order_stays(tmp_path: Path) -> None:
    file = rates_of(PROBLEMS, tmp_path / "r.parquet", 10, 10, 8, 1, 2, 5, 9)
    kept, notes = Filter(file, [0.2, 0.8]).keep(PROBLEMS)
    assert [problem.prompt for problem in kept] == ["q1", "q3", "q4"]
    assert notes == ["3 of 6 measured training problems have a pass rate in [0.2, 0.8]"]
    assert [p.prompt for p in Filter(file, [0.5, 0.5]).keep(PROBLEMS)[0]] == ["q4"]
    assert Filter(file, [0, 1]).keep(PROBLEMS)[0] == PROBLEMS


@pytest.mark.parametrize("n", range(1, 31))
def test_bounds_that_are_a_rate_as_a_decimal_or_fraction_belong_to_the_interval(n: int, tmp_path: Path) -> None:
    hundredths = {c: c * 100 // n / 100 for c in range(n + 1) if c * 100 % n == 0}
    for correct, bound in hundredths.items():
        file = rates_of(PROBLEMS[:1], tmp_path / "r.parquet", n, correct)
        assert Filter(file, [bound, bound]).keep(PROBLEMS[:1])[0] == PROBLEMS[:1]


def test_prompts_without_a_rate_are_left_out_and_counted(tmp_path: Path) -> None:
    rates = {PROBLEMS[0].prompt_id: (4, 2), PROBLEMS[1].prompt_id: (0, 0), "0" * 16: (4, 2)}
    kept, notes = Filter(write_rates(tmp_path / "r.parquet", rates), [0.2, 0.8]).keep(PROBLEMS)
    assert kept == PROBLEMS[:1]
    assert notes[0].startswith("1 of 1 measured training problems")
    assert (
        notes[1] == f"5 of 6 training problems have no rate in data.filter.file={tmp_path}/r.parquet and were left out"
    )


def test_without_a_file_nothing_changes() -> None:
    assert Filter().keep(PROBLEMS) == (PROBLEMS, [])


def test_a_filter_that_leaves_nothing_says_on_which_side_the_rates_lie(tmp_path: Path) -> None:
    file = rates_of(PROBLEMS, tmp_path / "r.parquet", 4, 0, 0, 4, 4, 4, 0)
    with pytest.raises(UserError, match=r"\[0.2,0.8\]: of 6 measured ones 3 lie below, 3 above; widen it"):
        Filter(file, [0.2, 0.8]).keep(PROBLEMS)
    with pytest.raises(UserError, match="holds 6 pass rates, but none of the 1 training prompts; run `rlvr passrate`"):
        Filter(file, [0.2, 0.8]).keep([Problem("another", "1")])


@pytest.mark.parametrize("bounds", [[0.8, 0.2], [0.2], [-0.1, 1], [0, 1.1], [0.1, 0.2, 0.3], [], [math.nan, 1]])
def test_what_is_no_interval_is_refused(bounds: list[float]) -> None:
    with pytest.raises(UserError, match=r"data.filter.pass_rate is .* expected the lowest and the highest share"):
        Filter("r.parquet", bounds)


def test_half_a_filter_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.filter.pass_rate is set without data.filter.file; expected both"):
        Filter(pass_rate=[0.2, 0.8])
    with pytest.raises(UserError, match=r"data.filter.file is set without data.filter.pass_rate; expected both"):
        Filter("r.parquet")


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"a": (2, 3)}, "prompt a has correct=3 and n=2; expected a row a prompt, with 0 <= correct <= n"),
        ({"a": (2, -1)}, "prompt a has correct=-1 and n=2"),
        ({"a": (2.5, 1.5)}, "prompt a has correct=1.5 and n=2.5"),
        ({"a": (None, 1)}, "prompt a has correct=1 and n=None"),
    ],
)
def test_numbers_that_are_no_counts_are_refused(rates: dict[str, tuple[Any, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_rates(write_rates(tmp_path / "r.parquet", rates), "data.filter.file")


def test_files_that_are_no_pass_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"data.filter.file=.*gone.parquet cannot be read \(.*expected the Parquet file"
    ):
        read_rates(tmp_path / "gone.parquet", "data.filter.file")
    (tmp_path / "text.parquet").write_text("prompt_id,n,correct\n")
    with pytest.raises(UserError, match=r"text.parquet cannot be read \("):
        read_rates(tmp_path / "text.parquet", "data.filter.file")
    pq.write_table(pa.table({"prompt_id": ["a"], "rate": [0.5]}), tmp_path / "r.parquet")
    with pytest.raises(UserError, match="has the columns prompt_id, rate; expected prompt_id, n, correct"):
        read_rates(tmp_path / "r.parquet", "data.filter.file")
    pq.write_table(pa.table({"prompt_id": ["a", "a"], "n": [1, 1], "correct": [0, 1]}), tmp_path / "r.parquet")
    with pytest.raises(UserError, match="prompt a stands there twice"):
        read_rates(tmp_path / "r.parquet", "data.filter.file")


def test_a_rate_is_a_share() -> None:
    assert Rate(16, 4).share == 0.25


def test_every_source_of_data_has_the_filter() -> None:
    assert {name: hasattr(cls(), "filter") for name, cls in load_variants()["data"].items()} == dict.fromkeys(
        load_variants()["data"], True
    )


def test_the_built_in_task_is_filtered_and_its_held_out_problems_are_not(tmp_path: Path) -> None:
    whole = Arithmetic(train_size=6, heldout_size=4)
    file = rates_of(whole.train(), tmp_path / "r.parquet", 4, 0, 1, 2, 3, 4, 4)
    data = Arithmetic(train_size=6, heldout_size=4, filter=Filter(file, [0.25, 0.75]))
    assert data.train() == whole.train()[1:4]
    assert data.heldout() == whole.heldout()
    assert data.notes() == ["3 of 6 measured training problems have a pass rate in [0.25, 0.75]"]
    assert whole.notes() == []


def test_rows_of_files_are_filtered_by_the_whole_prompt(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"problem": f"What is {i}?", "answer": i}) + "\n" for i in range(8)))
    settings: dict[str, Any] = {"train_files": [str(path)], "template": "paper_8020", "heldout_size": 2}
    whole = Files(**settings)
    file = rates_of(whole.train(), tmp_path / "r.parquet", 2, 0, 1, 1, 2, 2, 0)
    data = Files(**settings, filter=Filter(file, [0.5, 0.5]))
    assert data.train() == whole.train()[1:3]
    assert data.heldout() == whole.heldout()
    assert data.notes()[-2:] == [
        "2 of 6 measured training problems have a pass rate in [0.5, 0.5]", "training on 2 problems, 2 held out",
    ]  # fmt: skip
    with pytest.raises(UserError, match="none of the 6 training prompts"):
        Files(**{**settings, "template": "none"}, filter=Filter(file, [0.5, 0.5])).train()


def test_the_filter_is_a_section_of_the_configuration(tmp_path: Path) -> None:
    file = rates_of(Arithmetic(train_size=3).train(), tmp_path / "r.parquet", 4, 0, 2, 4)
    settings = ["data.train_size=3", f"data.filter.file={file}", "data.filter.pass_rate=[0.2,0.8]"]
    config = compose(settings)
    assert config.data.filter == Filter(file, [0.2, 0.8])
    assert len(config.data.train()) == 1
    assert to_config(to_mapping(config)).data.filter == config.data.filter
    assert compose([]).data.filter == Filter()
    with pytest.raises(UserError, match=r"data.filter.pas_rate is not a field of Filter; did you mean pass_rate\?"):
        compose(["data.filter.pas_rate=[0,1]"])
    with pytest.raises(UserError, match=r"data.filter.pass_rate\[0\] is 'low'; expected a number"):
        compose([*settings[:-1], "data.filter.pass_rate=[low,high]"])
