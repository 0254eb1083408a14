"""From files that are being written to a checkpoint that counts.

Promises, wherever the process is killed:

- `checkpoint-{step}` appears by one rename, when all its files and its manifest are on the disk.
- A checkpoint of the same step that is replaced stays whole under `.replaced-checkpoint-{step}` until the new one has
  its name; `newest_good` looks there too, and `sweep` gives the name back if the new one never came.
- A save that fails (disk full, file too large) ends in a `UserError`, leaves nothing behind, and touches no other
  checkpoint.
- `sweep` at the next start removes what a killed run left.

Several ranks write into one folder of a shared file system; barriers are the caller's:

    with staged(checkpoints, step, lead=rank == 0) as folder:
        barrier()                                   # the folder is there
        ...                                         # every rank writes its files into it
        barrier()                                   # they are written
        if rank == 0:
            commit(folder, checkpoints / checkpoint_name(step), facts, expected)
"""

import errno
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rlvr.checkpoints.layout import (
    REPLACED,
    STAGING,
    TRASH,
    checkpoint_name,
    committed,
    discard,
    files_in,
    move,
    remove,
    step_of,
    sync_folder,
    sync_tree,
)  # fmt: skip
from rlvr.checkpoints.manifest import Manifest, measure, write_manifest
from rlvr.checkpoints.space import free_bytes
from rlvr.errors import UserError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
DISK_TEXTS = re.compile(
    r"no space left on device|file too large|disk quota exceeded|input/output error|read-only file system|"
    r"unexpected pos|PytorchStreamWriter failed writing",
    re.IGNORECASE,
)
"""How safetensors and torch report what is no OSError; `unexpected pos` is torch's word for a write that fell short."""


@contextmanager
def staged(checkpoints: Path, step: int, lead: bool = True) -> Iterator[Path]:
    """The folder to write the checkpoint of a step into; it is removed if that fails.

    Args:
        checkpoints: the folder of all checkpoints.
        step: optimizer steps made.
        lead: make the folder, empty; one rank does, the others wait for it.

    A rank that fails removes the folder for all; the others learn of it from the caller.

    Raises:
        UserError: if the disk refuses. Every other error passes.
    """
    folder = checkpoints / STAGING / checkpoint_name(step)
    try:
        if lead:
            discard(folder)
            folder.mkdir(parents=True)
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = disk_reason(error)
        if reason is None or isinstance(error, UserError):
            raise
        raise UserError(_disk_message(checkpoints, step, reason)) from error
    finally:
        if lead:
            with suppress(OSError):  # another rank still writes into it
                folder.parent.rmdir()


def disk_reason(error: BaseException | None) -> str | None:
    """What the disk said, if that is why a save failed; None for another reason. Looks at causes too."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return error.strerror or str(error)
        found = DISK_TEXTS.search(str(error))
        if found:
            return found.group(0)
        error = error.__cause__ or error.__context__
    return None


def _disk_message(checkpoints: Path, step: int, reason: str) -> str:
    others = [path.name for other, path in committed(checkpoints).items() if other != step]
    kept = f"{others[-1]} was not touched" if others else "there is no other checkpoint"
    free = free_bytes(checkpoints) >> 20
    return (
        f"{checkpoint_name(step)} could not be written to {checkpoints} ({reason}, {free:,} MiB free); {kept}; make "
        "room, raise the limit on file sizes (`ulimit -f`) or keep fewer checkpoints, then go on with run.resume=true"
    )


def commit(staging: Path, final: Path, facts: Mapping[str, Any], expected: Iterable[str] = ()) -> Manifest:
    """Make a checkpoint of the files in a folder; called once, when every rank has written.

    Args:
        staging: the folder that was written, on the file system of `final`.
        final: `.../checkpoint-{step}`; one that exists is replaced.
        facts: JSON for the manifest.
        expected: relative paths that must be there, such as one a rank.

    Raises:
        UserError: if an expected file is missing.
        ValueError: if `final` has another name, or the facts are no JSON.
        OSError: if the disk refuses; `staged` turns it into a `UserError`.
    """
    step = step_of(final)
    missing = sorted(set(expected) - files_in(staging).keys())
    if missing:
        raise UserError(
            f"{final.name} lacks {missing[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; expected "
            f"the files of every rank in {staging.parent}: set run.dir to a file system that all nodes share"
        )
    manifest = measure(staging, step, facts)
    sync_tree(staging)
    write_manifest(staging, manifest)
    sync_folder(staging)
    _put_in_place(staging, final)
    return manifest


def _put_in_place(staging: Path, final: Path) -> None:
    replaced = final.parent / f"{REPLACED}{final.name}"
    try:
        if final.exists() or final.is_symlink():
            if replaced.exists():
                remove(replaced)  # its successor is `final`
            move(final, replaced)
        move(staging, final)
    except OSError:
        if replaced.exists() and not final.exists():
            move(replaced, final)
        raise
    if replaced.exists():
        remove(replaced)


def sweep(checkpoints: Path) -> list[str]:
    """Clear away what killed runs left, before a run saves; one rank does. Committed checkpoints are not touched.

    Returns:
        The names that are gone.
    """
    if not checkpoints.is_dir():
        return []
    gone = []
    present = committed(checkpoints)
    for step, path in committed(checkpoints, REPLACED).items():
        gone.append(path.name)
        if step in present:
            remove(path)
        else:
            move(path, checkpoints / checkpoint_name(step))
    for path in sorted([checkpoints / STAGING, *checkpoints.glob(f"{TRASH}*")]):
        if path.exists() or path.is_symlink():
            discard(path)
            gone.append(path.name)
    return gone
