"""Runs the cells of a sweep as one Slurm array job, an element for each, through submitit."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr.errors import UserError
from rlvr.launch.slurm import Site, read_site
from rlvr.launch.status import PREEMPTED
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.plan import Cell
from rlvr.sweep.running import LocalRunner

TIME = re.compile(r"(?:(?P<days>\d+)-(?P<rest>\d+(?::\d+){0,2})|(?P<plain>\d+(?::\d+){0,2}))")

GRACE_SECONDS = 120
"""How long before its limit a cell is asked to save and end."""

SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"
"""Tells submitit in the job which signal announces the end: USR1, which a run that gets it too understands."""

TIMEOUTS = 1000
"""How often an element may reach its limit and go on."""


class CellJob:
    """What an element of the array does; submitit keeps it as a pickle.

    Args:
        folder: of the sweep.
        cell: which one.
        group: name that trackers put the runs together under.
    """

    def __init__(self, folder: Path, cell: Cell, group: str) -> None:
        self.folder, self.cell, self.group = folder, cell, group

    def __call__(self) -> str:
        """Run the cell, or go on with it.

        Raises:
            RuntimeError: if it fails, so that Slurm knows the element as failed.
        """
        self._runner = LocalRunner(SweepFolder(self.folder), 1, self.group)
        # SIGTERM is left alone, as submitit does: a preemption sends it ahead of the signal that submitit waits for.
        outcome = self._runner.run([self.cell], listen=False)
        if [failure.code for failure in outcome.failures] == [PREEMPTED]:  # Slurm has signalled the run itself
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            raise SystemExit(PREEMPTED)
        if outcome.failures:
            raise RuntimeError("; ".join(map(str, outcome.failures)))
        return self.cell.name

    def checkpoint(self) -> Any:
        """What submitit asks for before a preemption or the limit: let the run save, and put the cell back."""
        from submitit.helpers import DelayedSubmission

        self._runner.finish_early()
        return DelayedSubmission(CellJob(self.folder, self.cell, self.group))


def submit_cells(folder: SweepFolder, cells: Sequence[Cell], group: str, site: Path, processes: int, most: int) -> str:
    """Submit an array job with an element for each cell that is not finished.

    Args:
        folder: of the sweep, on a file system that all nodes share.
        cells: of the sweep.
        group: name that trackers put the runs together under.
        site: file with what the cluster wants, as for `launch=slurm`; it must set `time`.
        processes: of a cell, for the line that asks for GPUs.
        most: elements that may run at a time.

    Returns:
        The number of the job; empty where every cell is finished.

    Raises:
        UserError: if submitit or Slurm is not there, the site's file names no time, or Slurm refuses.
    """
    waiting = [cell for cell in cells if folder.summary(cell.name) is None]
    if not waiting:
        return ""
    executor = _executor(folder, group, read_site(site.expanduser()), site, processes, most)
    try:
        with executor.batch():
            jobs = [executor.submit(CellJob(folder.path.absolute(), cell, group)) for cell in waiting]
    except Exception as error:  # submitit raises classes without a common base
        raise UserError(f"sbatch refuses the array: {' '.join(str(error).split())}; see {site}") from None
    return str(jobs[0].job_id).split("_")[0]


def _executor(folder: SweepFolder, group: str, site: Site, place: Path, processes: int, most: int) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError("--slurm needs the package submitit; install it: pip install submitit") from None
    for command in ("sbatch", "srun"):
        if shutil.which(command) is None:
            raise UserError(f"{command} is not on PATH; submit from a login node, or leave --slurm out to run here")
    if site.time is None:
        raise UserError(
            f'{place} sets no time, and an array needs one; write there what a cell may take, e.g. time: "2:00:00"'
        )
    executor = submitit.SlurmExecutor(folder=folder.path / "slurm" / "%j", max_num_timeout=TIMEOUTS)
    lines = [site.gpus.format(processes=processes)] if site.gpus else []
    more = {"signal": f"USR1@{GRACE_SECONDS}", **dict(_option(line) for line in [*lines, *site.sbatch])}
    if site.account is not None:
        more["account"] = site.account
    executor.update_parameters(
        job_name=group, time=minutes(site.time), partition=site.partition, setup=[*site.setup, f"export {SIGNAL}=USR1"],
        array_parallelism=most, additional_parameters=more, nodes=1, ntasks_per_node=1,
    )  # fmt: skip
    return executor


def _option(line: str) -> tuple[str, Any]:
    """`--gres=gpu:8` as submitit takes it; a flag without a value is true."""
    name, _, value = line.removeprefix("--").partition("=")
    return name, value or True


def minutes(time: str) -> int:
    """A limit as Slurm writes it, in whole minutes, rounded up: `90`, `90:00`, `1:30:00`, `2-12`, `2-12:30:00`.

    Raises:
        UserError: for anything else.
    """
    found = TIME.fullmatch(str(time))
    if found is None:
        raise UserError(f"time is {time!r}; expected minutes, HH:MM:SS or DAYS-HH:MM:SS, e.g. 2:00:00")
    if found["days"] is not None:
        hours, mins, seconds = ([int(part) for part in found["rest"].split(":")] + [0, 0])[:3]
        hours += 24 * int(found["days"])
    else:
        parts = [int(part) for part in found["plain"].split(":")]
        hours, mins, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return 60 * hours + mins + -(-seconds // 60)
