"""Which files people mean, and what is read of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr.analysis import records
from rlvr.analysis.records import find_records, read_entropies, said_of, token_rows
from rlvr.errors import UserError
from tests.analysis.made_records import made_file, made_row, made_run


def steps_of(places: list[Path], which: str = "all") -> list[int | None]:
    return [file.step for file in find_records([str(place) for place in places], which)]


def test_records_of_a_run_come_by_step(tmp_path: Path) -> None:
    run = made_run(tmp_path / "x", {step: [made_row(0, [0.5])] for step in (1000000, 1, 21)})
    assert steps_of([run]) == [1, 21, 1000000]
    assert steps_of([run / "rollouts"]) == [1, 21, 1000000]
    assert steps_of([run], "first") == [1]
    assert steps_of([run], "last") == [1000000]
    assert steps_of([run], "21") == [21]
    assert steps_of([run], "2-2000000") == [21, 1000000]
    assert steps_of([run, run]) == [1, 21, 1000000]
    other = tmp_path / "other.parquet"
    other.write_bytes((run / "rollouts" / "step_000021.parquet").read_bytes())
    assert steps_of([other, run], "last") == [None, 1000000]


def test_places_without_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no recorded rollouts; expected a run folder"):
        find_records([str(tmp_path)])
    run = made_run(tmp_path / "x", {5: [made_row(0, [0.5])]})
    with pytest.raises(UserError, match="has no record of steps 6-9; it has 5"):
        find_records([str(run)], "6-9")
    with pytest.raises(UserError, match="--steps is newest; expected all, first, last"):
        find_records([str(run)], "newest")


def test_tokens_stand_one_after_another_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROWS", 2)
    rows = [made_row(0, [0.5, 1.5]), made_row(1, None, [7]), made_row(2, []), made_row(3, [2.5], [9])]
    path = made_file(tmp_path, rows)
    found = list(token_rows(path, ["entropies", "token_ids", "kept"], ["prompt_id", "correct"]))
    assert [part.lengths.tolist() for part in found] == [[2], [0, 1]]
    assert [part.index.tolist() for part in found] == [[0], [2, 3]]
    assert [part.left_out for part in found] == [1, 0]
    assert found[0].tokens["entropies"].tolist() == [0.5, 1.5]
    assert found[0].tokens["entropies"].dtype == np.float32
    assert found[1].tokens["token_ids"].tolist() == [9]
    assert found[0].tokens["kept"].tolist() == [True, False]
    assert found[1].rows == {"prompt_id": ["p1", "p1"], "correct": [True, True]}
    read = read_entropies(find_records([str(path)]))
    assert (read.values.tolist(), read.completions, read.left_out) == ([0.5, 1.5, 2.5], 3, 1)


def test_broken_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 entropies that are no finite numbers"):
        list(token_rows(made_file(tmp_path, [made_row(0, [0.5, float("nan")])]), ["entropies"]))
    path = made_file(tmp_path, [made_row(0, [0.5], [1, 2])])
    with pytest.raises(UserError, match="token_ids and entropies have different lengths"):
        list(token_rows(path, ["entropies", "token_ids"]))
    with pytest.raises(UserError, match="has no column ratio; expected recorded rollouts"):
        list(token_rows(path, ["ratio"]))
    path.write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read"):
        list(token_rows(path, ["entropies"]))
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(UserError, match="has no column entropies"):
        list(token_rows(path, ["entropies"]))
    unscored = made_file(tmp_path, [made_row(0, None, [1])])
    with pytest.raises(UserError, match=r"no token of .* was scored; expected entropies"):
        read_entropies(find_records([str(unscored)]))


def test_what_was_read_is_said(tmp_path: Path) -> None:
    run = made_run(tmp_path / "x", {step: [made_row(0, [0.5])] for step in (1, 11)})
    files = find_records([str(run)])
    assert said_of(files[:1], 3, 0) == ["3 completions of 1 record, step 1."]
    assert "steps 1 to 11: as many policies, pooled" in said_of(files, 3, 2)[0]
    assert said_of(files, 3, 2)[1].startswith("2 completions were not scored")
