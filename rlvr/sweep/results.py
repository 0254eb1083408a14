"""What came out of a sweep: a row for each arm, from the run folders alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rlvr.checkpoints.manifest import read_manifest
from rlvr.errors import UserError
from rlvr.report.reading import is_number
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.plan import Arm, Cell, Plan, read_plan
from rlvr.sweep.statistics import OverSeeds, PairedOverSeeds, adjusted, over_seeds, paired_over_seeds

AFTER = "accuracy_after"
"""What arms are compared by: held-out accuracy after the last step, sampled."""

ENTROPY, LENGTH, HELD_OUT = "entropy", "completions/mean_length", "heldout/accuracy"
CURVES = (ENTROPY, LENGTH, HELD_OUT)
"""Metrics that are kept step by step."""

LAST = 10
"""Rollout batches at the end that a number is the mean of."""

SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Ended:
    """A finished cell.

    Attributes:
        cell: which.
        summary: of its run.
        curves: metric -> step -> value.
        selection: `name` and `keep` of its configuration.
        code: fingerprint of the package that ended it, of its summary or else its last checkpoint; None where neither
            says it.
    """

    cell: Cell
    summary: dict[str, Any]
    curves: dict[str, dict[int, float]]
    selection: dict[str, Any]
    code: str | None


@dataclass(frozen=True)
class ArmResult:
    """What came out of an arm.

    Attributes:
        arm: its name, settings and baseline.
        cells: those that are finished, by seed.
        numbers: key of `summary.json` -> mean over seeds, where the runs have it.
        entropy: mean of the last rollout batches over seeds, in nats; None where it was not recorded.
        length: likewise, in tokens.
        versus: against its baseline; None for a baseline and without shared seeds.
    """

    arm: Arm
    cells: list[Ended]
    numbers: dict[str, OverSeeds]
    entropy: float | None
    length: float | None
    versus: PairedOverSeeds | None = None

    @property
    def by_seed(self) -> dict[int, float]:
        """Seed -> what arms are compared by."""
        return _by_seed(self.cells, AFTER)


@dataclass(frozen=True)
class SweepResult:
    """What came out of a sweep.

    Attributes:
        folder: of it.
        plan: its arms and seeds.
        arms: those with a finished cell, in the plan's order; those of a search from the best.
        missing: cells that are not finished.
        remarks: what to know before reading the numbers, a sentence each.
    """

    folder: SweepFolder
    plan: Plan
    arms: list[ArmResult]
    missing: list[Cell]
    remarks: list[str] = field(default_factory=list)

    def arm(self, name: str | None) -> ArmResult | None:
        """An arm by its name; None where it has no finished cell."""
        return next((row for row in self.arms if row.arm.name == name), None)


def read_sweep(path: Path) -> SweepResult:
    """Read a sweep's folder.

    Args:
        path: the folder.

    Raises:
        UserError: if it is no sweep, or no cell is finished.
    """
    folder = SweepFolder(path)
    plan = read_plan(folder.plan)
    ended = {cell.name: _ended(folder, cell) for cell in plan.cells if folder.summary(cell.name) is not None}
    missing = [cell for cell in plan.cells if cell.name not in ended]
    if not ended:
        raise UserError(f"{path} has no finished cell, so there is nothing to report; rlvr sweep --from {path}")
    rows = [_arm_result(arm, [ended[c.name] for c in plan.cells_of([arm]) if c.name in ended]) for arm in plan.arms]
    rows = _compared([row for row in rows if row.cells])
    if plan.space:
        rows.sort(key=lambda row: -row.numbers[AFTER].mean if AFTER in row.numbers else 1.0)
    return SweepResult(folder, plan, rows, missing, _remarks(plan, rows, missing))


def _ended(folder: SweepFolder, cell: Cell) -> Ended:
    import yaml

    run, summary = folder.run(cell.name), folder.summary(cell.name) or {}
    config = yaml.safe_load(folder.config(cell.name).read_text(encoding="utf-8"))
    code = summary.get("code") or _checkpoint_code(run.newest_checkpoint())
    return Ended(cell, summary, _curves(run.metrics), config["selection"], code)


def _checkpoint_code(checkpoint: Path | None) -> str | None:
    """Fingerprint of the package that made a checkpoint; None where none says it."""
    try:
        return None if checkpoint is None else read_manifest(checkpoint).facts.get("code")
    except (OSError, UserError, ValueError):
        return None


def _curves(path: Path) -> dict[str, dict[int, float]]:
    """The kept metrics of `metrics.jsonl`; empty where there is no file."""
    found: dict[str, dict[int, float]] = {name: {} for name in CURVES}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        row = json.loads(line)
        for name, values in found.items():
            if is_number(row.get(name)):
                values[row["step"]] = float(row[name])
    return found


def _by_seed(cells: Sequence[Ended], key: str) -> dict[int, float]:
    return {one.cell.seed: float(one.summary[key]) for one in cells if is_number(one.summary.get(key))}


def _arm_result(arm: Arm, cells: list[Ended]) -> ArmResult:
    keys = ("accuracy_before", AFTER, "greedy_before", "greedy_after")
    values = {key: list(_by_seed(cells, key).values()) for key in keys}
    ends = {
        name: [fmean(list(one.curves[name].values())[-LAST:]) for one in cells if one.curves[name]] for name in CURVES
    }
    return ArmResult(
        arm, cells, {key: over_seeds(found, SHARE) for key, found in values.items() if found},
        fmean(ends[ENTROPY]) if ends[ENTROPY] else None, fmean(ends[LENGTH]) if ends[LENGTH] else None,
    )  # fmt: skip


def _compared(rows: list[ArmResult]) -> list[ArmResult]:
    """The rows with their comparisons; p-values of all of them are adjusted together."""
    known = {row.arm.name: row for row in rows}
    found: dict[str, PairedOverSeeds] = {}
    for row in rows:
        base = known.get(row.arm.baseline or "")
        versus = None if base is None or base is row else paired_over_seeds(row.by_seed, base.by_seed)
        if versus is not None:
            found[row.arm.name] = versus
    found = adjusted(found)
    return [ArmResult(**{**vars(row), "versus": found.get(row.arm.name)}) for row in rows]


def _names(cells: Sequence[Cell]) -> str:
    """The first five of them."""
    return ", ".join(cell.name for cell in cells[:5]) + (", ..." if len(cells) > 5 else "")


def _remarks(plan: Plan, rows: list[ArmResult], missing: list[Cell]) -> list[str]:
    remarks = []
    if missing:
        remarks.append(f"{len(missing)} of {len(plan.cells)} cells are not finished: {_names(missing)}.")
    ended = [one for row in rows for one in row.cells]
    unknown = [one.cell for one in ended if one.code is None]
    if unknown:
        remarks.append(
            f"It is not known which code made {len(unknown)} of {len(ended)} finished cells: {_names(unknown)}."
        )
    codes = {one.code for one in ended} - {None}
    if len(codes) > 1:
        remarks.append(
            f"The cells were made by {len(codes)} versions of the code, so arms may differ by more than their settings."
        )
    if plan.space and len(rows) > 1:
        remarks.append("The best of many trials is chosen by what it is measured by: run it anew with other seeds.")
    return remarks
