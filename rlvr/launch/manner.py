"""How a start treats the run folder: as it was asked to, or after a crash with what the run itself has left there."""

import json
from pathlib import Path

from rlvr.run_folder import RunFolder


def folder_settings(resume: bool | str, overwrite: bool) -> list[str]:
    """`run.resume` and `run.overwrite` in Hydra's grammar; a path keeps its case, its blanks and its `=`."""
    from hydra.core.override_parser.types import Quote, QuotedString

    said = QuotedString(resume, Quote.single).with_quotes() if isinstance(resume, str) else str(resume).lower()
    return [f"run.resume={said}", f"run.overwrite={str(overwrite).lower()}"]


def _written(path: Path) -> list[int] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_ino]


class Claim:
    """What of a run folder the run has made itself. Only that may a later start replace: the rest is somebody else's.

    A run that begins writes `config.yaml`; until then the folder is as the launcher found it.

    Args:
        folder: of the run, before its first start.
        record: a file that keeps what was found, for a job that Slurm starts again; None where one process sees all
            the starts of a run.
        again: whether the job was started before; then what it found at first counts.

    Raises:
        OSError: if the record cannot be written.
    """

    def __init__(self, folder: RunFolder, record: Path | None = None, again: bool = False) -> None:
        self.folder = folder
        self.held = folder.path.is_dir() and any(folder.path.iterdir())
        self.before = _written(folder.config)
        if record is None:
            return
        if again and record.exists():  # without one the job ended before it started a rank
            self.held, self.before = json.loads(record.read_text())
            return
        record.parent.mkdir(parents=True, exist_ok=True)
        partial = record.with_suffix(".partial")
        partial.write_text(json.dumps([self.held, self.before]))
        partial.replace(record)

    @property
    def begun(self) -> bool:
        """Whether the run has made the folder, or gone on in it."""
        return _written(self.folder.config) not in (None, self.before)

    @property
    def alone(self) -> bool:
        """Whether all that is in the folder is the run's."""
        return self.begun and not self.held
