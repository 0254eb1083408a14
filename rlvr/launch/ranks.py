"""Start the ranks of a run on this machine, or of a Slurm job, and see them through to their end."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rlvr.config.compose import write_config
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.launch.children import Signals, run_once
from rlvr.launch.network import check_network, choose_interface
from rlvr.launch.section import LaunchSection
from rlvr.launch.slurm import job_restarts, srun_command
from rlvr.launch.status import CRASHED, PARENT, REFUSED, STATUS_DIR, log_file
from rlvr.launch.supervisor import RESUME, Outcome, supervise
from rlvr.preflight import check_tracking, run_sizes
from rlvr.run_folder import RunFolder

LOGS = "ranks"
"""Folder of a run for what its other ranks print."""

TAIL_LINES, TAILS = 15, 3
"""Lines of a failed rank's log that are shown, and of how many ranks."""


def say(text: str) -> None:
    """A line for people, beside what the main rank says."""
    print(f"rlvr: {text}", file=sys.stderr, flush=True)


def start_ranks(config: RunConfig) -> int:
    """Start a run's processes, again after crashes if that is wanted; returns the exit code.

    Raises:
        UserError: for what does not fit, found here or by a rank; said once.
    """
    job = Job(config)
    with job.signals.caught():
        try:
            ended = supervise(job.start, job.newest_step, config.launch.max_restarts, say)
        finally:
            job.clean()
    if ended.code == REFUSED:
        raise UserError(ended.message)
    return ended.code


