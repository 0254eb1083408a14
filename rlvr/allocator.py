"""glibc's allocator, told to keep what it has: on a CPU a training step asks for the same large blocks every time."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 << 20
"""Bytes: the largest block that glibc lets come from its heap."""

KEPT = 512 << 20
"""Bytes of free memory at the heap's end that stay with the process."""


def keep_memory(device: str = "cpu") -> bool:
    """Keep freed blocks instead of giving them back to the kernel, which maps and clears them anew at the next request.

    For the whole process, which may hold half a gigabyte more than it uses. Does nothing without glibc.

    Args:
        device: where the model is; only a CPU's memory comes from glibc.

    Returns:
        Whether it took effect.
    """
    if device != "cpu" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
