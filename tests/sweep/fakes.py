"""Sweeps written by hand, and a runner whose cells train nothing. As a script it is a sweep to be killed.

python -m tests.sweep.fakes FOLDER WORKERS
"""

import sys
from pathlib import Path

from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.plan import Arm, Cell, Plan, read_plan, write_plan
from rlvr.sweep.running import LocalRunner

FAKE = Path(__file__).with_name("fake_cell.py")


def fake_command(folder: SweepFolder, cell: Cell) -> list[str]:
    return [sys.executable, "-S", str(FAKE), str(folder.path), cell.name]


def plan_of(arms: dict[str, str], seeds: list[int], baseline: str | None = None, name: str = "fake") -> Plan:
    """A plan of arms, each with the one setting that makes it."""
    return Plan(name, "", None, [], seeds, [Arm(arm, [text], baseline) for arm, text in arms.items()])


def written(plan: Plan, parent: Path) -> SweepFolder:
    """A sweep's folder without the composition of its cells."""
    folder = SweepFolder(parent / plan.name)
    (folder.path / "cells").mkdir(parents=True)
    for cell in plan.cells:
        arm = next(arm for arm in plan.arms if arm.name == cell.arm)
        keep = next((text.split("=")[1] for text in arm.overrides if text.startswith("selection.keep=")), "0.2")
        folder.config(cell.name).write_text(
            f"run: {{seed: {cell.seed}}}\nselection: {{name: top_entropy, keep: {keep}}}\n"
        )
    write_plan(plan, folder.plan)
    return folder


KEEPS = {"keep_0.2": "selection.keep=0.2", "keep_1.0": "selection.keep=1.0", "random": "selection=random"}


def keep_plan(seeds: int = 2, name: str = "fake") -> Plan:
    return plan_of(KEEPS, list(range(seeds)), "keep_1.0", name)


def starts(folder: SweepFolder) -> list[str]:
    """The cells that were started, in order."""
    path = folder.path / "starts.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def runner(folder: SweepFolder, workers: int = 2, lines: list[str] | None = None) -> LocalRunner:
    say = (lambda _: None) if lines is None else lines.append
    return LocalRunner(folder, workers, "fake", say=say, command=fake_command)


if __name__ == "__main__":
    place = SweepFolder(Path(sys.argv[1]))
    outcome = LocalRunner(place, int(sys.argv[2]), "fake", command=fake_command).run(read_plan(place.plan).cells)
    sys.exit(99 if outcome.stopped else len(outcome.failures))
