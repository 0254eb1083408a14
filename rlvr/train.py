"""A run: from its configuration to a trained policy and the folder that holds everything about it."""

import dataclasses
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError

from rlvr.collecting import collector_rests
from rlvr.config.compose import write_config
from rlvr.config.schema import RunConfig
from rlvr.data.base import Problem
from rlvr.errors import UserError
from rlvr.launch.agreement import zero_stage
from rlvr.launch.process_group import wait
from rlvr.preemption import Notice, caught
from rlvr.preflight import (
    check_launch,
    check_space,
    check_tracking,
    load_tokenizer,
    model_path,
    read_problems,
    run_sizes,
    with_golds,
)
from rlvr.resume import AUTO, checkpoint_to_resume, set_aside, shaping
from rlvr.rollouts.stream import PromptStream
from rlvr.run_folder import RunFolder, full_disk, heldout_history
from rlvr.run_log import LOG, log_to
from rlvr.trainer.together import from_lead


def is_main_process() -> bool:
    """Whether this process speaks and writes for the job."""
    return int(os.environ.get("RANK", "0")) == 0


def prompt_rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems as the trainer's prompt rows."""
    return [{"prompt": problem.prompt, "gold": problem.gold, "prompt_id": problem.prompt_id} for problem in problems]


def name_run(config: RunConfig, ranks: int) -> None:
    """Give a run its name, where it has none: from its algorithm and the time.

    Raises:
        UserError: if several processes would each choose their own, or a resume does not say of what.
    """
    if config.run.name is None:
        if config.run.resume:
            raise UserError("run.resume is set without run.name; say which run goes on, e.g. run.name=x for runs/x")
        if ranks > 1:
            raise UserError(
                f"run.name is not set on {ranks} processes, which would each choose their own; set run.name"
            )
        what = [config.run.algorithm or "run"]
        if config.selection.name not in ("top_entropy", "all"):  # a control arm must not look like the method
            what.append(f"{config.selection.name}-{config.selection.keep:g}")
        config.run.name = "-".join([*what, f"{datetime.now():%Y%m%d-%H%M%S}"])


