"""Whether a run may go on where it stopped: from a whole checkpoint, as itself, with steps left to make."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from rlvr.checkpoints.choosing import SETTING, newest_good
from rlvr.checkpoints.layout import committed, move, step_of
from rlvr.checkpoints.manifest import read_manifest, verify
from rlvr.checkpoints.staging import sweep
from rlvr.config.convert import to_mapping
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.rollouts.record import recorded_step
from rlvr.run_folder import RunFolder
from rlvr.trainer.facts import check_facts, covered, damaged, losses

MAY_DIFFER = (
    "run.steps", "run.save_steps", "run.resume", "run.overwrite", "run.dir", "run.name", "run.allow_changes",
    "run.keep_last", "run.keep_best",
)  # fmt: skip
SECTIONS_MAY_DIFFER = ("evaluation", "logging", "launch")
"""Settings that do not shape the update."""

ENDLESS = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Schedules of the learning rate that do not depend on where the run ends: more steps change none of those made."""

ENGINE = {"deepspeed": "engine"}
"""Sections of which a fact speaks, so that allowing the fact allows them."""

AUTO = "auto"


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        flat |= _flat(value, name) if isinstance(value, dict) and value else {name: value}
    return flat


def shaping(config: RunConfig) -> dict[str, Any]:
    """The settings that shape the update, by their full names; a checkpoint keeps them."""
    settings = _flat(json.loads(json.dumps(to_mapping(config), default=str)))
    shape_nothing = {*MAY_DIFFER} - ({"run.steps"} if config.optimizer.lr_scheduler_type not in ENDLESS else set())
    return {
        name: value
        for name, value in settings.items()
        if name not in shape_nothing and name.split(".")[0] not in SECTIONS_MAY_DIFFER
    }


def differences(then: Mapping[str, Any], today: Mapping[str, Any]) -> dict[str, str]:
    """Settings that are not what they were, as `shaping` gives them: by name, each as `key=now (was then)`."""
    return {
        name: f"{name}={today.get(name)} (was {then.get(name)})"
        for name in {**then, **today}
        if then.get(name) != today.get(name)
    }


@dataclass(frozen=True)
class Resume:
    """What a run goes on from.

    Attributes:
        checkpoint: the folder; None where the run starts anew.
        here: whether the run folder goes on, rather than a new one beginning with another run's weights.
        notes: checkpoints that were passed over, and why, for people.
        facts: of the checkpoint.
    """

    checkpoint: Path | None = None
    here: bool = False
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Optimizer steps made; 0 for a run that starts anew."""
        return 0 if self.checkpoint is None else step_of(self.checkpoint)


def checkpoint_to_resume(config: RunConfig, folder: RunFolder, facts: Mapping[str, Any]) -> Resume:
    """The checkpoint to go on from; clears away what a killed run left. One rank calls it, before anything is written.

    Args:
        config: the resolved configuration.
        folder: of the run.
        facts: of this run, as `rlvr/trainer/facts.py` gives them.

    Raises:
        UserError: if there is nothing to go on from, nothing left to do, or the run would go on as another one.
    """
    if not config.run.resume:
        return Resume()
    found = _newest(config, folder) if config.run.resume in (True, AUTO) else _named(str(config.run.resume), folder)
    if found.checkpoint is None:
        return found
    then = read_manifest(found.checkpoint).facts
    _check_settings(config, folder, then.get("config"))
    check_facts(found.checkpoint, facts, config.run.allow_changes)
    if found.step > config.run.steps or (found.step == config.run.steps and _is_told(folder, found.step)):
        raise UserError(
            f"{folder.path} has made {found.step} steps and run.steps is {config.run.steps}; set it above {found.step}"
        )
    lost = losses(then, facts, found.step)
    return Resume(found.checkpoint, found.here, [*found.notes, *([lost] if lost else [])], then)


def _newest(config: RunConfig, folder: RunFolder) -> Resume:
    sweep(folder.checkpoints)
    found, rejected = newest_good(folder.checkpoints)
    notes = [one.message(found) for one in rejected]
    if found is None and config.run.resume != AUTO:
        why = f": {notes[0]}" if notes else ""
        raise UserError(
            f"run.resume=true, but {folder.checkpoints} holds no complete checkpoint{why}; start anew without it, "
            "or with run.overwrite=true where the folder is not empty"
        )
    return Resume(found, True, notes)


def _named(given: str, folder: RunFolder) -> Resume:
    path = Path(given).expanduser()
    if not path.is_dir():
        raise UserError(f"run.resume={given} is not a folder; expected true, false, auto or the path of a checkpoint")
    problems = verify(path)
    if problems:
        raise UserError(f"run.resume={given}: {damaged(path, problems)}")
    try:
        step_of(path)
    except ValueError as error:
        raise UserError(f"run.resume={given}: {error}") from None
    return Resume(path, path.resolve().parent == folder.checkpoints.resolve())


def set_aside(folder: RunFolder, found: Resume, given: Any) -> list[str]:
    """Move what a run made after the checkpoint that it goes back to out of its way: checkpoints and recorded rollouts.

    They are of another future: with `run.resume=true` the next start would go on from them, and a report would show
    them. One rank calls it, before the run writes anything.

    Args:
        folder: of the run.
        found: what it goes on from.
        given: `run.resume`; only a path leads back.

    Returns:
        A line for people; nothing where nothing was moved.
    """
    if not found.here or given in (True, AUTO):
        return []
    later = [path for step, path in committed(folder.checkpoints).items() if step > found.step]
    later += [path for path in sorted(folder.rollouts.glob("*")) if (recorded_step(path) or 0) > found.step]
    if not later:
        return []
    place = next(path for path in map(folder.abandoned, count(1)) if not path.exists())
    for path in later:
        (place / path.parent.name).mkdir(parents=True, exist_ok=True)
        move(path, place / path.parent.name / path.name)
    names = ", ".join(path.stem for path in later)
    return [f"{names} are of the part that is left now and were moved to {place}; delete them if nobody needs them"]


def _check_settings(config: RunConfig, folder: RunFolder, then: Mapping[str, Any] | None) -> None:
    """Refuse a run with other settings than the checkpoint's; one that the library wrote has none."""
    if then is None:
        return
    other = {
        name: line
        for name, line in differences(then, shaping(config)).items()
        if not covered(name, config.run.allow_changes)
        and ENGINE.get(name.split(".")[0]) not in config.run.allow_changes
    }
    if other:
        lines, given = list(other.values()), "true" if config.run.resume is True else config.run.resume
        raise UserError(
            f"run.resume={given}, but this is not the run of {folder.path}: {', '.join(lines[:3])}"
            f"{f' and {len(lines) - 3} more' if len(lines) > 3 else ''}; go on as it was with: rlvr train --from "
            f"{folder.config} run.resume=true, or allow the difference with {SETTING}=[{','.join(list(other)[:3])}"
            f"{',...' if len(other) > 3 else ''}]"
        )


def _is_told(folder: RunFolder, steps: int) -> bool:
    """Whether `summary.json` tells of so many steps; a run that was killed after its last one has still to tell."""
    try:
        return bool(json.loads(folder.summary.read_text())["steps"] == steps)
    except (OSError, ValueError, KeyError):
        return False
