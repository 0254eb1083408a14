"""What a checkpoint has to hold beside TRL's: the place in the prompt stream and the rollout batch in use."""

import dataclasses
from collections.abc import Sequence
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


@dataclasses.dataclass
class Resumed:
    """What has gathered for the next row of the log, and for the mean loss at the end.

    Attributes:
        metrics: numbers by name, since the last row.
        loss: () this rank's sum since the last row.
        total_loss: sum over the steps before it, all ranks alike.
        last_step: of the last row.
        first_step: at which the run began.
        resumed_at: step at which it went on; None before.
    """

    metrics: dict[str, list[float]]
    loss: torch.Tensor
    total_loss: float
    last_step: int
    first_step: int
    resumed_at: int | None = None


def file_name(rank: int) -> str:
    """The file of a rank's state in a checkpoint."""
    return f"rlvr_state_{rank}.pt"


def save(trainer: Any, folder: Path) -> None:
    """Write this rank's state, whole or not at all. A rollout batch that is used up is not stored."""
    used_up = trainer._step % (trainer.sizes.slices_per_rollout * trainer.sizes.num_iterations) == 0
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(trainer.ranks.index)
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
            "logged": _logged(trainer),
        },
        partial,
    )
    partial.replace(path)


def _logged(trainer: Any) -> dict[str, Any]:
    gathered = {name: [_number(value) for value in values] for name, values in trainer._metrics["train"].items()}
    return {
        "metrics": {name: values for name, values in gathered.items() if values},
        "loss": trainer._tr_loss.detach().clone(),
        "total_loss": trainer._total_loss_scalar,
        "last_step": trainer._globalstep_last_logged,
        "first_step": trainer._initial_global_step,
    }


def _number(value: Any) -> float | int:
    return value if type(value) in (int, float) else float(value)


def load(trainer: Any, folder: Path, same_ranks: bool = True) -> None:
    """Read this rank's state back, so that the next step is the one that would have come.

    Args:
        trainer: which goes on.
        folder: the checkpoint.
        same_ranks: whether as many processes wrote it. If not, every rank takes what all have alike from the first;
            a rollout batch in use, and surplus groups, are gone: they were dealt to the other number of ranks.

    Raises:
        UserError: if the checkpoint has no state for this rank.
    """
    path = folder / file_name(trainer.ranks.index if same_ranks else 0)
    if not path.exists():
        raise UserError(
            f"{folder} has no {path.name}; expected a checkpoint written by this trainer on the same number of "
            "processes: resume from another checkpoint, or start anew"
        )
    # A CPU with a number, which a rank has, is no place that torch restores to.
    device = "cpu" if trainer.args.device.type == "cpu" else trainer.args.device
    with torch.serialization.safe_globals(STORED):
        stored = torch.load(path, map_location=device, weights_only=True)
    _check_sizes(
        stored["sizes"], dataclasses.asdict(trainer.sizes), () if same_ranks else ("ranks", "micro_batch_rows")
    )
    trainer.stream.load_state_dict(stored["stream"])
    trainer.rollouts_made = stored["rollouts_made"]
    trainer.empty_steps = stored["empty_steps"]
    if same_ranks:
        trainer._step = stored["slices_done"]
        trainer.rollout = stored["rollout"]
        if trainer.rounds is not None and stored["rounds"] is not None:
            trainer.rounds.load_state_dict(stored["rounds"])
    else:
        trainer._step, trainer.rollout = 0, None
        if trainer.rounds is not None and stored["rounds"] is not None:
            trainer.rounds.sampled = stored["rounds"]["sampled"]
    trainer.resumed = Resumed(**stored["logged"])


def go_on(trainer: Any) -> None:
    """Put back what the training loop has set to zero since `load`; nothing without a `load`."""
    stored: Resumed | None = trainer.resumed
    if stored is None or stored.resumed_at is not None:
        return
    stored.resumed_at = trainer.state.global_step
    for name, values in stored.metrics.items():
        trainer._metrics["train"][name].extend(values)
    trainer._tr_loss += stored.loss.to(trainer._tr_loss.device)
    trainer._total_loss_scalar = stored.total_loss
    trainer._globalstep_last_logged = stored.last_step
    trainer._initial_global_step = stored.first_step


def correct_speeds(trainer: Any, logs: dict[str, float]) -> None:
    """The closing speeds of a resumed run count the steps of its own time, as the mean loss counts all steps."""
    stored: Resumed | None = trainer.resumed
    if stored is None or stored.resumed_at is None or "train_runtime" not in logs:
        return
    made = trainer.state.global_step
    share = (made - stored.resumed_at) / max(made - stored.first_step, 1)
    for name in ("train_samples_per_second", "train_steps_per_second"):
        logs[name] = round(logs[name] * share, 3)


def _check_sizes(stored: dict[str, Any], now: dict[str, Any], free: Sequence[str] = ()) -> None:
    """Refuse a resume with other sizes: the slices done and the plan in use are counted in the old ones."""
    for name, value in stored.items():
        if name not in free and now[name] != value:
            raise UserError(
                f"the checkpoint was made with {name}={value}, this run has {name}={now[name]}; resume with the sizes "
                "and the number of processes the run was started with"
            )
