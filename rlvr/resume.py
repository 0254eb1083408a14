"""Whether a run may go on where it stopped: with the configuration it was started with, and steps left to make."""

from pathlib import Path
from typing import Any

from rlvr.config.compose import read_config
from rlvr.config.convert import to_mapping
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.run_folder import RunFolder

MAY_DIFFER = ("run.steps", "run.save_steps", "run.resume", "run.overwrite", "run.dir", "run.name")
SECTIONS_MAY_DIFFER = ("evaluation", "logging", "launch")
"""Settings that do not shape the update."""


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        flat |= _flat(value, name) if isinstance(value, dict) and value else {name: value}
    return flat


def differences(saved: RunConfig, now: RunConfig) -> list[str]:
    """Settings that shape the update and are not what they were, each as `key=now (was then)`."""
    then, today = _flat(to_mapping(saved)), _flat(to_mapping(now))
    names = [
        name for name in {**then, **today} if name not in MAY_DIFFER and name.split(".")[0] not in SECTIONS_MAY_DIFFER
    ]
    return [f"{name}={today.get(name)} (was {then.get(name)})" for name in names if then.get(name) != today.get(name)]


def checkpoint_to_resume(config: RunConfig, folder: RunFolder) -> Path | None:
    """The checkpoint to go on from; None where the run starts anew.

    Raises:
        UserError: if there is nothing to go on from, nothing left to do, or the run would go on as another one.
    """
    if not config.run.resume:
        return None
    found = folder.newest_checkpoint()
    if found is None:
        raise UserError(
            f"run.resume=true, but {folder.checkpoints} holds no complete checkpoint; start anew without it, "
            "or with run.overwrite=true where the folder is not empty"
        )
    other = differences(read_config(folder.config), config)
    if other:
        raise UserError(
            f"run.resume=true, but this is not the run of {folder.path}: {', '.join(other[:3])}"
            f"{f' and {len(other) - 3} more' if len(other) > 3 else ''}; go on as it was with: rlvr train --from "
            f"{folder.config} run.resume=true"
        )
    done = int(found.name.rsplit("-", 1)[1])
    if done >= config.run.steps:
        raise UserError(f"{folder.path} has made {done} steps and run.steps is {config.run.steps}; set it above {done}")
    return found
