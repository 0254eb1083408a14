"""Reads a run folder; a part that is missing or broken becomes a remark, not an error."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from rlvr.errors import UserError
from rlvr.run_folder import RunFolder

Series = tuple[list[float], list[float]]


@dataclass(frozen=True)
class RunData:
    """What a run folder holds.

    Attributes:
        folder: the folder.
        config: of `config.yaml`, empty where it is missing.
        config_text: the file as it stands.
        metrics: a row per optimizer step, in the order of the file.
        summary: of `summary.json`, empty where it is missing.
        records: Parquet files of recorded rollouts, by step.
        remarks: what is missing or could not be read, a sentence each.
    """

    folder: RunFolder
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    records: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def setting(self, *keys: str) -> Any:
        """A value of the configuration, or None: `setting("run", "seed")`."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_run(folder: RunFolder | Path) -> RunData:
    """Read a run folder.

    Args:
        folder: of the run; everything but `metrics.jsonl` may be missing.

    Raises:
        UserError: if there is no `metrics.jsonl`.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder(Path(folder))
    if not run.metrics.is_file():
        raise UserError(f"{run.path} has no metrics.jsonl, so there is nothing to report; expected the folder of a run")
    remarks: list[str] = []
    metrics = _read_metrics(run.metrics, remarks)
    config, config_text = _read_config(run.config, remarks)
    summary = _read_summary(run.summary, remarks)
    records = sorted(run.rollouts.glob("step_*.parquet"))
    if not records:
        remarks.append("rollouts/ holds no record: no completions are shown.")
    return RunData(run, config, config_text, metrics, summary, records, remarks)


def series(rows: Sequence[dict[str, Any]], name: str) -> Series:
    """Steps and values of a metric; rows without a finite value are left out."""
    found = [(row.get("step"), row.get(name)) for row in rows]
    pairs = [(float(step), float(value)) for step, value in found if is_number(step) and is_number(value)]
    return [step for step, _ in pairs], [value for _, value in pairs]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _read_metrics(path: Path, remarks: list[str]) -> list[dict[str, Any]]:
    rows, broken = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif line.strip():
            broken += 1
    if broken:
        remarks.append(f"metrics.jsonl has {broken} unreadable line{'s' * (broken > 1)}, left out here.")
    if not rows:
        remarks.append("metrics.jsonl holds no step: there are no curves.")
    return rows


def _read_config(path: Path, remarks: list[str]) -> tuple[dict[str, Any], str]:
    if not path.is_file():
        remarks.append("config.yaml is missing: the settings of this run are unknown.")
        return {}, ""
    from omegaconf import OmegaConf

    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        found = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except Exception as error:  # YAML and OmegaConf raise classes without a common base
        remarks.append(f"config.yaml could not be read ({type(error).__name__}): settings are shown as text only.")
        return {}, text
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}, text


def _read_summary(path: Path, remarks: list[str]) -> dict[str, Any]:
    if not path.is_file():
        remarks.append("summary.json is missing (it is written when a run ends): no held-out accuracy is shown.")
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        remarks.append("summary.json could not be read: no held-out accuracy is shown.")
        return {}
    return found
