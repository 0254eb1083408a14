"""Reading a run folder: what is missing or broken is said, and only the metrics are needed."""

from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.report.reading import is_count, is_number, read_run, series
from rlvr.run_folder import RunFolder
from tests.report.folders import write_run


def test_a_whole_folder_leaves_no_remark(tmp_path: Path) -> None:
    run = read_run(RunFolder(write_run(tmp_path / "run")))
    assert run.remarks == []
    assert run.setting("run", "seed") == 7
    assert run.setting("run", "seed", "deeper") is None
    assert len(run.metrics) == 12
    assert len(run.records) == 5


def test_metrics_alone_are_enough_and_every_other_part_is_missed(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    run = read_run(tmp_path)
    assert len(run.metrics) == 1
    for part in ("config.yaml", "summary.json", "rollouts/"):
        assert any(part in remark for remark in run.remarks), part


def test_a_folder_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metrics\.jsonl"):
        read_run(tmp_path)


def test_broken_parts_become_remarks(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    (folder / "config.yaml").write_text("run: [\n")
    (folder / "summary.json").write_text("[]")
    run = read_run(folder)
    assert len(run.metrics) == 12
    assert "1 unreadable line," in run.remarks[0]
    assert "config.yaml could not be read" in run.remarks[1]
    assert "summary.json could not be read" in run.remarks[2]
    assert (run.config, run.config_text, run.summary) == ({}, "run: [\n", {})


def test_a_configuration_with_a_dollar_sign_is_left_as_it_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text("model:\n  path: ${nowhere}\n")
    assert read_run(folder).setting("model", "path") == "${nowhere}"


def test_a_series_leaves_out_what_is_no_finite_number() -> None:
    rows = [{"step": 1, "x": 2}, {"step": 2, "x": None}, {"step": 3}, {"step": 4, "x": float("nan")}, {"x": 1.0}]
    assert series(rows, "x") == ([1.0], [2.0])


def test_numbers_and_counts() -> None:
    assert [value for value in (1, 0.5, True, "1", None, float("inf")) if is_number(value)] == [1, 0.5]
    assert [value for value in (3, 0, True, 2.0, None) if is_count(value)] == [3]
