"""glibc keeps freed blocks."""

import subprocess
import sys

from tests.source import ROOT

CODE = """
import resource, sys
from rlvr.allocator import keep_memory
import ctypes
if sys.argv[1] == "keep":
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_void_p], [ctypes.c_size_t]
size = 24 << 20
for turn in range(21):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages mapped anew by 20 blocks of 24 MiB, one after the other."""
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True, cwd=ROOT)
    return int(done.stdout)


def test_a_block_that_was_freed_is_not_mapped_anew() -> None:
    assert faults("keep") < 100
