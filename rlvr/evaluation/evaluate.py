"""`rlvr evaluate`: many checkpoints on many benchmarks; what the ledger has is not drawn again."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rlvr.config.evaluation import EvaluationConfig, benchmarks_folder
from rlvr.errors import UserError
from rlvr.evaluation.backends.base import Backend
from rlvr.evaluation.benchmarks import Loaded, load_benchmark
from rlvr.evaluation.checkpoints import Checkpoint, checkpoint_hash, find_checkpoints, find_runs
from rlvr.evaluation.grading import grade_cell
from rlvr.evaluation.ledger import Cell, Ledger, gold_text
from rlvr.evaluation.opening import engine_of, open_backend
from rlvr.evaluation.protocol import Protocol, protocol_of, short_hash
from rlvr.evaluation.requests import Key, Request, Sample, sample_seed
from rlvr.evaluation.workers import Workers
from rlvr.run_folder import RunFolder, nearest_existing

FLUSH_ROWS = 512
FLUSH_SECONDS = 5.0
"""Samples are kept on the disk after so many, or so long: what a kill can cost."""

SAY_SECONDS = 10.0


@dataclass(frozen=True)
class Task:
    """A cell that is to be filled.

    Attributes:
        checkpoint: the model.
        hash: of its weights.
        benchmark: with its problems.
        protocol: how it is asked.
        cell: where the rows go.
    """

    checkpoint: Checkpoint
    hash: str
    benchmark: Loaded
    protocol: Protocol
    cell: Cell


class _Writer:
    """Collects rows until they are worth a file."""

    def __init__(self, write: Callable[[list[dict]], None]) -> None:
        self.write, self.rows, self._held, self._flushed = write, 0, list[dict](), time.monotonic()

    def put(self, rows: list[dict]) -> None:
        self._held += rows
        self.rows += len(rows)
        if len(self._held) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self.write(self._held)
        self._held, self._flushed = [], time.monotonic()


class Evaluation:
    """One call of `rlvr evaluate`, on one of its processes.

    Args:
        config: the resolved configuration.
        console: where people read.

    Raises:
        UserError: for anything that does not fit, before a model is loaded.
    """

    def __init__(self, config: EvaluationConfig, console: Console) -> None:
        self.config, self.console = config, console
        self.workers = Workers()
        if config.backend == "vllm" and self.workers.world > 1:
            raise UserError("backend=vllm runs in one process; give it the GPUs with vllm.tensor_parallel_size=N")
        self.ledger = Ledger(Path(config.ledger).expanduser())
        above = nearest_existing(self.ledger.folder)
        if not above.is_dir():
            raise UserError(f"ledger={config.ledger}: {above} is a file; expected a folder, made if it does not exist")
        self.benchmarks = self.workers.share(self._benchmarks() if self.workers.is_main else None)
        self.checkpoints = self._find()
        for benchmark in self.benchmarks:  # what does not fit is to be said before a model is loaded
            protocol = protocol_of(config, benchmark, "")
            protocol.render(benchmark.problems[0].question)

    def _benchmarks(self) -> list[Loaded]:
        folder = benchmarks_folder(self.config)
        return [load_benchmark(name, folder) for name in dict.fromkeys(self.config.benchmarks)]

    def _find(self, again: bool = False) -> list[Checkpoint]:
        if self.config.backend == "server":
            return [Checkpoint(name, name) for name in self.config.model]
        return find_checkpoints(self.config.model, self.config.watch, again)

    def say(self, text: str, style: str | None = None) -> None:
        """A line for people, once for all processes."""
        if self.workers.is_main:
            self.console.print(text, style=style, highlight=False, soft_wrap=True)

    def execute(self, after: Callable[[Sequence[Task]], None] | None = None) -> list[Task]:
        """Fill every cell; with `watch`, as long as the runs go on.

        Args:
            after: called on the main process with all cells so far, each time that checkpoints were done.

        Returns:
            The cells, filled and graded.
        """
        done: dict[Checkpoint, list[Task]] = {}
        ended = not self.config.watch
        while True:
            due = self.workers.share([checkpoint for checkpoint in self.checkpoints if checkpoint not in done])
            # A run that goes on may remove checkpoints meanwhile, so one at a time is taken.
            for checkpoint in due[:1] if self.config.watch else due:
                tasks = self._checkpoint(checkpoint)
                if tasks is None:
                    self.checkpoints = [one for one in self.checkpoints if one != checkpoint]
                else:
                    done[checkpoint] = tasks
            everything = [task for tasks in done.values() for task in tasks]
            if due and everything and after is not None and self.workers.is_main:
                after(everything)
            if ended and (not due or not self.config.watch):
                return everything
            if not due:
                time.sleep(self.config.poll)
            # Before the search: what a run has saved when it ends is then found by it.
            ended = self.workers.share(self._runs_ended())
            found = self.workers.share(self._find(again=True) if self.workers.is_main else None)
            self.checkpoints = list(dict.fromkeys([*self.checkpoints, *found]))

    def _runs_ended(self) -> bool:
        """Whether every run that is watched has written its summary."""
        return all(RunFolder(run).summary.exists() for run in find_runs(self.config.model))

    def _checkpoint(self, checkpoint: Checkpoint) -> list[Task] | None:
        """Fill the cells of a checkpoint; None where its run has removed it while the run was watched."""
        tasks = self._unless_removed(checkpoint, lambda: self._tasks(checkpoint) if self.workers.is_main else [])
        if tasks is None:
            return None
        tasks = self.workers.share(tasks)
        backend: Backend | None = None
        with ExitStack() as stack:
            for task in tasks:
                with task.cell.claimed() if self.workers.is_main else nullcontext():
                    if self.workers.is_main:
                        self._open(task)
                    missing = self.workers.share(self._missing(task) if self.workers.is_main else None)
                    if missing:
                        backend = backend or self._unless_removed(
                            checkpoint, lambda: stack.enter_context(closing(open_backend(self.config, checkpoint)))
                        )
                        if backend is None:
                            return None
                        self._draw(task, backend, missing)
                    self.workers.wait()
                    if self.workers.is_main:
                        self._close(task)
                self.workers.wait()
        return tasks

    def _unless_removed(self, checkpoint: Checkpoint, read: Callable[[], Any]) -> Any:
        """What is read from a checkpoint; None on every process where its run removes it before all have read it.

        What was read while it went may lack a file that nobody missed, so it counts for nothing.
        """
        found, error = None, None
        try:
            found = read()
        except Exception as one:
            error = one
        removed = self.config.watch and checkpoint.run is not None and not Path(checkpoint.path).is_dir()
        if error is not None and not removed:
            raise error
        if not self.workers.any(removed):
            return found
        self.say(f"{checkpoint.label} was removed by its run before it was read, and is left out", style="yellow")
        return None

    def _tasks(self, checkpoint: Checkpoint) -> list[Task]:
        config, found = self.config, []
        if config.backend == "server":
            identity = short_hash({"server": config.server.model or checkpoint.path})
        else:
            identity = checkpoint_hash(checkpoint.path, config.revision)
        engine = engine_of(config, checkpoint)
        for benchmark in self.benchmarks:
            protocol = protocol_of(config, benchmark, engine)
            cell = self.ledger.cell(benchmark.name, identity, protocol.draw_hash, config.seed)
            found.append(Task(checkpoint, identity, benchmark, protocol, cell))
        return found

    def _open(self, task: Task) -> None:
        """Make the cell, or mend it."""
        for path in task.cell.mend():
            self.say(f"{path} was torn and set aside; what it held is drawn or graded again", style="yellow")
        described: dict[str, Any] = {"protocols": {}}
        if (task.cell.folder / "cell.json").exists():
            try:
                described = task.cell.describe()
            except ValueError:
                self.say(f"{task.cell.folder}/cell.json was torn and is written anew", style="yellow")
        protocol = {"name": task.protocol.name, **task.protocol.everything()}
        described["protocols"][task.protocol.hash] = protocol
        described |= {"checkpoint": task.checkpoint.label, "checkpoint_hash": task.hash, "step": task.checkpoint.step}
        described |= {"benchmark": task.protocol.benchmark, "problems": len(task.benchmark.problems)}
        described |= {"seed": self.config.seed, "draw_hash": task.protocol.draw_hash}
        task.cell.write_description(described)

    def _missing(self, task: Task) -> list[Key]:
        """The samples that the cell lacks."""
        table = task.cell.samples.read(["problem_id", "sample"])
        have = set(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
        wanted = [
            Key(task.benchmark.name, problem.problem_id, sample)
            for problem in task.benchmark.problems[: self.config.limit]
            for sample in range(self.config.samples)
        ]
        missing = [key for key in wanted if key[1:] not in have]
        kept = len(wanted) - len(missing)
        title = f"{task.checkpoint.label} on {task.benchmark.name}"
        self.say(f"{title}: {len(missing):,} samples to draw" + (f", {kept:,} are there already" if kept else ""))
        return missing

    def _draw(self, task: Task, backend: Backend, missing: Sequence[Key]) -> None:
        """Draw this process's share and keep it."""
        problems = {problem.problem_id: problem for problem in task.benchmark.problems}
        share = missing[self.workers.rank :: self.workers.world]
        requests = [
            Request(key, task.protocol.render(problems[key.problem_id].question), sample_seed(self.config.seed, key))
            for key in share
        ]
        if not requests:
            return
        writer = _Writer(lambda held: task.cell.samples.add(held))
        started = said = time.monotonic()
        try:
            for samples in backend.generate(requests, task.protocol.sampling):
                writer.put([self._row(task, sample, problems[sample.key.problem_id].gold) for sample in samples])
                now = time.monotonic()
                if now - said > SAY_SECONDS:
                    said = now
                    rate = writer.rows / (now - started)
                    self.say(f"  {writer.rows:,} of {len(requests):,} samples, {rate:.1f} a second")
        finally:
            writer.flush()  # also what came before an error

    def _row(self, task: Task, sample: Sample, gold: str | tuple[str, ...]) -> dict:
        return {
            "checkpoint": task.checkpoint.label, "checkpoint_hash": task.hash, "benchmark": sample.key.benchmark,
            "problem_id": sample.key.problem_id, "sample": sample.key.sample, "seed": self.config.seed,
            "draw_hash": task.protocol.draw_hash, "gold": gold_text(gold), "completion": sample.completion,
            "token_count": sample.token_count, "finish_reason": sample.finish_reason,
        }  # fmt: skip

    def _close(self, task: Task) -> None:
        """Put the parts together and grade."""
        task.cell.samples.compact()
        grade_cell(task.cell, task.protocol.hash, task.protocol.grading)
        task.cell.verdicts.compact()