class Job:
    """A run's starts: where they keep their files, how they begin, what is left of them.

    Args:
        config: the resolved configuration; gets its name here, which all ranks share.

    Raises:
        UserError: if the sizes do not divide, the data cannot be read, or an address is missing.
    """

    def __init__(self, config: RunConfig) -> None:
        from rlvr.train import name_run

        self.config, self.launch, self.signals = config, config.launch, Signals()
        self.slurm = self.launch.kind == "slurm"
        self.count = (self.launch.processes or 1) * self.launch.nodes
        self.node = 0 if self.slurm else _node_rank(config)
        check_tracking(config)
        run_sizes(config, self.count)
        config.data.train()
        name_run(config, 1 if self.slurm else self.launch.nodes)
        self.folder = RunFolder(Path(config.run.dir) / str(config.run.name))
        # A folder that holds something and is not to be replaced is somebody's: no restart may replace it either.
        self.may_replace = config.run.overwrite or not _holds_something(self.folder.path)
        self.stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
        self.staging = self.folder.path.parent / f".launch-{self.folder.path.name}-{self.stamp}-{self.node}"
        try:
            self.staging.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"{self.staging} cannot be made ({error.strerror}); set run.dir to a writable folder"
            ) from None
        write_config(config, self.staging / "config.yaml")

    @property
    def ranks(self) -> range:
        """Those whose status this launcher can read: of this node, or of the whole Slurm job."""
        each = self.launch.processes or 1
        return range(self.count) if self.slurm else range(self.node * each, (self.node + 1) * each)

    def newest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        found = self.folder.newest_checkpoint()
        return None if found is None else int(found.name.rsplit("-", 1)[1])

    def start(self, starts: int) -> Outcome:
        """Start the ranks once, and wait for their end."""
        status = self.staging / str(starts)
        status.mkdir()
        command = ["-m", "rlvr.cli", "train", "--from", str(self.staging / "config.yaml"), *self._manner(starts)]
        environment = {**os.environ, STATUS_DIR: str(status.absolute()), PARENT: str(os.getpid())}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // (self.launch.processes or 1))))
        if self.slurm:
            starter = srun_command(self.launch, [sys.executable, *command])
        else:
            starter = [sys.executable, "-m", "rlvr.launch.elastic", str(self._plan(status, command))]
        if self.count > 1 and starts == 0:
            say(f"{self.count} processes; what all but the first print is in {status}, and then in {self.logs(starts)}")
        ended = run_once(starter, environment, status, self.ranks, self.signals, through_starter=self.slurm)
        if ended.code == CRASHED:
            self._show_failed(status, ended.failed)
        self._keep_logs(status, starts)
        return ended

    def logs(self, starts: int) -> Path:
        """Where the logs of a start are kept."""
        node = f"-node{self.node}" if self.launch.nodes > 1 and not self.slurm else ""
        return self.folder.path / LOGS / f"{self.stamp}-{starts}{node}"

    def clean(self) -> None:
        """Take away what only the ranks needed."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def _manner(self, starts: int) -> list[str]:
        """How a start treats what is in the run folder."""
        run = self.config.run
        asked = str(run.resume).lower() if isinstance(run.resume, bool) else f"'{run.resume}'"  # auto, or a path
        if starts == 0 and not (self.slurm and job_restarts()):
            return [f"run.resume={asked}", f"run.overwrite={str(run.overwrite).lower()}"]
        if self.newest_step() is not None:
            return [RESUME]
        # Without a checkpoint of its own yet, the run begins as it began: with the weights of the path it was given.
        begins = [f"run.resume={asked}"] if isinstance(run.resume, str) else []
        made = _holds_something(self.folder.path) and self.folder.config.exists()
        return [*begins, *(["run.overwrite=true"] if made and (self.may_replace or self.slurm) else [])]

    def _plan(self, status: Path, command: Sequence[str]) -> Path:
        """What `rlvr/launch/elastic.py` is to do, as a file."""
        launch, path = self.launch, status / "plan.json"
        alone = launch.nodes == 1
        values = {
            "name": f"{self.folder.path.name}-{status.name}", "nodes": launch.nodes, "node_rank": self.node,
            "processes": launch.processes or 1, "timeout_seconds": launch.timeout_seconds, "command": list(command),
            "address": "127.0.0.1" if alone else launch.main_address, "port": launch.main_port or _free_port(),
        }  # fmt: skip
        path.write_text(json.dumps(values))
        return path

    def _show_failed(self, status: Path, failed: Sequence[int]) -> None:
        """The last lines of ranks that crashed; the main rank's stand on the terminal already."""
        shown = [rank for rank in failed if log_file(status, rank).is_file()][:TAILS]
        for rank in shown:
            lines = log_file(status, rank).read_text(errors="replace").splitlines()[-TAIL_LINES:]
            if lines:
                say(f"the last lines of rank {rank}:\n" + "\n".join(f"  {line}" for line in lines))
        others = ", ".join(str(rank) for rank in failed)
        say(f"ranks that crashed or were ended: {others or 'none said so'}")

    def _keep_logs(self, status: Path, starts: int) -> None:
        """The ranks' logs into the run folder, if there is one."""
        found = sorted(status.glob("rank_*.log"))
        if not found or not self.folder.path.is_dir():
            return
        self.logs(starts).mkdir(parents=True, exist_ok=True)
        for path in found:
            shutil.move(path, self.logs(starts) / path.name)


def _holds_something(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _node_rank(config: RunConfig) -> int:
    """Which of its nodes this machine is.

    Raises:
        UserError: if a run on several nodes does not say who meets where, or each would choose its own name.
    """
    launch = config.launch
    if launch.nodes == 1:
        return 0
    needed = {"node_rank": "0", "main_address": "10.0.0.1", "main_port": "29500"}
    missing = [name for name in needed if getattr(launch, name) is None]
    if missing:
        raise UserError(
            f"launch.nodes is {launch.nodes}, but launch.{missing[0]} is not set; start the same command on each node "
            f"with {' '.join(f'launch.{name}={value}' for name, value in needed.items())}, or choose launch=slurm"
        )
    if config.run.name is None:
        raise UserError(f"run.name is not set on {launch.nodes} nodes, which would each choose their own; set run.name")
    _check_meeting(launch)
    return int(launch.node_rank or 0)


def _check_meeting(launch: LaunchSection) -> None:
    """Whether the nodes can meet; here, because torch's launcher would wait for them before any rank could look.

    Raises:
        UserError: as `check_network`.
    """
    import torch

    from rlvr.launch.process_group import back_end_of

    choose_interface(os.environ, launch.interface)
    place = {**os.environ, "MASTER_ADDR": str(launch.main_address)}
    check_network(place, launch.nodes, back_end_of(torch.cuda.is_available()))
