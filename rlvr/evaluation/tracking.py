"""Results in wandb and TensorBoard, at the step of each checkpoint."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import UserError
from rlvr.evaluation.choosing import merge_seeds, require_one_protocol, short_name
from rlvr.evaluation.results import Summary, summarise
from rlvr.evaluation.scores import Scores

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

TRACKERS = ("wandb", "tensorboard")
STEP = "evaluation/step"


def check_trackers(report_to: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed; for before an evaluation starts.

    Args:
        report_to: names.

    Raises:
        UserError: naming the first.
    """
    for name in report_to:
        if name not in TRACKERS:
            raise UserError(f"report_to has {name}; expected {' or '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise UserError(f"report_to has {name}, which is not installed; run `pip install {name}`, or leave it out")


def metrics_of(summary: Summary) -> dict[str, float]:
    """The numbers of a summary by the names that trackers show.

    Args:
        summary: of one benchmark.

    Returns:
        `evaluation/BENCHMARK/avg@n`, its limits `low` and `high`, `pass@k`, `maj@k`, `truncated`, `no_answer`, all from
        0 to 1, `tokens`, and `problems` of `problems_total`, so that a part cannot pass for the whole.
    """
    values = {"avg@n": summary.avg.mean, "low": summary.avg.low, "high": summary.avg.high}
    values |= {f"pass@{k}": value.mean for k, value in summary.pass_at.items()}
    values |= {f"maj@{k}": value.mean for k, value in summary.maj_at.items()}
    values |= {"truncated": summary.truncated, "no_answer": summary.no_answer, "tokens": summary.tokens}
    values |= {"problems": summary.problems, "problems_total": summary.total}
    return {f"evaluation/{summary.benchmark}/{name}": value for name, value in values.items()}


def log_results(
    scores: Sequence[Scores],
    report_to: Sequence[str],
    folder: Path,
    config: Mapping[str, Any],
    *,
    ks: Sequence[int] | None = None,
    mixed: bool = False,
) -> None:
    """Log results, a tracked run per training run, or per checkpoint without a step (at step 0).

    Called again with more, it goes on with the same tracked runs. In wandb the axis is `evaluation/step`, so a
    checkpoint may be logged again after a later one.

    Args:
        scores: of one protocol per benchmark; seeds are put together.
        report_to: names of trackers.
        folder: for their files.
        config: of the evaluation; kept with each run.
        ks: as for `rlvr.evaluation.results.summarise`.
        mixed: let runs of different protocols stand in one diagram; one checkpoint still has one.

    Raises:
        UserError: for an unknown tracker, one that cannot start, or a benchmark under several protocols.
    """
    check_trackers(report_to)
    require_one_protocol(scores, mixed)
    for name in report_to:
        for run, steps in _runs(scores, ks).items():
            tracker = _start(name, run, folder, config)
            try:
                for step, values in sorted(steps.items()):
                    # wandb drops what comes for a step before its last one; the metric that is the axis may go back.
                    tracker.log({**values, STEP: step}, step=None if name == "wandb" else step)
            finally:
                tracker.finish()


def _runs(scores: Sequence[Scores], ks: Sequence[int] | None) -> dict[str, dict[int, dict[str, float]]]:
    """Start of a checkpoint's label -> step -> metrics."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for one in _merged(scores):
        start = one.checkpoint if one.step is None else one.checkpoint.removesuffix(str(one.step)).rstrip("-_/")
        found.setdefault(start, {}).setdefault(one.step or 0, {}).update(metrics_of(summarise(one, ks)))
    return found


def _merged(scores: Sequence[Scores]) -> Iterator[Scores]:
    cells: dict[tuple[str, str], list[Scores]] = {}
    for one in scores:
        cells.setdefault((one.checkpoint_hash, one.benchmark), []).append(one)
    for cell in cells.values():
        require_one_protocol(cell)
    return map(merge_seeds, cells.values())


def _run_name(start: str) -> str:
    """`x` of `runs/x/checkpoints/checkpoint`."""
    run = start.removesuffix("/checkpoints/checkpoint")
    return (short_name(start) if run == start else Path(run).name).replace("/", "_")


def _start(name: str, run: str, folder: Path, config: Mapping[str, Any]) -> "GeneralTracker":
    """A tracker that has begun; the same run for the same folder and training run."""
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    plain = json.loads(json.dumps(config, default=str))
    PartialState()  # accelerate's trackers ask it which process is the main one
    identity = hashlib.sha256(f"{folder.resolve()}\0{run}".encode()).hexdigest()[:8]
    tracker: GeneralTracker
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if name == "tensorboard":
            tracker = TensorBoardTracker(f"{_run_name(run)}-{identity}", folder)
            tracker.start()
            tracker.log({"evaluation/config": f"```\n{json.dumps(plain, indent=1)}\n```"}, step=0)
            return tracker
        tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT", "rlvr"), id=identity, resume="allow", name=_run_name(run), dir=str(folder),
            job_type="evaluation",
        )  # fmt: skip
        tracker.start()
        tracker.tracker.define_metric("evaluation/*", step_metric=STEP)
        tracker.store_init_configuration(plain)
        return tracker
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); expected a writable folder") from None
    except Exception as error:
        if type(error).__module__.startswith("wandb"):
            raise UserError(
                f"wandb cannot start ({' '.join(str(error).split())[:200]}); run `wandb login`, set WANDB_API_KEY, or "
                "keep the results on this machine with WANDB_MODE=offline"
            ) from None
        raise
