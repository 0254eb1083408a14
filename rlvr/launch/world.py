"""Who this process is among those of its job, as torchrun, srun or accelerate set it, and launches gone wrong."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from rlvr.errors import UserError
from rlvr.launch.section import LaunchSection
from rlvr.launch.status import STATUS_DIR
from rlvr.launch.variables import whole

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, PORTS = 20000, 20000
"""Where a Slurm job meets if its script names no port: one by the job's number, so that two jobs do not share it."""


def _on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("1", "true", "yes", "on")


def in_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process as a rank; the script of a job is none, nor is a shell that is a task alone.

    A task alone is a rank where `rlvr train` has it started, which tells its ranks where to leave their status.
    """
    if "SLURM_PROCID" not in environment:
        return False
    in_step = "SLURM_STEP_ID" in environment
    return (in_step and STATUS_DIR in environment) or _tasks(environment, in_step) > 1


def _tasks(environment: Mapping[str, str], in_step: bool) -> int:
    """Of the step; the job's number where a step does not say its own."""
    job = whole(environment, "SLURM_NTASKS", 1) if in_step else 1
    return whole(environment, "SLURM_STEP_NUM_TASKS", job)


def is_rank(environment: Mapping[str, str]) -> bool:
    """Whether a launcher has made this process one of a job."""
    return "RANK" in environment or in_srun(environment)


def first_host(nodes: str) -> str:
    """The first host of Slurm's short form: `gpu[003-010,12],cpu1` gives `gpu003`."""
    found = re.match(r"([^,\[]+)(?:\[([0-9]+)[^\]]*\]([^,]*))?", nodes)
    if found is None:
        raise UserError(f"SLURM_STEP_NODELIST is {nodes!r}, which names no host; set MASTER_ADDR to the first node")
    return "".join(part or "" for part in found.groups())


def adopt_slurm(environment: MutableMapping[str, str]) -> None:
    """Set what torch reads, RANK and the rest, from what srun sets; nothing where RANK is set already."""
    if "RANK" in environment or not in_srun(environment):
        return
    tasks = _tasks(environment, in_step=True)
    nodes = whole(environment, "SLURM_STEP_NUM_NODES", whole(environment, "SLURM_NNODES", 1))
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "127.0.0.1")
    job = whole(environment, "SLURM_JOB_ID") + whole(environment, "SLURM_STEP_ID")
    found = {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": str(tasks // max(1, nodes)),
        "MASTER_ADDR": first_host(hosts),
        "MASTER_PORT": str(FIRST_PORT + job % PORTS),
    }
    for name, value in found.items():
        environment.setdefault(name, value)


def node_count(environment: Mapping[str, str]) -> int:
    """Machines of the job, as far as the launcher says."""
    world = whole(environment, "WORLD_SIZE", 1)
    return max(1, world // max(1, whole(environment, "LOCAL_WORLD_SIZE", world)))


def check_launcher(environment: Mapping[str, str], section: LaunchSection, deepspeed: Mapping[str, Any]) -> None:
    """Refuse launches that would train something else than was asked, without a word.

    Args:
        environment: after `adopt_slurm`.
        section: what was asked.
        deepspeed: the DeepSpeed configuration; empty for none.

    Raises:
        UserError: for a launcher that has started one process instead of several, for a number of processes that is not
            the one asked for, and for an engine that the configuration does not name.
    """
    _check_ranks(environment, section)
    if deepspeed and _on(environment, "ACCELERATE_USE_CPU"):
        raise UserError(
            "ACCELERATE_USE_CPU is set together with deepspeed; accelerate then trains without ZeRO: unset it, and "
            "leave out accelerate's --cpu (without a GPU the CPU is used anyway)"
        )
    if not deepspeed and _on(environment, "ACCELERATE_USE_DEEPSPEED"):
        raise UserError(
            "accelerate launch asks for DeepSpeed, but the configuration has deepspeed=none; choose it there, e.g. "
            "deepspeed=zero2, and start with torchrun or launch.processes=N"
        )
    if _on(environment, "ACCELERATE_USE_FSDP"):
        raise UserError("accelerate launch asks for FSDP, which is not supported; choose deepspeed=zero3 instead")


def _check_ranks(environment: Mapping[str, str], section: LaunchSection) -> None:
    """Whether this process is one of as many as were asked for."""
    if "RANK" not in environment:
        if "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment:
            raise UserError(
                "accelerate launch was asked for several processes and has started one: with --cpu or MULTI_CPU it "
                "always does; start them with launch.processes=N, or with torchrun"
            )
        if environment.get("WORLD_SIZE", "1") != "1":
            raise UserError(
                f"WORLD_SIZE is {environment['WORLD_SIZE']}, but RANK is not set, so no launcher has started this "
                "process; unset WORLD_SIZE, or start with torchrun or launch.processes=N"
            )
        return
    missing = [name for name in RANK_VARIABLES if name not in environment]
    if missing:
        raise UserError(
            f"RANK is {environment['RANK']}, but {', '.join(missing)} is not set; torchrun and srun set all of "
            f"{', '.join(RANK_VARIABLES)}: start with one of them, or unset RANK and use launch.processes=N"
        )
    world, rank, _ = (whole(environment, name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    if not 0 <= rank < world:
        raise UserError(f"RANK is {rank} and WORLD_SIZE {world}; expected a rank from 0 to {world - 1}")
    if section.ranks is not None and section.ranks != world:
        asked = f"launch.processes={section.processes or 1}"
        asked += f" on launch.nodes={section.nodes}" if section.nodes > 1 else ""
        raise UserError(
            f"WORLD_SIZE is {world}, but {asked} asks for {section.ranks} processes; start {section.ranks} of them, or "
            "leave launch.processes and launch.nodes out to take those that the launcher has started"
        )