class Run:
    """One training run.

    Args:
        config: the resolved configuration.
        console: where people read.
        notice: whether this process was asked to end; None for one that nobody asks.

    Raises:
        UserError: for anything that does not fit, before a file is written.
    """

    def __init__(self, config: RunConfig, console: Console, notice: Notice | None = None) -> None:
        from rlvr.rewards.accuracy import grading_policy
        from rlvr.rewards.preflight import preflight
        from rlvr.trainer.algorithm import Algorithm
        from rlvr.trainer.arguments import trl_arguments
        from rlvr.trainer.batch import launched_ranks
        from rlvr.trainer.preemption import Preemption

        check_launch(config)
        check_tracking(config)
        self.config, self.console, self.preemption = config, console, Preemption(notice or Notice())
        self.ranks = launched_ranks()
        self.sizes = run_sizes(config, self.ranks)
        self.algorithm = Algorithm(config.advantage, config.selection, config.objective)
        self.algorithm.check_group_size(self.sizes.num_generations, config.rollouts.backend == "vllm")
        self.model_path = model_path(config)
        self.tokenizer, positions = load_tokenizer(self.model_path, config.model)
        self.problems, self.heldout, self.notes = read_problems(config, self.tokenizer, positions)
        self.grading = grading_policy(config.reward.values())
        graded = [*with_golds(self.problems, config), *self.heldout]
        if graded and is_main_process():
            preflight(graded, self.grading)
        name_run(config, self.ranks)
        self.folder = RunFolder(Path(config.run.dir) / str(config.run.name))
        self.facts = self._facts()
        self.resume = from_lead(lambda: checkpoint_to_resume(config, self.folder, self.facts))
        self.notes = [*self.notes, *self.resume.notes]
        self.args = trl_arguments(config, self.sizes, str(self.folder.checkpoints))
        check_space(config, self.model_path, self.folder)
        self.history = heldout_history(self.folder.metrics, self.resume.step)
        self.trainer: Any = None

    def _facts(self) -> dict[str, Any]:
        """What this run's checkpoints say of it."""
        from rlvr.trainer.facts import engine_name, facts_of

        stage, fsdp = zero_stage(self.config.deepspeed), bool(self.config.trl.get("fsdp"))
        stream = PromptStream(prompt_rows(self.problems), self.config.run.seed)
        known = facts_of(self.ranks, engine_name(stage, fsdp), stream.rows, self.tokenizer)
        return {**known, "config": shaping(self.config)}

    def say(self, text: str, style: str | None = None) -> None:
        """A line for people, on the terminal and in `log.txt`."""
        if not is_main_process():
            return
        LOG.info(text)
        self.console.print(text, style=style, highlight=False, soft_wrap=True)

    def _warn(self, text: str) -> None:
        self.say(f"warning: {text}", style="yellow")

    def execute(self) -> dict[str, Any]:
        """Train, evaluate before and after, and write the folder; returns the summary."""
        wait()  # nobody still looks at a folder that is about to be replaced
        if is_main_process():
            self.folder.prepare(self.resume.here or self.config.run.resume == AUTO, self.config.run.overwrite)
            self.notes += set_aside(self.folder, self.resume, self.config.run.resume)
            # What was allowed once is not allowed for ever: later checkpoints are of the run as it is now.
            once = dataclasses.replace(self.config.run, allow_changes=[])
            write_config(dataclasses.replace(self.config, run=once), self.folder.config)
        wait()
        with log_to(self.folder.log) if is_main_process() else nullcontext():
            with collector_rests():
                self.trainer = self._trainer_or_nothing()
            with full_disk(self.folder.path):
                return self._execute()

    def _trainer_or_nothing(self) -> Any:
        """The trainer; where it cannot be had, the folder that was made for it goes again."""
        try:
            return self._trainer()
        except (UserError, ImportError, OSError, RuntimeError, ValueError, SafetensorError) as error:
            if is_main_process() and not self.config.run.resume:
                self.folder.remove()
            if isinstance(error, UserError):
                raise
            reason = " ".join(str(error).split())
            raise UserError(f"model.path={self.model_path} cannot be trained with these settings: {reason}") from error

    def _execute(self) -> dict[str, Any]:
        for note in self.notes:
            self.say(note)
        self.preemption.leave()
        before = self._measure(), self._measure(temperature=0.0)
        if self.resume.checkpoint is not None:
            self.say(f"going on from {self.resume.checkpoint}")
        if self.heldout:
            self.say(f"held-out accuracy before: sampled {_percent(before[0])}, greedy {_percent(before[1])}")
        self.preemption.leave()
        started = time.perf_counter()
        self.trainer.train(resume_from_checkpoint=self.trainer.saver.resume(self.resume.checkpoint))
        seconds = time.perf_counter() - started
        self.preemption.leave()
        after = self._measure(), self._measure(temperature=0.0)
        summary = {
            "accuracy_before": before[0], "accuracy_after": after[0], "greedy_before": before[1],
            "greedy_after": after[1], "heldout_problems": len(self.heldout), "steps": self.trainer.state.global_step,
            "train_seconds": round(seconds, 2), "seed": self.config.run.seed, "algorithm": self.config.run.algorithm,
            "selection": {"name": self.config.selection.name, "keep": self.config.selection.keep},
            "accuracy_during": self.history, "code": self.facts["code"],
        }  # fmt: skip
        if is_main_process():
            self.folder.write_summary(summary)
            self._closing_table(summary)
        return summary

    def _trainer(self) -> Any:
        from transformers import PrinterCallback

        from rlvr.rewards.adapter import RewardFunction
        from rlvr.trainer.arguments import lora_config
        from rlvr.trainer.callbacks import Alarms, EngineCheck, HeldOut, MetricsFile, ProgressLine
        from rlvr.trainer.seam import RLVRTrainer
        from rlvr.trainer.watchdog import watch

        config = self.config
        callbacks: list[Any] = [MetricsFile(self.folder.metrics)]
        callbacks.append(ProgressLine(config.logging.progress, self.console, self.say))
        callbacks.append(Alarms(self._warn))
        if config.evaluation.every:
            callbacks.append(HeldOut(config.evaluation.every, self._measure_and_report))
        callbacks.append(self.preemption)  # last: a signal may come while the others work
        rewards = [RewardFunction(name, reward) for name, reward in config.reward.items()]
        recorder = self._recorder(rewards)
        trainer = RLVRTrainer(
            self.model_path, rewards, algorithm=self.algorithm, args=self.args,
            train_dataset=prompt_rows(self.problems), group_size=self.sizes.num_generations,
            window=config.optimizer.window, dynamic=config.rollouts.dynamic, sparse_head=config.optimizer.sparse_head,
            correct_sampler=config.rollouts.correct_sampler, record_scores=config.rollouts.record_scores,
            on_rollout=recorder if config.rollouts.record.every else None,
            processing_class=self.tokenizer, callbacks=callbacks, peft_config=lora_config(config),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(EngineCheck(lambda: trainer.model_wrapped, zero_stage(config.deepspeed), self.ranks))
        # TRL's card would call the policy a fine-tuned version of None; `config.yaml` and `report.html` say what it is.
        trainer.create_model_card = lambda **_: None
        self._set_saver(trainer.saver)
        trainer.faults.folder, trainer.faults.warn = self.folder.path / "faults", self._warn
        if self.ranks > 1:
            watch(trainer, self.folder.path / "stacks", config.launch.timeout_seconds)
        if trainer.stream.duplicates:
            self.say(f"{trainer.stream.duplicates} duplicate prompts dropped")
        return trainer

    def _recorder(self, rewards: list[Any]) -> Any:
        from rlvr.analysis.scoring import score_completions
        from rlvr.trainer.record import Recorder

        rollouts, record = self.config.rollouts, self.config.rollouts.record
        whole = rollouts.backend == "transformers" and zero_stage(self.config.deepspeed) != 3
        most = record.alternatives if whole else 0
        return Recorder(self.folder.rollouts, record.every, record.max_completions, rewards, most, score_completions)

    def _set_saver(self, saver: Any) -> None:
        """What the configuration says of checkpoints."""
        from rlvr.trainer.saving import adopt_wandb

        run = self.config.run
        saver.keep_last, saver.keep_best = run.keep_last or None, run.keep_best
        saver.allow, saver.run_facts, saver.verified = run.allow_changes, self.facts, self.resume.checkpoint
        if self.resume.here and is_main_process():
            adopt_wandb(self.resume.facts.get("wandb_run"))

    def _measure(self, temperature: float | None = None) -> float | None:
        """Held-out accuracy of the current policy; None where nothing is held out."""
        from rlvr.evaluation.heldout import accuracy, sample_and_grade

        if not self.heldout:
            return None
        config = self.config
        with self.trainer.generating() as policy:
            answers = sample_and_grade(
                policy, self.trainer.processing_class, self.heldout,
                config.evaluation.max_completion_length or config.rollouts.max_completion_length,
                config.rollouts.temperature if temperature is None else temperature, config.run.seed,
                config.evaluation.batch_size, policy=self.grading,
            )  # fmt: skip
        return accuracy(answers)

    def _measure_and_report(self, step: int) -> None:
        # A run that is asked to end has no time for it.
        value = None if self.preemption.agreed() else self._measure()
        if value is not None:
            self.history.append((step, value))
            self.trainer.saver.measured(value)
            self.trainer.note("heldout/accuracy", value)
            self.say(f"held-out accuracy at step {step}: {_percent(value)}")

    def _closing_table(self, summary: dict[str, Any]) -> None:
        self.say(f"{self.config.run.name}: {summary['steps']} steps in {summary['train_seconds']:.0f} s")
        table = Table()
        for heading in ("held-out accuracy", "before", "after"):
            table.add_column(heading, justify="left" if heading.startswith("held") else "right")
        table.add_row("sampled", _percent(summary["accuracy_before"]), _percent(summary["accuracy_after"]))
        table.add_row("greedy", _percent(summary["greedy_before"]), _percent(summary["greedy_after"]))
        self.console.print(table)
        self.say(f"everything about this run: {self._report()}")

    def _report(self) -> Path:
        from rlvr.report.page import build_report

        return build_report(self.folder)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def train(config: RunConfig, console: Console | None = None) -> dict[str, Any]:
    """Train a policy as configured; returns the summary that `summary.json` holds.

    Raises:
        UserError: for anything that does not fit, before a file is written.
        Preempted: if the run was asked to end before its last step; a `SystemExit` with code 75.
    """
    with caught() as notice:
        with collector_rests():
            run = Run(config, console or Console(), notice)
        return run.execute()
