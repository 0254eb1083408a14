"""What a checkpoint has to hold beside TRL's: the place in the prompt stream and the rollout batch in use."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from rlvr.errors import UserError
from rlvr.maths.denominators import StepCounts
from rlvr.maths.rollouts import Rollouts
from rlvr.rewards.verdict import Verdict
from rlvr.selection.select import TokenSelection
from rlvr.trainer.batch import Recorded, RolloutBatch, Sampled, Scores
from rlvr.trainer.forward import Tokens

STORED: list[Any] = [Recorded, RolloutBatch, Sampled, Scores, Tokens, Rollouts, TokenSelection, StepCounts, Verdict]


def _file(trainer: Any, folder: Path) -> Path:
    return folder / f"rlvr_state_{trainer.ranks.index}.pt"


def save(trainer: Any, folder: Path) -> None:
    """Write this rank's state, whole or not at all. A rollout batch that is used up is not stored."""
    used_up = trainer._step % (trainer.sizes.slices_per_rollout * trainer.sizes.num_iterations) == 0
    folder.mkdir(parents=True, exist_ok=True)
    path = _file(trainer, folder)
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "sizes": dataclasses.asdict(trainer.sizes),
            "stream": trainer.stream.state_dict(),
            "slices_done": trainer._step,
            "rollouts_made": trainer.rollouts_made,
            "empty_steps": trainer.empty_steps,
            "rollout": None if used_up else trainer.rollout,
            "rounds": None if trainer.rounds is None else trainer.rounds.state_dict(),
        },
        partial,
    )
    partial.replace(path)


def load(trainer: Any, folder: Path) -> None:
    """Read this rank's state back, so that the next step is the one that would have come.

    Raises:
        UserError: if the checkpoint has no state for this rank.
    """
    path = _file(trainer, folder)
    if not path.exists():
        raise UserError(
            f"{folder} has no {path.name}; expected a checkpoint written by this trainer on the same number of "
            "processes: resume from another checkpoint, or start anew"
        )
    with torch.serialization.safe_globals(STORED):
        stored = torch.load(path, map_location=trainer.args.device, weights_only=True)
    _check_sizes(stored["sizes"], dataclasses.asdict(trainer.sizes))
    trainer.stream.load_state_dict(stored["stream"])
    trainer._step = stored["slices_done"]
    trainer.rollouts_made = stored["rollouts_made"]
    trainer.empty_steps = stored["empty_steps"]
    trainer.rollout = stored["rollout"]
    if trainer.rounds is not None and stored.get("rounds") is not None:
        trainer.rounds.load_state_dict(stored["rounds"])


def _check_sizes(stored: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a resume with other sizes: the slices done and the plan in use are counted in the old ones."""
    for name, value in stored.items():
        if now[name] != value:
            raise UserError(
                f"the checkpoint was made with {name}={value}, this run has {name}={now[name]}; resume with the sizes "
                "and the number of processes the run was started with"
            )
