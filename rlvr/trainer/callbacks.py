"""What watches a run: the metrics file, the progress line, the alarms, held-out accuracy."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from rlvr.launch.agreement import check_engine

SHOWN = (
    ("reward", "reward", "{:.3f}"),
    ("accuracy", "accuracy", "{:.3f}"),
    ("entropy", "entropy", "{:.3f}"),
    ("selection/kept_fraction", "kept", "{:.2f}"),
)
"""(metric, name on screen, format) of the progress line."""

CLIPPED_RATIO_ALARM = 0.2
DROPPED_ENTROPY_GROWTH = 5.0
DROPPED_ENTROPY_FLOOR = 0.05
ENTROPY_GAP = 0.05
PATIENCE = 3
"""Rollout batches in a row before an alarm: a single one may be chance."""


def is_step(logs: dict[str, Any] | None) -> bool:
    """Whether a log belongs to an optimizer step; the closing summary of a training does not."""
    return logs is not None and "loss" in logs


class MetricsFile(TrainerCallback):
    """Appends a row per optimizer step to `metrics.jsonl`; a resume cuts the file to the checkpoint's step.

    `seconds` counts training time: after a resume it goes on from the last row that stays.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()
        if not state.is_world_process_zero:
            return
        kept = [row for row in self._rows() if row["step"] <= state.global_step]
        if kept:
            self._start -= kept[-1]["seconds"]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        partial.replace(self.path)

    def _rows(self) -> list[dict[str, Any]]:
        """What was written so far; a run that was killed may have left half a line at the end."""
        lines = self.path.read_text().split("\n") if self.path.exists() else []
        return [json.loads(line) for line in lines[:-1]]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or logs is None or not is_step(logs):
            return
        head = {
            "step": state.global_step,
            "rollout_step": logs.get("rollout_step"),
            "epoch": logs.get("epoch"),
            "seconds": round(time.perf_counter() - self._start, 3),
        }
        row = {**head, **{name: value for name, value in logs.items() if name not in head}}
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        with self.path.open("a") as file:
            file.write(json.dumps(finite) + "\n")


class ProgressLine(TrainerCallback):
    """A live bar on a terminal, a line every now and then elsewhere.

    Args:
        mode: `auto`, `bar`, `lines` or `none`.
        console: where to draw the bar.
        say: prints a line.
        every: optimizer steps between lines.
    """

    def __init__(self, mode: str, console: Console, say: Callable[[str], None], every: int = 10) -> None:
        self.mode = ("bar" if console.is_terminal else "lines") if mode == "auto" else mode
        self.console = console
        self.say = say
        self.every = every
        self._bar: Progress | None = None
        self._task: Any = None
        self._last = (0.0, 0.0)
        self._rate = 0.0
        self._shown: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = (time.perf_counter(), float(state.num_input_tokens_seen))
        if not state.is_world_process_zero:
            self.mode = "none"
        if self.mode == "bar":
            self._bar = Progress(
                TextColumn("training"), BarColumn(bar_width=24), MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"), TextColumn("ETA"), TimeRemainingColumn(), console=self.console,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, numbers="")
            self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.mode == "none" or logs is None or not is_step(logs):
            return
        self._shown |= {name: logs[name] for name, _, _ in SHOWN if logs.get(name) is not None}
        line = self._line(logs)
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, numbers=line)
        elif state.global_step % self.every == 0 or state.global_step == 1:
            self.say(f"step {state.global_step:>4}/{state.max_steps}  {line}")

    def _line(self, logs: dict[str, Any]) -> str:
        if logs.get("num_tokens") is not None:  # only the first row of a rollout batch counts tokens
            now, tokens = time.perf_counter(), float(logs["num_tokens"])
            self._rate = (tokens - self._last[1]) / max(now - self._last[0], 1e-9)
            self._last = (now, tokens)
        numbers = [f"{label} {form.format(self._shown[name])}" for name, label, form in SHOWN if name in self._shown]
        return "  ".join([*numbers, f"{self._rate:,.0f} tokens/s"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.stop()


class Alarms(TrainerCallback):
    """Warns of what shows that a policy is coming apart, once each.

    The end-of-text token has low entropy, so with few selected tokens nothing anchors it: a policy that forgets how to
    stop shows in the share of clipped completions, and one whose unselected tokens drift in their entropy.

    Args:
        warn: called with one line.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.raised: set[str] = set()
        self._runs: dict[str, int] = {}
        self._first_dropped: float | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or not is_step(logs):
            return
        clipped = logs.get("completions/clipped_ratio")
        if clipped is not None:
            self._check(
                "clipped", clipped > CLIPPED_RATIO_ALARM,
                f"step {state.global_step}: {clipped:.0%} of completions hit the length limit (alarm above "
                f"{CLIPPED_RATIO_ALARM:.0%}); the policy may be forgetting how to stop: lower optimizer.learning_rate, "
                "raise selection.keep or rollouts.max_completion_length",
            )  # fmt: skip
        equal = logs.get("frac_reward_zero_std")
        if equal is not None:
            self._check(
                "nothing", equal >= 1,
                f"step {state.global_step}: no group had rewards that differ in {PATIENCE} rollout batches, so nothing "
                f"is trained; accuracy {logs.get('accuracy') or 0:.0%}, {clipped or 0:.0%} of completions cut at the "
                "length limit: look at rollouts/, raise rollouts.max_completion_length, let the prompt ask for "
                "\\boxed{} (data.template), or choose problems the policy solves sometimes",
            )  # fmt: skip
        dropped = logs.get("selection/entropy_dropped")
        if dropped is not None:
            self._first_dropped = dropped if self._first_dropped is None else self._first_dropped
            bound = max(DROPPED_ENTROPY_FLOOR, DROPPED_ENTROPY_GROWTH * self._first_dropped)
            self._check(
                "dropped", dropped > bound,
                f"step {state.global_step}: tokens outside the selection have {dropped:.3f} nats of entropy, "
                f"{self._first_dropped:.3f} at the start; nothing trains them: lower optimizer.learning_rate or raise "
                "selection.keep",
            )  # fmt: skip

        gap = logs.get("sampling/entropy_gap")
        if gap is not None:
            self._check(
                "gap", gap > ENTROPY_GAP,
                f"step {state.global_step}: entropies recorded while sampling are {gap:.3f} nats off those of the "
                "gradient pass on average; the model samples differently from how it is trained: set "
                "rollouts.record_scores=false",
            )  # fmt: skip

    def _check(self, name: str, bad: bool, message: str) -> None:
        self._runs[name] = self._runs.get(name, 0) + 1 if bad else 0
        if self._runs[name] >= PATIENCE and name not in self.raised:
            self.raised.add(name)
            self.warn(message)


class HeldOut(TrainerCallback):
    """Measures held-out accuracy every so many optimizer steps.

    Args:
        every: optimizer steps.
        measure: called with the step, on every rank.
    """

    def __init__(self, every: int, measure: Callable[[int], None]) -> None:
        self.every, self.measure = every, measure

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.measure(state.global_step)


class EngineCheck(TrainerCallback):
    """Stops a run whose engine is not the one that was asked for, on every rank and before the first step.

    Args:
        engine: gives the trainer's wrapped model, once it is built.
        stage: of ZeRO; None for no DeepSpeed.
        ranks: processes of the run.
    """

    def __init__(self, engine: Callable[[], Any], stage: int | None, ranks: int) -> None:
        self.engine, self.stage, self.ranks = engine, stage, ranks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_engine(self.engine(), self.stage, self.ranks)
