"""A signal that asks a run to end: noted, agreed upon at the end of a step, and answered with a checkpoint."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rlvr.cli import main
from rlvr.launch.status import STATUS_DIR, End, write_end
from rlvr.preemption import Notice, Preempted, caught
from rlvr.run_folder import RunFolder
from rlvr.trainer.preemption import Preemption
from tests.ranks import run_ranks
from tests.trainer.tiny_run import assert_equal_weights, history, make_trainer, odd_sum, weights

SMALL = ["rollouts.prompts=4", "evaluation.problems=4", "rollouts.max_completion_length=16"]


def ask(number: int = signal.SIGTERM) -> None:
    """This process, as a scheduler asks it."""
    os.kill(os.getpid(), number)


def trained(folder: Path, stop_in: int | None = None, number: int = signal.SIGTERM, **changes: Any) -> Any:
    """A tiny training; the signal comes in the reward of a rollout batch, in the midst of a step."""
    calls = 0

    def reward(completion_ids: Any, **_: Any) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == stop_in:
            ask(number)
        return odd_sum(completion_ids)

    resume = changes.pop("resume", None)
    with caught() as notice:
        preemption = Preemption(notice)
        trainer = make_trainer(
            folder, reward_funcs=reward, max_steps=8, save_strategy="steps", save_steps=100, **changes
        )
        trainer.add_callback(preemption)
        trainer.train(resume_from_checkpoint=resume)
    return trainer, preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_step_is_finished_and_saved_and_a_resume_is_exact(number: int, tmp_path: Path) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)]
    whole, _ = trained(tmp_path / "whole")
    first, preemption = trained(tmp_path / "cut", stop_in=2, number=number)
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert (preemption.step, first.state.global_step) == (5, 5), "the second rollout batch begins in step 5"
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-5"]
    with pytest.raises(Preempted, match="75") as left:
        preemption.leave()
    assert left.value.code == 75
    assert (
        left.value.message
        == f"{signal.Signals(number).name} came; step 5 is the last one and saved: go on with " + ("run.resume=true")
    )
    second, undisturbed = trained(tmp_path / "cut", resume=str(tmp_path / "cut" / "checkpoint-5"))
    undisturbed.leave()
    assert_equal_weights(weights(second), weights(whole))
    assert history(second) == history(whole)


def test_a_run_that_has_made_its_last_step_is_done(tmp_path: Path) -> None:
    with caught() as notice:
        preemption = Preemption(notice)
        trainer = make_trainer(tmp_path, max_steps=1)
        trainer.add_callback(preemption)
        trainer.faults.on_step_end = lambda *_, **__: ask()  # type: ignore[method-assign]
        trainer.train()
        assert notice.came == "SIGTERM"
        preemption.leave()


def test_a_process_that_has_begun_nothing_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as left, caught():
        ask()
    assert left.value.message == "SIGTERM came before the first step; nothing is saved: start again"
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_inside_another_is_the_same() -> None:
    with caught() as outer:
        outer.waits = True
        with caught() as inner:
            assert inner is outer
        ask()
        assert inner.came == "SIGTERM"


def test_a_launcher_passes_every_signal_on_as_sigterm() -> None:
    told: list[int] = []
    with caught():
        before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        ask(signal.SIGUSR1)
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM]


def test_a_thread_notes_nothing_and_breaks_nothing() -> None:
    seen: list[Notice] = []

    def work() -> None:
        with caught() as notice:
            seen.append(notice)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0].came is None


ASKED_WITH_A_LOST_RANK = """
import os, signal, sys, time
from rlvr.preemption import caught
with caught() as notice:
    notice.waits = True
    os.kill(os.getpid(), signal.SIGTERM)
    print("alive", notice.came)
"""


@pytest.mark.parametrize(("other", "alive"), [(None, True), (End(75), True), (End(0), True), (End(1), False)])
def test_a_rank_whose_fellow_has_crashed_does_not_wait_for_it(other: End | None, alive: bool, tmp_path: Path) -> None:
    if other is not None:
        write_end(tmp_path, 1, other)
    done = subprocess.run(
        [sys.executable, "-c", ASKED_WITH_A_LOST_RANK], env={**os.environ, STATUS_DIR: str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == ((0, "alive SIGTERM\n") if alive else (-signal.SIGTERM, "")), done.stderr


def test_any_rank_is_enough() -> None:
    def on_rank(rank: int) -> list[bool]:
        notice = Notice()
        nobody = Preemption(notice).agreed()
        notice.came = "SIGTERM" if rank == 1 else None
        return [nobody, Preemption(notice).agreed()]

    assert run_ranks(2, on_rank) == [[False, True]] * 2


def test_rlvr_train_returns_75_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlvr.rewards.adapter import RewardFunction

    right = RewardFunction.__call__
    calls: list[int] = []

    def asked(self: Any, *args: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            ask()
        return right(self, *args, **keywords)

    monkeypatch.setattr(RewardFunction, "__call__", asked)
    command = ["train", *SMALL, f"run.dir={tmp_path}", "run.name=x", "run.steps=3"]
    assert main(command) == 75
    folder = RunFolder(tmp_path / "x")
    assert [path.name for path in folder.complete_checkpoints()] == ["checkpoint-2"]
    assert not folder.summary.exists(), "no closing evaluation"
    assert main([*command, "run.resume=true"]) == 0
    assert [path.name for path in folder.complete_checkpoints()][-1] == "checkpoint-3"
