"""A run: from its configuration to a trained policy and the folder that holds everything about it."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError

from rlvr.config.compose import write_config
from rlvr.config.schema import ModelSection, RunConfig
from rlvr.data.base import Problem
from rlvr.errors import UserError
from rlvr.preflight import check_launch, check_space, model_path, run_sizes
from rlvr.run_folder import RunFolder

LOG = logging.getLogger("rlvr")
LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def load_tokenizer(path: str, model: ModelSection) -> Any:
    """The policy's tokenizer, after a look at its configuration: what cannot be trained is refused before it is loaded.

    Raises:
        UserError: if there is no model, or one whose loss would be wrong.
    """
    from transformers import AutoConfig, AutoTokenizer

    from rlvr.trainer.arguments import check_model_config

    try:
        source = {"revision": model.revision or "main", "trust_remote_code": model.trust_remote_code}
        config = AutoConfig.from_pretrained(path, **source)
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **source)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model.path={path} cannot be loaded; expected a folder or a hub id ({reason})") from None
    check_model_config(config)
    names = config.architectures or []
    if not any(part in name for name in names for part in LANGUAGE_MODELS):
        raise UserError(
            f"model.path={path} has architectures={names}; expected a causal language model, e.g. Qwen3ForCausalLM"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of model.path={path} has no end-of-text token; set eos_token in its configuration"
        )
    return tokenizer


def is_main_process() -> bool:
    """Whether this process speaks and writes for the job."""
    return int(os.environ.get("RANK", "0")) == 0


def read_problems(config: RunConfig, tokenizer: Any) -> tuple[list[Problem], list[Problem], list[str]]:
    """Problems to train on, problems held out, and what people should know about how they were read.

    Raises:
        UserError: if the data cannot be read, or no prompt is short enough.
    """
    from rlvr.data.lengths import check_prompts, filter_long

    train, heldout = config.data.train(), config.data.heldout()[: config.evaluation.problems]
    check_prompts([*train, *heldout], tokenizer)
    notes, limit = config.data.notes(), config.data.prompt_limit()
    if limit is not None:
        train, dropped = filter_long(train, tokenizer, limit)
        heldout, dropped_heldout = filter_long(heldout, tokenizer, limit)
        notes = [
            *notes,
            f"{dropped} training and {dropped_heldout} held-out prompts of more than {limit} tokens left out",
        ]
    if not train:
        raise UserError("no training prompt is left; raise data.max_prompt_tokens or look at the data")
    return train, heldout, notes


def prompt_rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems as the trainer's prompt rows."""
    return [{"prompt": problem.prompt, "gold": problem.gold, "prompt_id": problem.prompt_id} for problem in problems]


def _name_run(config: RunConfig, ranks: int) -> None:
    if config.run.name is None:
        if ranks > 1:
            raise UserError(
                f"run.name is not set on {ranks} processes, which would each choose their own; set run.name"
            )
        config.run.name = f"{config.run.algorithm or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Libraries speak into `log.txt` for the time being; the terminal is for the run."""
    from transformers.utils import logging as transformers_logging

    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    LOG.setLevel(logging.INFO)
    logging.captureWarnings(True)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


