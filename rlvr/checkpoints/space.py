"""Whether the next checkpoint fits on the disk, asked before it is written.

Promise: room is asked for every checkpoint that is kept and for the one being written beside them, with a tenth to
spare; those that exist have their room already.
"""

import math
import shutil
from pathlib import Path

from rlvr.checkpoints.layout import committed
from rlvr.checkpoints.manifest import read_manifest
from rlvr.errors import UserError

MARGIN = 1.1


def last_size(checkpoints: Path) -> int | None:
    """Bytes of the newest checkpoint with a readable manifest; None if there is none."""
    for path in reversed(committed(checkpoints).values()):
        try:
            return read_manifest(path).size
        except ValueError:
            continue
    return None


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that a path is on, or will be."""
    absolute = path.absolute()
    return shutil.disk_usage(next(place for place in (absolute, *absolute.parents) if place.exists())).free


def bytes_needed(size: int, keep: int = 1, present: int = 0) -> int:
    """Bytes that must be free: `MARGIN * size` for each of `keep` checkpoints and one being written, less `present`.

    Args:
        size: bytes of one checkpoint.
        keep: checkpoints that stay at a time.
        present: how many there are; more than `keep` are about to be deleted, but after the next is written.
    """
    return math.ceil(MARGIN * size * (keep + 1 - min(present, keep)))


def check_space(checkpoints: Path, estimate: int | None = None, keep: int = 1) -> None:
    """Refuse to start a checkpoint that would not fit.

    Args:
        checkpoints: the folder of all checkpoints, made or not.
        estimate: bytes of one checkpoint where none was written yet. The last one's size goes before it.
        keep: checkpoints that stay at a time.

    Raises:
        UserError: with the room that is needed and that is there.
        ValueError: if neither an estimate nor a checkpoint says how large one is.
    """
    size = last_size(checkpoints)
    size = estimate if size is None else size
    if size is None:
        raise ValueError(f"{checkpoints} has no checkpoint, so nobody knows how large one is; give an estimate")
    present = len(committed(checkpoints))
    need, free = bytes_needed(size, keep, present), free_bytes(checkpoints)
    if free < need:
        raise UserError(
            f"{checkpoints} has {free >> 20:,} MiB free, but room for {keep + 1 - min(present, keep)} more of "
            f"{math.ceil(size / 2**20):,} MiB each takes {math.ceil(need / 2**20):,} MiB; make room, keep fewer "
            "checkpoints, or set run.dir to a larger disk"
        )
