"""A process that stands still says where, before the others give up on it."""

import time
from pathlib import Path

import pytest

from rlvr.trainer.watchdog import Watchdog, watch
from tests.trainer.tiny_run import make_trainer


def standing_still(seconds: float) -> None:
    time.sleep(seconds)


def test_the_stack_is_written_once_after_the_limit(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path / "stacks" / "rank_0.txt", 0.2)
    watchdog.border("train")
    standing_still(0.5)
    watchdog.border("train")
    text = watchdog.path.read_text()
    assert text.startswith("Timeout (0:00:00.2")
    assert text.count("in standing_still") == 1
    assert text.splitlines()[-1].startswith("after 0.")
    assert text.endswith(" s it moved on, at a border of train\n")
    watchdog.close()
    watchdog.close()
    assert watchdog.path.read_text() == text


def test_each_border_gives_new_time_and_nothing_leaves_nothing(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path / "rank_0.txt", 0.4)
    for _ in range(4):
        watchdog.border("generate")
        standing_still(0.2)
    assert watchdog.path.read_text() == ""
    watchdog.close()
    standing_still(0.5)
    assert not watchdog.path.exists()


def test_a_trainer_rearms_it_at_every_phase_and_stops_it_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faulthandler

    armed: list[float] = []
    cancelled: list[int] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, file: armed.append(seconds))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: cancelled.append(len(armed)))
    trainer = make_trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    watch(trainer, tmp_path / "stacks", timeout_seconds=50)
    names: list[str] = []
    border = trainer.at_border
    trainer.at_border = lambda name: (names.append(name), border(name))[1]
    trainer.train()
    assert set(armed) == {40.0}
    assert cancelled == [len(armed)] == [len(names)]
    assert set(names) == {"generate", "reward", "score", "select", "train", "save"}
    assert names[:2] == ["train", "generate"], "generation is inside the step of its first slice"
    assert all(names.count(name) % 2 == 0 for name in names)
    assert not (tmp_path / "stacks" / "rank_0.txt").exists()
