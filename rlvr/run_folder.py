"""The folder of a run: `config.yaml`, `metrics.jsonl`, `rollouts/`, `checkpoints/`, `summary.json`, `log.txt`."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.checkpoints.space import free_bytes
from rlvr.checkpoints.staging import disk_reason
from rlvr.errors import UserError


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if os.path.exists(place))


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """What the disk refuses while a run writes its folder, in one line: rows, records, the log, the report.

    Raises:
        UserError: instead of an error that tells of a disk.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = disk_reason(error)
        if reason is None:
            raise
        said = " ".join(str(error).split())
        raise UserError(
            f"{path} could not be written to ({said}, {free_bytes(path) >> 20:,} MiB free); make room, or look at "
            "quotas, permissions and `ulimit -f`, then go on with run.resume=true"
        ) from error


def heldout_history(metrics: Path, until: int) -> list[tuple[int, float]]:
    """(step, held-out accuracy) of the rows up to a step, as `metrics.jsonl` has them; nothing for step 0."""
    if until == 0 or not metrics.exists():
        return []
    rows = [json.loads(line) for line in metrics.read_text().split("\n")[:-1]]
    name = "heldout/accuracy"
    return [(row["step"], row[name]) for row in rows if row["step"] <= until and row.get(name) is not None]


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run stand.

    Attributes:
        path: the folder itself.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A row per optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        """Recorded rollout batches."""
        return self.path / "rollouts"

    @property
    def checkpoints(self) -> Path:
        """Folders that `from_pretrained` loads."""
        return self.path / "checkpoints"

    def abandoned(self, number: int) -> Path:
        """What the run left when it went back to an earlier checkpoint, for the first, second, ... time."""
        return self.path / "abandoned" / str(number)

    @property
    def summary(self) -> Path:
        """What came out."""
        return self.path / "summary.json"

    @property
    def log(self) -> Path:
        """What was said on the way."""
        return self.path / "log.txt"

    def prepare(self, resume: bool, overwrite: bool) -> None:
        """Make the folder.

        Raises:
            UserError: if it holds something already and neither `resume` nor `overwrite` was chosen, or it cannot be
                made.
        """
        if os.path.exists(self.path) and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; choose another run.name or run.dir")
        used = os.path.exists(self.path) and any(self.path.iterdir())
        if used and not (resume or overwrite):
            raise UserError(
                f"{self.path} exists and is not empty; choose another run.name, go on with run.resume=true, or replace "
                "it with run.overwrite=true"
            )
        if used and overwrite:
            if not self.config.exists():
                raise UserError(f"{self.path} has no config.yaml, so it is no run folder and run.overwrite leaves it")
            shutil.rmtree(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be made ({error.strerror}); set run.dir to a writable folder"
            ) from None

    def remove(self) -> None:
        """Take the folder away again, and the one it stands in if nothing else is there."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def complete_checkpoints(self) -> list[Path]:
        """The complete checkpoints by step; a run that was killed may leave half a one.

        The trainer's own state is what a checkpoint gets last.
        """
        complete = {path.parent for path in self.checkpoints.glob("checkpoint-*/rlvr_state_*.pt")}
        numbered = [path for path in complete if path.name.rsplit("-", 1)[1].isdigit()]
        return sorted(numbered, key=lambda path: int(path.name.rsplit("-", 1)[1]))

    def newest_checkpoint(self) -> Path | None:
        """The complete checkpoint with the highest step, or None."""
        return next(reversed(self.complete_checkpoints()), None)

    def write_summary(self, values: dict[str, Any]) -> None:
        """Write `summary.json`, whole or not at all."""
        partial = self.summary.with_suffix(".partial")
        partial.write_text(json.dumps(values, indent=2) + "\n")
        partial.replace(self.summary)
