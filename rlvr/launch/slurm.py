"""A run as a Slurm job: its script from a template and the site's file, handed to `sbatch`."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from rlvr.config.compose import write_config
from rlvr.config.convert import build
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.launch.manner import folder_settings
from rlvr.launch.section import LaunchSection
from rlvr.launch.variables import whole

JOB = "RLVR_SLURM_JOB"
"""Set by the script: the `rlvr train` in it starts ranks with srun instead of submitting once more."""

TEMPLATE = Path(__file__).with_name("job.sh.template")


@dataclass
class Site:
    """What a cluster wants, from `launch.site`.

    Attributes:
        partition: of the cluster; None for its default.
        account: that pays; None for the default.
        time: limit, as Slurm writes it; None for the partition's.
        gpus: the line that asks for GPUs, `{processes}` for those of a node; empty on a cluster without.
        sbatch: further options of sbatch, one a line, without `#SBATCH`.
        setup: lines of shell before the run: modules, variables, a virtual environment.
    """

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    gpus: str = "--gpus-per-node={processes}"
    sbatch: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)


def read_site(path: Path) -> Site:
    """The site's values; defaults where there is no file.

    Raises:
        UserError: if the file is no mapping of them.
    """
    import yaml

    if not path.exists():
        if path.name != LaunchSection().site:
            raise UserError(f"launch.site={path} does not exist; expected a YAML file with partition, account, ...")
        return Site()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"launch.site={path} cannot be read: {' '.join(str(error).split())}") from None
    site: Site = build(Site, {} if values is None else values, str(path))
    try:
        site.gpus.format(processes=1)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        raise UserError(
            f"launch.site={path} has gpus: {site.gpus!r}; expected no braces but {{processes}}, which becomes the "
            "processes of a node, e.g. --gpus-per-node={processes}"
        ) from None
    return site


def job_restarts() -> int:
    """How often Slurm has put this job back into the queue and started it again."""
    return whole(os.environ, "SLURM_RESTART_COUNT")


def job_record(place: Path) -> Path | None:
    """A file for what has to outlive this start of the job, beside its script; None outside a job.

    Args:
        place: the run folder.
    """
    number = os.environ.get("SLURM_JOB_ID")
    return place.with_name(f"{place.name}.slurm") / f"found-{number}.json" if number else None


def check_srun() -> None:
    """Whether there is an srun.

    Raises:
        UserError: if not.
    """
    if shutil.which("srun") is None:
        raise UserError(
            "srun is not on PATH, and launch=slurm starts the ranks of a job with it; hand the script to sbatch, or "
            "leave launch=slurm out to train on this machine"
        )


def srun_command(launch: LaunchSection, command: Sequence[str]) -> list[str]:
    """`command` as every rank of the job; the first that fails ends the others."""
    each = launch.processes or 1
    return [
        "srun", f"--nodes={launch.nodes}", f"--ntasks={launch.nodes * each}", f"--ntasks-per-node={each}",
        "--kill-on-bad-exit=1", *command,
    ]  # fmt: skip


def render(config: RunConfig, site: Site, folder: Path) -> str:
    """The script of a job.

    Args:
        config: with the run's name.
        site: what the cluster wants.
        folder: of the script, the configuration and the output.
    """
    each = config.launch.processes or 1
    chosen = {"partition": site.partition, "account": site.account, "time": site.time}
    options = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
    options += [site.gpus.format(processes=each)] if site.gpus else []
    flags = folder_settings(config.run.resume, config.run.overwrite)
    command = [sys.executable, "-m", "rlvr.cli", "train", "--from", str(folder.absolute() / "config.yaml"), *flags]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=config.run.name,
        nodes=config.launch.nodes,
        processes=each,
        folder=folder.absolute(),
        cwd=Path.cwd(),
        options="\n".join(f"#SBATCH {line}" for line in [*options, *site.sbatch]),
        setup="\n".join(site.setup),
        job=JOB,
        command=shlex.join(command),
    )


def submit(config: RunConfig) -> str | None:
    """Write the script of a run's job and hand it to `sbatch`; returns the job's number, or None if only written.

    Raises:
        UserError: for what `rlvr train` would refuse, and if sbatch is missing or refuses.
    """
    from rlvr.preflight import check_tracking, run_sizes
    from rlvr.train import name_run

    launch = config.launch
    check_tracking(config)
    run_sizes(config, launch.nodes * (launch.processes or 1))
    config.data.train()
    name_run(config, 1)
    site = read_site(Path(launch.site).expanduser())
    folder = Path(config.run.dir) / f"{config.run.name}.slurm"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); set run.dir to a writable folder") from None
    write_config(config, folder / "config.yaml")
    script = folder / "job.sh"
    script.write_text(render(config, site, folder), encoding="utf-8")
    print(f"the job's script is {script}")
    if not launch.submit:
        return None
    number = _sbatch(script)
    print(f"submitted job {number}: {launch.nodes} nodes with {launch.processes or 1} processes each")
    print(f"its output goes to {folder / f'output-{number}.txt'}")
    return number


def _sbatch(script: Path) -> str:
    """The number of the job that sbatch makes of a script."""
    if shutil.which("sbatch") is None:
        raise UserError(f"sbatch is not on PATH; submit {script} from a login node, or leave launch=slurm out")
    done: Any = subprocess.run(["sbatch", str(script)], capture_output=True, text=True)
    found = re.search(r"\d+", done.stdout)
    if done.returncode or found is None:
        said = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"sbatch refuses {script}: {said}; what it asks for is in launch.site and launch.nodes")
    return found[0]
