"""Start the ranks of a run on this machine, or of a Slurm job, and see them through to their end."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rlvr.config.compose import write_config
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.launch.children import Signals, run_once
from rlvr.launch.manner import Claim, folder_settings
from rlvr.launch.network import check_network, choose_interface
from rlvr.launch.section import LaunchSection
from rlvr.launch.slurm import check_srun, job_record, job_restarts, srun_command
from rlvr.launch.status import CRASHED, PARENT, REFUSED, STATUS_DIR, log_file
from rlvr.launch.supervisor import Outcome, supervise
from rlvr.preflight import check_tracking, run_sizes
from rlvr.resume import AUTO
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
        UserError: if the sizes do not divide, the data cannot be read, an address or srun is missing, or the disk
            refuses.
    """

    def __init__(self, config: RunConfig) -> None:
        from rlvr.train import name_run

        self.config, self.launch, self.signals = config, config.launch, Signals()
        self.slurm = self.launch.kind == "slurm"
        if self.slurm:
            check_srun()
        self.count = (self.launch.processes or 1) * self.launch.nodes
        self.node = 0 if self.slurm else _node_rank(config)
        check_tracking(config)
        run_sizes(config, self.count)
        config.data.train()
        name_run(config, 1 if self.slurm else self.launch.nodes)
        self.folder = RunFolder(Path(config.run.dir) / str(config.run.name))
        self.stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
        self.staging = self.folder.path.parent / f".launch-{self.folder.path.name}-{self.stamp}-{self.node}"
        self.logs_stay = False
        with _made(self.staging):
            self.staging.mkdir(parents=True)
            write_config(config, self.staging / "config.yaml")
            record = job_record(self.folder.path) if self.slurm else None
            self.claim = Claim(self.folder, record, again=self.slurm and job_restarts() > 0)

    @property
    def ranks(self) -> range:
        """Those whose status this launcher can read: of this node, or of the whole Slurm job."""
        each = self.launch.processes or 1
        return range(self.count) if self.slurm else range(self.node * each, (self.node + 1) * each)

    def newest_step(self) -> int | None:
        """Step of the newest complete checkpoint; what a run is to replace, or may not touch, does not count."""
        own = bool(self.config.run.resume) or self.claim.begun
        found = self.folder.newest_checkpoint() if own else None
        return None if found is None else int(found.name.rsplit("-", 1)[1])

    def start(self, starts: int) -> Outcome:
        """Start the ranks once, and wait for their end."""
        status = self.staging / str(starts)
        with _made(status):
            status.mkdir()
        command = ["-m", "rlvr.cli", "train", "--from", str(self.staging / "config.yaml"), *self._manner()]
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
        if not self.logs_stay:
            shutil.rmtree(self.staging, ignore_errors=True)

    def _manner(self) -> list[str]:
        """How the next start treats what is in the run folder; takes away what would be in its way."""
        run = self.config.run
        if not self.claim.begun or run.resume is True or run.resume == AUTO:
            return folder_settings(run.resume, run.overwrite)
        if self.newest_step() is not None:
            return folder_settings(True, False)
        if not run.resume:
            return folder_settings(False, True)
        # Without a checkpoint of its own yet the run begins as it began, with the weights of the path it was given;
        # that wants an empty folder, and cannot ask for one with run.overwrite. The other nodes leave it to the first.
        if self.claim.alone and self.node == 0:
            self.folder.remove()
        return folder_settings(run.resume, False)

    def _plan(self, status: Path, command: Sequence[str]) -> Path:
        """What `rlvr/launch/elastic.py` is to do, as a file."""
        launch, path = self.launch, status / "plan.json"
        alone = launch.nodes == 1
        values = {
            "name": f"{self.folder.path.name}-{status.name}", "nodes": launch.nodes, "node_rank": self.node,
            "processes": launch.processes or 1, "timeout_seconds": launch.timeout_seconds, "command": list(command),
            "address": "127.0.0.1" if alone else launch.main_address, "port": launch.main_port or _free_port(),
        }  # fmt: skip
        with _made(path):
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
        """The ranks' logs into the run folder, once it is one; else the first node may have taken it away again."""
        found = sorted(status.glob("rank_*.log"))
        if not found or not self.folder.config.exists():
            return
        try:
            self.logs(starts).mkdir(parents=True, exist_ok=True)
            for path in found:
                shutil.move(path, self.logs(starts) / path.name)
        except OSError as error:
            self.logs_stay = True
            say(
                f"{self.logs(starts)} cannot be written to ({error.strerror}); what the ranks printed stays in {status}"
            )


@contextmanager
def _made(path: Path) -> Iterator[None]:
    """Around the making of a file or folder; nothing of it is left where that fails.

    Raises:
        UserError: if the disk refuses.
    """
    try:
        yield
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise UserError(
            f"{path} cannot be made ({error.strerror}); set run.dir to a writable folder with room"
        ) from None


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
