"""Results in trackers: read back from TensorBoard's files and from wandb's offline ones."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from rlvr.errors import UserError
from rlvr.evaluation import tracking
from rlvr.evaluation.results import summarise
from rlvr.evaluation.tracking import log_results, metrics_of
from tests.evaluation.made_scores import made, run_of


def test_the_names_of_the_numbers() -> None:
    found = metrics_of(summarise(made([[1, 0], [1, 1]], total=30)))
    names = ["avg@n", "low", "high", "pass@1", "pass@2", "maj@1", "maj@2", "truncated", "no_answer", "tokens"]
    assert list(found) == [f"evaluation/sums/{name}" for name in [*names, "problems", "problems_total"]]
    assert [found[f"evaluation/sums/{name}"] for name in ("problems", "problems_total")] == [2, 30]
    assert found["evaluation/sums/avg@n"] == 0.75
    assert found["evaluation/sums/pass@2"] == 1.0
    assert found["evaluation/sums/low"] < 0.75 < found["evaluation/sums/high"]


def read(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Tracked run -> metric -> (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run)).Reload()
        found[run.name.rsplit("-", 1)[0]] = {
            name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]
        }
    return found


def test_tensorboard_has_each_checkpoint_at_its_step(tmp_path: Path) -> None:
    scores = [*run_of([6, 9]), *run_of([3, 12], benchmark="hard"), made([[1, 0]] * 4), made([[1, 1]] * 4, seed=1)]
    log_results(scores, ["tensorboard"], tmp_path / "logs", {"samples": 2, "benchmarks": ["sums"], "model": None})
    found = read(tmp_path / "logs")
    assert found["x"]["evaluation/sums/avg@n"] == [(10, 0.5), (20, 0.75)]
    assert found["x"]["evaluation/hard/avg@n"] == [(10, 0.25), (20, 1.0)]
    assert found["builtin"]["evaluation/sums/avg@n"] == [(0, 0.75)], "both seeds together, at step 0"
    assert found["x"]["evaluation/sums/tokens"] == [(10, 10.5), (20, 10.5)]


def test_runs_with_equal_names_stay_apart_and_later_checkpoints_join(tmp_path: Path) -> None:
    log_results([*run_of([6]), *run_of([3], run="other/x")], ["tensorboard"], tmp_path, {})
    assert len(list(tmp_path.iterdir())) == 2
    log_results(run_of([6, 9])[1:], ["tensorboard"], tmp_path, {})
    assert len(list(tmp_path.iterdir())) == 2


class Wandb:
    """What accelerate's tracker for wandb is asked."""

    made: ClassVar[list["Wandb"]] = []

    def __init__(self, project: str, **options: Any) -> None:
        self.project, self.options, self.asked = project, options, list[Any]()
        self.tracker = self
        Wandb.made.append(self)

    def start(self) -> None:
        if self.options["name"] == "broken":
            raise type("UsageError", (Exception,), {"__module__": "wandb.errors"})("No API key\nconfigured")

    def define_metric(self, name: str, step_metric: str) -> None:
        self.asked.append((name, step_metric))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.asked.append(values)

    def log(self, values: dict[str, float], step: int | None) -> None:
        self.asked.append((values[tracking.STEP], values["evaluation/sums/avg@n"], step))

    def finish(self) -> None:
        self.asked.append("finished")


def test_wandb_gets_an_axis_that_may_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate.tracking

    monkeypatch.setattr(accelerate.tracking, "WandBTracker", Wandb)
    monkeypatch.setattr(Wandb, "made", [])
    scores = run_of([6, 9])
    log_results(scores[::-1], ["wandb"], tmp_path, {"path": Path("a")})
    log_results(scores[:1], ["wandb"], tmp_path, {})
    first, second = Wandb.made
    assert first.options["id"] == second.options["id"]
    assert (first.options["resume"], first.options["name"]) == ("allow", "x")
    assert first.asked == [
        ("evaluation/*", "evaluation/step"), {"path": "a"}, (10, 0.5, None), (20, 0.75, None), "finished",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"wandb cannot start \(No API key configured\); run `wandb login`"):
        log_results([made([[1]], checkpoint="broken")], ["wandb"], tmp_path, {})


@pytest.mark.slow
def test_wandb_itself_takes_it_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_results(run_of([6, 9]), ["wandb"], tmp_path, {"samples": 2})
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"evaluation/sums/avg@n" in content
    assert b"evaluation/step" in content


def test_unknown_and_missing_trackers_and_two_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="report_to has mlfow; expected wandb or tensorboard"):
        log_results([made([[1]])], ["mlfow"], tmp_path, {})
    scores = [made([[1]]), made([[1]], checkpoint="b", temperature=0.6)]
    with pytest.raises(UserError, match="sums was asked under two protocols"):
        log_results(scores, ["tensorboard"], tmp_path, {})
    with pytest.raises(UserError, match="sums was asked under two protocols"):
        log_results([scores[0], made([[1]], temperature=0.6)], ["tensorboard"], tmp_path, {}, mixed=True)
    log_results(scores, ["tensorboard"], tmp_path / "mixed", {}, mixed=True)
    assert len(read(tmp_path / "mixed")) == 2
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="run `pip install wandb`"):
        log_results([made([[1]])], ["wandb"], tmp_path, {})
    (tmp_path / "file").touch()
    monkeypatch.undo()
    with pytest.raises(UserError, match="expected a writable folder"):
        log_results([made([[1]])], ["tensorboard"], tmp_path / "file" / "x", {})
