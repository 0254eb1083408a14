"""Which checkpoints stay.

Promises: the newest good one is never deleted; a kill during a deletion leaves no half checkpoint under the name of a
whole one.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from rlvr.checkpoints.layout import committed, remove, step_of
from rlvr.checkpoints.manifest import read_manifest
from rlvr.errors import UserError


def to_delete(
    metrics: Mapping[int, float | None], keep_last: int | None, keep_best: int = 0, newest_good: int | None = None
) -> list[int]:
    """The steps whose checkpoints go, in ascending order.

    Args:
        metrics: a number for each step that has a checkpoint; None or NaN where there is none, which is never a best.
        keep_last: how many of the latest stay; None for all.
        keep_best: how many with the highest number stay besides; of equal ones the later.
        newest_good: the step known to be whole, the latest if None. Later ones are damaged or of an abandoned
            continuation: they stay for the run to replace, and do not count.

    Raises:
        UserError: if fewer than one of the latest or of the best than none would stay.
    """
    if keep_last is not None and keep_last < 1:
        raise UserError(f"keep_last is {keep_last}; expected at least 1, or none to keep every checkpoint")
    if keep_best < 0:
        raise UserError(f"keep_best is {keep_best}; expected 0 or more")
    steps = sorted(step for step in metrics if newest_good is None or step <= newest_good)
    if keep_last is None:
        return []
    numbers = {step: value for step in steps if (value := metrics[step]) is not None and not math.isnan(value)}
    best = sorted(numbers, key=lambda step: (numbers[step], step), reverse=True)[:keep_best]
    return [step for step in steps[:-keep_last] if step not in best and step != newest_good]


def prune(checkpoints: Path, newest_good: Path, keep_last: int | None, keep_best: int = 0,
          metric: str = "heldout_accuracy") -> list[Path]:  # fmt: skip
    """Delete the checkpoints that do not stay; arguments as in `to_delete`. One rank does, after a commit.

    Args:
        checkpoints: the folder of all checkpoints.
        newest_good: the checkpoint just committed.
        keep_last: how many of the latest stay; None for all.
        keep_best: how many of the best stay besides.
        metric: the fact of the manifests that says how good one is; higher is better. Files are not verified.

    Returns:
        The paths that are gone.
    """
    found = committed(checkpoints)
    metrics = {step: _number(path, metric) for step, path in found.items()}
    gone = [found[step] for step in to_delete(metrics, keep_last, keep_best, step_of(newest_good))]
    for path in gone:
        remove(path)
    return gone


def _number(path: Path, metric: str) -> float | None:
    try:
        value = read_manifest(path).facts.get(metric)
    except ValueError:
        return None
    return float(value) if isinstance(value, int | float) else None