class Run:
    """One training run.

    Args:
        config: the resolved configuration.
        console: where people read.

    Raises:
        UserError: for anything that does not fit, before a file is written.
    """

    def __init__(self, config: RunConfig, console: Console) -> None:
        from rlvr.rewards.accuracy import grading_policy
        from rlvr.rewards.preflight import preflight
        from rlvr.trainer.algorithm import Algorithm
        from rlvr.trainer.arguments import trl_arguments
        from rlvr.trainer.batch import launched_ranks

        check_launch(config)
        self.config, self.console = config, console
        self.ranks = launched_ranks()
        self.sizes = run_sizes(config, self.ranks)
        self.algorithm = Algorithm(config.advantage, config.selection, config.objective)
        self.model_path = model_path(config)
        self.tokenizer = load_tokenizer(self.model_path, config.model)
        self.problems, self.heldout, self.notes = read_problems(config, self.tokenizer)
        self.grading = grading_policy(config.reward.values())
        if is_main_process():
            preflight([*self.problems, *self.heldout], self.grading)
        _name_run(config, self.ranks)
        self.folder = RunFolder(Path(config.run.dir) / str(config.run.name))
        self.checkpoint = self._checkpoint()
        self.args = trl_arguments(config, self.sizes, str(self.folder.checkpoints))
        check_space(config, self.model_path, self.folder, self.args.save_total_limit)
        self.history: list[tuple[int, float]] = []
        self.trainer: Any = None

    def _checkpoint(self) -> Path | None:
        """The checkpoint to go on from; None starts anew."""
        if not self.config.run.resume:
            return None
        found = self.folder.newest_checkpoint()
        if found is None:
            raise UserError(
                f"run.resume=true, but {self.folder.checkpoints} holds no complete checkpoint; start anew without it, "
                "or with run.overwrite=true where the folder is not empty"
            )
        return found

    def say(self, text: str, style: str | None = None) -> None:
        """A line for people, on the terminal and in `log.txt`."""
        if not is_main_process():
            return
        LOG.info(text)
        self.console.print(text, style=style, highlight=False, soft_wrap=True)

    def execute(self) -> dict[str, Any]:
        """Train, evaluate before and after, and write the folder; returns the summary."""
        if is_main_process():
            self.folder.prepare(self.config.run.resume, self.config.run.overwrite)
            write_config(self.config, self.folder.config)
        with _log_to(self.folder.log) if is_main_process() else nullcontext():
            self.trainer = self._trainer_or_nothing()
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
        before = self._measure(), self._measure(temperature=0.0)
        self.say(f"held-out accuracy before: sampled {_percent(before[0])}, greedy {_percent(before[1])}")
        started = time.perf_counter()
        self.trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        seconds = time.perf_counter() - started
        after = self._measure(), self._measure(temperature=0.0)
        summary = {
            "accuracy_before": before[0], "accuracy_after": after[0], "greedy_before": before[1],
            "greedy_after": after[1], "heldout_problems": len(self.heldout), "steps": self.trainer.state.global_step,
            "train_seconds": round(seconds, 2), "seed": self.config.run.seed, "algorithm": self.config.run.algorithm,
            "selection": {"name": self.config.selection.name, "keep": self.config.selection.keep},
            "accuracy_during": self.history,
        }  # fmt: skip
        if is_main_process():
            self.folder.write_summary(summary)
            self._closing_table(summary)
        return summary

    def _trainer(self) -> Any:
        from transformers import PrinterCallback

        from rlvr.rewards.adapter import RewardFunction
        from rlvr.trainer.arguments import lora_config
        from rlvr.trainer.callbacks import Alarms, HeldOut, MetricsFile, ProgressLine
        from rlvr.trainer.record import Recorder
        from rlvr.trainer.seam import RLVRTrainer

        config = self.config
        callbacks: list[Any] = [MetricsFile(self.folder.metrics)]
        callbacks.append(ProgressLine(config.logging.progress, self.console, self.say))
        callbacks.append(Alarms(lambda text: self.say(f"warning: {text}", style="yellow")))
        if config.evaluation.every:
            callbacks.append(HeldOut(config.evaluation.every, self._measure_and_report))
        rewards = [RewardFunction(name, reward) for name, reward in config.reward.items()]
        record = config.rollouts.record
        recorder = Recorder(self.folder.rollouts, record.every, record.max_completions, rewards)
        trainer = RLVRTrainer(
            self.model_path, rewards, algorithm=self.algorithm, args=self.args,
            train_dataset=prompt_rows(self.problems), window=config.optimizer.window,
            sparse_head=config.optimizer.sparse_head, correct_sampler=config.rollouts.correct_sampler,
            on_rollout=recorder if record.every else None, processing_class=self.tokenizer, callbacks=callbacks,
            peft_config=lora_config(config),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        if trainer.stream.duplicates:
            self.say(f"{trainer.stream.duplicates} duplicate prompts dropped")
        return trainer

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
        value = self._measure()
        if value is not None:
            self.history.append((step, value))
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
        """The report's file; the run stands without it."""
        from rlvr.report.page import build_report

        return build_report(self.folder)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def train(config: RunConfig, console: Console | None = None) -> dict[str, Any]:
    """Train a policy as configured; returns the summary that `summary.json` holds.

    Raises:
        UserError: for anything that does not fit, before a file is written.
    """
    return Run(config, console or Console()).execute()
