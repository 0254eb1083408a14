"""The table and the page of a sweep, from folders written by hand."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.plan import Arm, Plan
from rlvr.sweep.report import write_report
from rlvr.sweep.results import read_sweep
from rlvr.sweep.table import csv_text, markdown, p_text, summary_sheet
from tests.sweep.fakes import KEEPS, plan_of, written

AFTER = {
    "keep_0.2": [0.92, 0.94, 0.96], "keep_1.0": [0.91, 0.92, 0.93], "random": [0.85, 0.80, 0.81],
}  # fmt: skip
"""Accuracy of each arm, by seed."""


def end(folder: SweepFolder, name: str, after: float | None, **changes: object) -> None:
    """A finished run: entropy falls by 0.01 a step from 0.3, completions have 14 tokens."""
    run = folder.run(name).path
    run.mkdir(parents=True)
    rows = [
        {"step": step, "entropy": 0.3 - 0.01 * step, "completions/mean_length": 14.0, "heldout/accuracy": None}
        for step in range(1, 21)
    ]
    rows[9]["heldout/accuracy"] = 0.7
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "accuracy_before": 0.5, "accuracy_after": after, "greedy_before": 0.5, "greedy_after": 0.99,
        "heldout_problems": 512, "steps": 20, "train_seconds": 3.0, "seed": 0, "accuracy_during": [[10, 0.7]],
        "code": "a",
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary | changes))


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    made = written(plan_of(KEEPS, [0, 1, 2], "keep_1.0"), tmp_path)
    for arm, values in AFTER.items():
        for seed, value in enumerate(values):
            end(made, f"{arm}-seed{seed}", value)
    return made


def test_the_numbers_by_hand(folder: SweepFolder) -> None:
    result = read_sweep(folder.path)
    few, full, coin = result.arms
    assert (few.arm.name, full.versus, result.missing, result.remarks) == ("keep_0.2", None, [], [])
    assert few.numbers["accuracy_after"].mean == pytest.approx(0.94)
    # 0.92, 0.94, 0.96: s = 0.02, half = 4.30265 * 0.02 / sqrt(3) = 0.049683
    assert few.numbers["accuracy_after"].low == pytest.approx(0.94 - 0.049683, abs=1e-6)
    # Differences 0.01, 0.02, 0.03: t = 3.4641, p = 0.0742. Those of random, -0.06, -0.12, -0.12: mean -0.1,
    # s = 0.034641, t = -5, p = 1 - 5 / sqrt(27) = 0.0377. Holm: 2 * 0.0377 = 0.0755, and 0.0742 is raised to that.
    assert few.versus is not None
    assert coin.versus is not None
    assert few.versus.difference.mean == pytest.approx(0.02)
    assert few.versus.p_value == pytest.approx(0.07418, abs=1e-5)
    assert coin.versus.p_value == pytest.approx(0.03775, abs=1e-5)
    assert (coin.versus.adjusted, few.versus.adjusted) == pytest.approx((0.07550, 0.07550), abs=1e-5)
    assert few.versus.sign_flip_p == 0.25
    # The last ten of 20 steps: 0.3 - 0.01 * 15.5.
    assert few.entropy == pytest.approx(0.145)
    assert few.length == pytest.approx(14)


def test_the_table_for_people(folder: SweepFolder) -> None:
    sheet = summary_sheet(read_sweep(folder.path))
    assert sheet.columns == [
        "arm", "seeds", "before", "after", "greedy after", "difference", "p", "adjusted p", "sign flips", "entropy",
        "tokens",
    ]  # fmt: skip
    assert sheet.rows[0] == [
        "keep_0.2", "3", "50.0 (50.0 to 50.0)", "94.0 (89.0 to 99.0)", "99.0 (99.0 to 99.0)", "+2.0 (-0.5 to +4.5)",
        "0.0742", "0.0755", "0.25", "0.145", "14",
    ]  # fmt: skip
    assert sheet.rows[1][5:9] == ["baseline", "-", "-", "-"]
    text = markdown(read_sweep(folder.path))
    assert "| keep_1.0 | 3 | 50.0 (50.0 to 50.0) | 92.0 (89.5 to 94.5) |" in text
    assert "With 3 seeds it cannot go below 0.25" in text
    assert "adjusted by Holm's method over 2 arms" in text
    assert "| random | selection=random | 0: 85.0, 1: 80.0, 2: 81.0 |" in text


def test_the_table_for_programs(folder: SweepFolder) -> None:
    rows = list(csv.DictReader(csv_text(read_sweep(folder.path)).splitlines()))
    assert [row["arm"] for row in rows] == ["keep_0.2", "keep_1.0", "random"]
    assert float(rows[0]["difference_mean"]) == pytest.approx(0.02)
    assert float(rows[2]["p_adjusted"]) == pytest.approx(0.0755, abs=1e-4)
    assert (rows[0]["seeds"], rows[1]["p"], rows[0]["baseline"]) == ("0 1 2", "", "keep_1.0")


def test_cells_that_are_missing_are_named_and_pairs_are_those_of_both(folder: SweepFolder) -> None:
    folder.run("keep_1.0-seed1").summary.unlink()
    result = read_sweep(folder.path)
    assert result.remarks == ["1 of 9 cells are not finished: keep_1.0-seed1."]
    few = result.arms[0]
    assert few.versus is not None
    assert few.versus.difference.seeds == 2
    assert few.numbers["accuracy_after"].seeds == 3


def test_one_seed_has_no_interval_and_no_test(tmp_path: Path) -> None:
    made = written(plan_of(KEEPS, [0], "keep_1.0"), tmp_path)
    for arm, values in AFTER.items():
        end(made, f"{arm}-seed0", values[0])
    row = summary_sheet(read_sweep(made.path)).rows[0]
    assert row[3:9] == ["92.0", "99.0", "+1.0", "-", "-", "1"]


def test_runs_without_held_out_problems_still_make_a_table(tmp_path: Path) -> None:
    made = written(plan_of(KEEPS, [0, 1], "keep_1.0"), tmp_path)
    for cell in read_plan_names(made):
        end(made, cell, None, accuracy_before=None, greedy_before=None, greedy_after=None, heldout_problems=0)
    sheet = summary_sheet(read_sweep(made.path))
    assert sheet.rows[0] == ["keep_0.2", "2", "-", "-", "-", "0.145", "14"]
    write_report(made.path)


def read_plan_names(folder: SweepFolder) -> list[str]:
    return [path.stem for path in sorted((folder.path / "cells").glob("*.yaml"))]


def test_several_baselines_are_told_apart(tmp_path: Path) -> None:
    arms = [
        Arm("a-1", ["x=1"], "a-1"),
        Arm("b-1", ["x=2"], "a-1"),
        Arm("a-2", ["x=3"], "a-2"),
        Arm("b-2", ["x=4"], "a-2"),
    ]
    made = written(Plan("two", "", None, [], [0, 1], arms), tmp_path)
    for arm, base in zip(arms, (0.5, 0.6, 0.7, 0.9), strict=True):
        for seed in (0, 1):
            end(made, f"{arm.name}-seed{seed}", base + 0.05 * seed * ("b" in arm.name))
    sheet = summary_sheet(read_sweep(made.path))
    assert [row[5:7] for row in sheet.rows] == [
        ["-", "baseline"], ["a-1", "+12.5 (-19.3 to +44.3)"], ["-", "baseline"], ["a-2", "+22.5 (-9.3 to +54.3)"],
    ]  # fmt: skip


def test_nothing_finished_is_nothing_to_report(tmp_path: Path) -> None:
    made = written(plan_of(KEEPS, [0], "keep_1.0"), tmp_path)
    with pytest.raises(UserError, match=r"has no finished cell, so there is nothing to report; rlvr sweep --from"):
        read_sweep(made.path)


def test_cells_of_two_versions_of_the_code_are_remarked(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlvr.checkpoints.manifest import Manifest
    from rlvr.sweep import results

    def manifest(path: Path) -> Manifest:
        return type("M", (), {"facts": {"code": "b" if "seed2" in str(path) else "a"}})()  # type: ignore[return-value]

    monkeypatch.setattr(results, "read_manifest", manifest)
    for name in read_plan_names(folder):
        summary = folder.run(name).summary
        summary.write_text(summary.read_text().replace('"code"', '"other"'))  # of a package that did not write it
        place = folder.run(name).checkpoints / "checkpoint-20"
        place.mkdir(parents=True)
        (place / "rlvr_state_0.pt").touch()
    assert "The cells were made by 2 versions of the code" in read_sweep(folder.path).remarks[0]


def test_a_mixture_is_remarked_where_checkpoints_are_gone(folder: SweepFolder) -> None:
    assert read_sweep(folder.path).remarks == []
    for seed, value in enumerate(AFTER["random"]):
        shutil.rmtree(folder.run(f"random-seed{seed}").path)
        end(folder, f"random-seed{seed}", value, code="b")
    assert "The cells were made by 2 versions of the code" in read_sweep(folder.path).remarks[0]


def test_cells_whose_code_is_not_known_are_remarked(folder: SweepFolder) -> None:
    for seed in (0, 2):
        shutil.rmtree(folder.run(f"random-seed{seed}").path)
        end(folder, f"random-seed{seed}", 0.5, code=None)
    assert read_sweep(folder.path).remarks == [
        "It is not known which code made 2 of 9 finished cells: random-seed0, random-seed2."
    ]


def test_the_page_holds_the_table_the_figures_and_no_network(folder: SweepFolder) -> None:
    _, written_files = write_report(folder.path)
    assert [path.name for path in written_files] == ["sweep_report.html", "table.md", "table.csv"]
    text = written_files[0].read_text()
    assert text.count("<svg") == 5
    assert "+2.0 (-0.5 to +4.5)" in text
    assert re.findall(r"(?:src|href)=\"(?!#|data:)([^\"]*)\"", text) == [
        f"{name}-seed{seed}/report.html" for name in AFTER for seed in range(3)
    ]
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    again = write_report(folder.path)[1][0].read_text()
    assert again == text
    for heading in ("Accuracy by share of the tokens kept", "Accuracy by arm", "Entropy by optimizer step"):
        assert f"<h3>{heading}</h3>" in text


def test_names_and_settings_cannot_act_in_the_page(tmp_path: Path) -> None:
    arms = [Arm("a", ["data.path='<script>window.hacked=1</script>'"], "a"), Arm("b", ["x=2\u202e"], "a")]
    made = written(Plan("x", "<img src=x onerror=alert(1)>", None, ["y=</style>"], [0], arms), tmp_path)
    for arm in "ab":
        end(made, f"{arm}-seed0", 0.5)
    text = write_report(made.path)[1][0].read_text()
    assert "<script>window" not in text
    assert "<img" not in text
    assert "\u202e" not in text
    assert "y=</style>" not in text


def test_without_a_swept_keep_there_is_no_figure_of_it(tmp_path: Path) -> None:
    made = written(plan_of({"a": "algorithm=dapo", "b": "algorithm=grpo"}, [0], "a"), tmp_path)
    for arm in "ab":
        end(made, f"{arm}-seed0", 0.5)
    text = write_report(made.path)[1][0].read_text()
    assert "share of the tokens kept" not in text
    assert text.count("<svg") == 4


def test_p_values_as_text() -> None:
    assert [p_text(p) for p in (None, 1.0, 0.0425, 0.00123, 1e-6)] == ["-", "1", "0.0425", "0.00123", "<0.0001"]
