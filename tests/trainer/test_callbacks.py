"""What watches a run: rows on disk, lines on screen, alarms, held-out accuracy, and the averages of a step."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console

from rlvr.launch.agreement import Disagreement
from rlvr.trainer.batch import Ranks
from rlvr.trainer.callbacks import PATIENCE, Alarms, EngineCheck, HeldOut, MetricsFile, ProgressLine
from rlvr.trainer.stats import StepStats
from tests.ranks import run_ranks


def state(step: int, most: int = 100, main: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=most, is_world_process_zero=main, num_input_tokens_seen=0)


def log(callback: Any, step: int, most: int = 100, main: bool = True, **logs: Any) -> None:
    callback.on_log(None, state(step, most, main), None, logs={"loss": 0.1, **logs})


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def metrics(tmp_path: Path) -> MetricsFile:
    """A metrics file of a run that has just begun."""
    callback = MetricsFile(tmp_path / "metrics.jsonl")
    callback.on_train_begin(None, state(0), None)
    return callback


def test_a_step_is_a_row_that_starts_with_its_place(metrics: MetricsFile) -> None:
    log(metrics, 1, reward=0.5, rollout_step=1, epoch=0.25)
    log(metrics, 2, rollout_step=1, epoch=0.25)
    first, second = rows(metrics.path)
    assert list(first)[:4] == ["step", "rollout_step", "epoch", "seconds"]
    assert (first["step"], first["rollout_step"], first["epoch"], first["reward"]) == (1, 1, 0.25, 0.5)
    assert second["step"] == 2
    assert "reward" not in second
    assert second["seconds"] >= first["seconds"] >= 0


def test_numbers_that_json_lacks_become_null(metrics: MetricsFile) -> None:
    log(metrics, 1, a=float("nan"), b=float("inf"), c=0)
    assert "NaN" not in metrics.path.read_text()
    assert [rows(metrics.path)[0][name] for name in "abc"] == [None, None, 0]


def test_only_optimizer_steps_of_the_main_process_are_rows(metrics: MetricsFile) -> None:
    metrics.on_log(None, state(1), None, logs={"train_runtime": 3.0})
    log(metrics, 1, main=False)
    assert rows(metrics.path) == []


def test_a_resume_cuts_the_file_to_the_checkpoint_and_goes_on(metrics: MetricsFile) -> None:
    for step in (1, 2, 3):
        log(metrics, step)
    long_ago = rows(metrics.path)
    long_ago[1]["seconds"] = 1000.0
    text = "".join(json.dumps(row) + "\n" for row in long_ago)
    metrics.path.write_text(text + '{"step": 4, "lo')  # killed while it wrote
    resumed = MetricsFile(metrics.path)
    resumed.on_train_begin(None, state(2), None)
    assert [row["step"] for row in rows(metrics.path)] == [1, 2]
    log(resumed, 3)
    assert [row["step"] for row in rows(metrics.path)] == [1, 2, 3]
    assert rows(metrics.path)[2]["seconds"] >= 1000, "seconds of training go on from the last row that stays"


def test_a_new_run_leaves_nothing_of_an_old_file(metrics: MetricsFile) -> None:
    log(metrics, 1)
    MetricsFile(metrics.path).on_train_begin(None, state(0), None)
    assert rows(metrics.path) == []


def test_lines_appear_now_and_then_with_the_latest_rollout_numbers() -> None:
    said: list[str] = []
    console = Console(file=io.StringIO())
    line = ProgressLine("auto", console, said.append, every=2)
    assert line.mode == "lines", "a file is no terminal"
    line.on_train_begin(None, state(0), None)
    log(line, 1, reward=0.25, num_tokens=10.0)
    log(line, 2)
    log(line, 3, reward=0.75)
    log(line, 4, **{"selection/kept_fraction": 0.2, "entropy": 1.5})
    line.on_train_end(None, state(4), None)
    assert [text[:14] for text in said] == ["step    1/100 ", "step    2/100 ", "step    4/100 "]
    assert "reward 0.250" in said[0]
    assert "reward 0.250" in said[1], "a step without a new rollout shows the last one's numbers"
    assert "reward 0.750  entropy 1.500  kept 0.20" in said[2]
    assert all(text.endswith(" tokens/s") for text in said)


def test_a_bar_is_drawn_on_a_terminal() -> None:
    screen = io.StringIO()
    line = ProgressLine("auto", Console(file=screen, force_terminal=True, width=120), lambda text: None)
    assert line.mode == "bar"
    line.on_train_begin(None, state(0, 3), None)
    for step in (1, 2, 3):
        log(line, step, most=3, reward=0.5)
    line.on_train_end(None, state(3, 3), None)
    assert "3/3" in screen.getvalue()
    assert "reward 0.500" in screen.getvalue()


@pytest.mark.parametrize(("mode", "main"), [("none", True), ("lines", False)])
def test_nothing_is_said_where_nobody_reads(mode: str, main: bool) -> None:
    said: list[str] = []
    line = ProgressLine(mode, Console(file=io.StringIO()), said.append)
    line.on_train_begin(None, state(0, main=main), None)
    log(line, 10, reward=0.5)
    assert said == []


@pytest.mark.parametrize(
    ("metric", "good", "bad", "named"),
    [
        ("completions/clipped_ratio", 0.1, 0.5, "50% of completions hit the length limit"),
        ("selection/entropy_dropped", 0.02, 0.3, "0.300 nats of entropy, 0.020 at the start"),
        ("sampling/entropy_gap", 0.02, 0.1, "0.100 nats off those of the gradient pass"),
        ("frac_reward_zero_std", 0.9, 1.0, "no group had rewards that differ in 3 rollout batches"),
    ],
)
def test_an_alarm_needs_patience_and_sounds_once(metric: str, good: float, bad: float, named: str) -> None:
    warned: list[str] = []
    alarms = Alarms(warned.append)
    values = [good, *[bad] * (PATIENCE - 1), good, *[bad] * (PATIENCE - 1)]
    for step, value in enumerate(values):
        log(alarms, step, **{metric: value})
    assert warned == [], "a good rollout starts the count anew"
    log(alarms, len(values))  # a step without a rollout counts neither way
    log(alarms, len(values) + 1, **{metric: bad})
    assert len(warned) == 1
    assert named in warned[0]
    assert "\n" not in warned[0]
    for step in range(2 * PATIENCE):
        log(alarms, step, **{metric: bad})
    assert len(warned) == 1


def test_entropy_below_the_floor_is_no_alarm() -> None:
    warned: list[str] = []
    alarms = Alarms(warned.append)
    for step in range(10):
        log(alarms, step, **{"selection/entropy_dropped": 0.001 if step == 0 else 0.04})
    assert warned == []


def test_held_out_accuracy_is_measured_every_so_often_but_not_at_the_end() -> None:
    steps: list[int] = []
    callback = HeldOut(3, steps.append)
    for step in range(1, 10):
        callback.on_step_end(None, state(step, 9), None)
    assert steps == [3, 6]


def pairs(**values: tuple[float, float]) -> dict:
    return {name: (torch.tensor(total), torch.tensor(count)) for name, (total, count) in values.items()}


def test_means_are_over_all_slices_of_a_step() -> None:
    stats = StepStats()
    stats.add(pairs(kl=(3.0, 2.0), kept=(1.0, 4.0), none=(0.0, 0.0)))
    stats.add(pairs(kl=(1.0, 6.0), kept=(2.0, 4.0), none=(0.0, 0.0)))
    assert stats.reduce(Ranks(), {}) == {"kl": 0.5, "kept": 0.375, "none": 0.0}
    assert stats.reduce(Ranks(), {}) == {}, "a fresh start"


def test_a_count_that_is_known_replaces_the_sum() -> None:
    stats = StepStats()
    stats.add(pairs(clipped=(3.0, 0.0), other=(1.0, 2.0)))
    assert stats.reduce(Ranks(), {"clipped": 12.0, "unused": 5.0}) == {"clipped": 0.25, "other": 0.5}
    stats.add(pairs(clipped=(0.0, 0.0)))
    assert stats.reduce(Ranks(), {"clipped": 0.0}) == {"clipped": 0.0}


def test_means_are_over_all_ranks() -> None:
    def on_rank(rank: int) -> dict:
        stats = StepStats()
        stats.add(pairs(kl=(1.0, 1.0) if rank == 0 else (4.0, 3.0), clipped=(float(rank), 0.0)))
        return stats.reduce(Ranks(rank, 2, dist.group.WORLD), {"clipped": 4.0})

    assert run_ranks(2, on_rank) == [{"kl": 1.25, "clipped": 0.25}] * 2


def test_an_engine_that_nobody_asked_for_stops_the_run() -> None:
    model = torch.nn.Linear(1, 1)
    EngineCheck(lambda: model, None, 1).on_train_begin(None, None, None)
    with pytest.raises(Disagreement, match="engine"):
        EngineCheck(lambda: model, 2, 1).on_train_begin(None, None, None)
    with pytest.raises(Disagreement, match="DistributedDataParallel"):
        EngineCheck(lambda: model, None, 2).on_train_begin(None, None, None)
