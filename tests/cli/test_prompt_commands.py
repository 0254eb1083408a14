"""`rlvr passrate`, the filter by its file, and `rlvr select-prompt`, from the command line."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlvr.cli import main

DATA = ["data=arithmetic", "data.train_size=12", "data.heldout_size=4"]


def test_rates_filter_training_prompts_and_choose_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates, chosen = tmp_path / "rates.parquet", tmp_path / "one.jsonl"
    assert main(["passrate", *DATA, "k=6", f"output={rates}"]) == 0
    table = pq.read_table(rates)
    assert {"prompt_id", "n", "correct"} <= set(table.column_names)
    assert table.num_rows == 12
    assert set(table["n"].to_pylist()) == {6}
    varied = sum(0.2 <= count / 6 <= 0.8 for count in table["correct"].to_pylist())
    assert 0 < varied < 12, "the base policy solves some of these sometimes"

    limits = [f"data.filter.file={rates}", "data.filter.pass_rate=[0.2,0.8]"]
    small = ["run.steps=1", "rollouts.prompts=2", "optimizer.micro_batch_rows=16", "evaluation.problems=4"]
    capsys.readouterr()
    assert main(["train", *DATA, *limits, *small, f"run.dir={tmp_path}", "run.name=x", "logging.progress=none"]) == 0
    assert f"{12 - varied} " in capsys.readouterr().out

    assert main(["select-prompt", str(rates), "--output", str(chosen)]) == 0
    assert len(chosen.read_text().splitlines()) == 1


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passrate", *DATA, "k=0"]) == 2
    assert capsys.readouterr().err.startswith("rlvr: k is 0; expected at least 1")
    assert main(["select-prompt", str(tmp_path / "none.parquet")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
