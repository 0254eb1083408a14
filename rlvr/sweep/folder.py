"""The folder of a sweep: `sweep.yaml`, `cells/`, `logs/`, a run folder for each cell, and what is made of them."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rlvr.config.compose import compose, write_config
from rlvr.errors import UserError
from rlvr.run_folder import RunFolder
from rlvr.sweep import PLAN
from rlvr.sweep.plan import Cell, Plan, difference, read_plan, write_plan


@dataclass(frozen=True)
class SweepFolder:
    """Where the parts of a sweep stand.

    Attributes:
        path: the folder itself.
    """

    path: Path

    @property
    def plan(self) -> Path:
        """The arms and seeds."""
        return self.path / PLAN

    def config(self, cell: str) -> Path:
        """A cell's resolved configuration."""
        return self.path / "cells" / f"{cell}.yaml"

    def log(self, cell: str) -> Path:
        """What a cell's process has printed, of every start."""
        return self.path / "logs" / f"{cell}.txt"

    def run(self, cell: str) -> RunFolder:
        """A cell's run."""
        return RunFolder(self.path / cell)

    def summary(self, cell: str) -> dict[str, Any] | None:
        """What came out of a cell; None where it is not finished."""
        try:
            found = json.loads(self.run(cell).summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    @contextmanager
    def claimed(self, cell: str) -> Iterator[IO[str] | None]:
        """The right to write a cell's run, as an open file; None where another process has it.

        A child that inherits the file keeps the right after its parent has ended.
        """
        path = self.path / "logs" / f"{cell}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield file


def is_sweep(folder: Path) -> bool:
    """Whether a folder is one that `rlvr sweep` made."""
    return (folder / PLAN).is_file()


def check_sweep(plan: Plan, parent: Path) -> dict[str, Any]:
    """The configuration of every cell; writes nothing.

    Args:
        plan: the arms and seeds.
        parent: folder that the sweep's own goes into.

    Raises:
        UserError: for a setting that does not fit, arms that are the same run, and a folder that is another sweep's or
            no sweep's at all.
    """
    _check_same_plan(plan, SweepFolder(parent / plan.name))
    configs = {cell.name: _resolved(plan, cell, parent) for cell in plan.cells}
    _check_arms_differ(plan, configs)
    return configs


def write_sweep(plan: Plan, parent: Path) -> SweepFolder:
    """Make the folder of a sweep, or find that it is this sweep's already.

    Args:
        plan: the arms and seeds.
        parent: folder that the sweep's own goes into.

    Raises:
        UserError: as `check_sweep`, and if the folder cannot be written.
    """
    folder, configs = SweepFolder(parent / plan.name), check_sweep(plan, parent)
    try:
        (folder.path / "cells").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.path} cannot be made ({error.strerror}); set run.dir to a writable folder") from None
    for name, config in configs.items():
        _write_cell(folder, name, config)
    if not (plan.space and folder.plan.exists()):  # a search's has arms from its trials
        write_plan(plan, folder.plan)
    return folder


def add_arms(plan: Plan, folder: SweepFolder, cells: list[Cell]) -> None:
    """Write a plan that has got more arms, and the configurations of their cells."""
    for cell in cells:
        _write_cell(folder, cell.name, _resolved(plan, cell, folder.path.parent))
    write_plan(plan, folder.plan)


def _check_same_plan(plan: Plan, folder: SweepFolder) -> None:
    if not os.path.exists(folder.path):
        return
    if not is_sweep(folder.path):
        if folder.path.is_dir() and {path.name for path in folder.path.iterdir()} <= {"cells"}:
            return  # killed before the plan was written
        raise UserError(f"{folder.path} exists and is no sweep; choose another --name, or another run.dir")
    then = read_plan(folder.plan)
    if then.space and plan.space:  # a search's arms came from its trials, of which there may be more
        then = Plan(**{**vars(then), "arms": [], "trials": plan.trials, "workers": plan.workers})
    changes = difference(_comparable(then), _comparable(plan))
    if changes:
        raise UserError(_other_sweep(folder, changes))


def _comparable(plan: Plan) -> dict[str, Any]:
    arms = {arm.name: {"overrides": arm.overrides, "baseline": arm.baseline} for arm in plan.arms}
    return {**vars(plan), "arms": arms}


def _other_sweep(folder: SweepFolder, changes: list[str]) -> str:
    more = f" and {len(changes) - 2} more" if len(changes) > 2 else ""
    return (
        f"{folder.path} is another sweep: {', '.join(changes[:2])}{more}; choose another --name, or go on with that "
        f"one: rlvr sweep --from {folder.path}"
    )


def _resolved(plan: Plan, cell: Cell, parent: Path) -> Any:
    config = compose(plan.overrides(cell, parent))
    if config.launch.kind != "local" or config.launch.nodes > 1:
        raise UserError(
            f"launch.kind={config.launch.kind} and launch.nodes={config.launch.nodes}: a cell is a run on one machine; "
            "leave them out, and add --slurm to make every cell a job"
        )
    return config


def _check_arms_differ(plan: Plan, configs: dict[str, Any]) -> None:
    """Refuse two arms that are one and the same run."""
    from rlvr.config.convert import to_mapping

    seen: dict[str, str] = {}
    for cell in plan.cells_of(plan.arms, plan.seeds[:1]):
        values = to_mapping(configs[cell.name])
        run = {key: value for key, value in values["run"].items() if key not in ("name", "algorithm")}
        same = seen.setdefault(json.dumps({**values, "run": run}, sort_keys=True, default=str), cell.arm)
        if same != cell.arm:
            raise UserError(f"arms {same} and {cell.arm} are the same run; leave one out")


def _write_cell(folder: SweepFolder, name: str, config: Any) -> None:
    """Write a cell's configuration; one that is there must say the same.

    Raises:
        UserError: if it does not: the settings of a file or the defaults have changed since.
    """
    from omegaconf import OmegaConf

    path = folder.config(name)
    partial = path.with_suffix(".partial")
    write_config(config, partial)
    if path.exists() and path.read_bytes() != partial.read_bytes():
        old, new = (OmegaConf.to_container(OmegaConf.load(one)) for one in (path, partial))
        changes = [text for text in difference(old, new) if not text.startswith("run.dir=")]  # type: ignore[arg-type]
        if changes:
            partial.unlink()
            raise UserError(_other_sweep(folder, [f"cells/{name}.yaml: {changes[0]}", *changes[1:]]))
    partial.replace(path)
