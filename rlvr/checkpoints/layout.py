"""Names in a folder of checkpoints, and the file-system steps that a kill or a power cut may fall between.

    checkpoint-6             committed
    .staging/checkpoint-6    being written; TRL and DeepSpeed name the inner folder themselves
    .replaced-checkpoint-6   the old one, in the moment in which a new one of the same step takes its name
    .trash-checkpoint-6      being deleted

Promise: only a committed or a replaced folder is ever looked at as a checkpoint, and both got their name by one rename
of a whole folder.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from rlvr.checkpoints.progress import PROGRESS

STAGING = ".staging"
REPLACED = ".replaced-"
TRASH = ".trash-"
NO_DIRECTORY_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot sync a folder, and order their renames themselves."""


def checkpoint_name(step: int) -> str:
    """`checkpoint-{step}`."""
    return f"checkpoint-{step}"


def step_of(folder: Path) -> int:
    """The optimizer step in a checkpoint's name.

    Raises:
        ValueError: if it is no `checkpoint-{step}`.
    """
    found = re.fullmatch(r"checkpoint-(0|[1-9]\d*)", folder.name.removeprefix(REPLACED), re.ASCII)
    if found is None:
        raise ValueError(f"{folder.name} is no name of a checkpoint; expected checkpoint-STEP, e.g. checkpoint-100")
    return int(found.group(1))


def committed(checkpoints: Path, prefix: str = "") -> dict[int, Path]:
    """Step and path of what has the name of a committed checkpoint, by step; with `REPLACED`, of what is replaced."""
    found = {}
    for path in checkpoints.glob(f"{prefix}checkpoint-*"):
        try:
            found[step_of(path)] = path
        except ValueError:
            continue
    return dict(sorted(found.items()))


def files_in(folder: Path) -> dict[str, Path]:
    """Everything below a folder that is no folder, by its relative path with `/`; links are not followed.

    Raises:
        OSError: if a folder cannot be read.
    """
    found = {}
    for path in _below(folder):
        if not stat.S_ISDIR(path.lstat().st_mode):
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def _below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        yield from (Path(place, name) for name in [*folders, *files])


def sync_file(path: Path) -> None:
    """Have the bytes of a file on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    PROGRESS.one_more()


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in NO_DIRECTORY_SYNC:
            raise


def sync_tree(folder: Path) -> None:
    """Have everything below a folder, and the folder, on the disk: files first, each folder after what it holds."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_file(Path(place, name))
        sync_folder(Path(place))


def move(old: Path, new: Path) -> None:
    """Rename, and have both names on the disk."""
    os.rename(old, new)
    for parent in dict.fromkeys([new.parent, old.parent]):
        sync_folder(parent)


def remove(folder: Path) -> None:
    """Delete a checkpoint. A kill leaves it whole, or under a name that nobody takes for a checkpoint."""
    trash = folder.parent / f"{TRASH}{folder.name}"
    discard(trash)
    move(folder, trash)
    discard(trash)


def discard(path: Path) -> None:
    """Delete what has no name of a checkpoint, if it is there; a kill may leave a part of it."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
