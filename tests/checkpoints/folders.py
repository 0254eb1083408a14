"""Folders that look like checkpoints of two ranks under DeepSpeed, in a few kilobytes. Standard library only."""

import random
from pathlib import Path

from rlvr.checkpoints.layout import checkpoint_name
from rlvr.checkpoints.staging import commit, staged

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A disk without waiting; None for the usual place."""

FILES = (
    "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth", "rlvr_state_0.pt",
    "rlvr_state_1.pt", "trainer_state.json", "config.json", "tokenizer.json", "latest", "zero_to_fp32.py",
    "global_step4/mp_rank_00_model_states.pt", "global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step4/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
)  # fmt: skip


def content(name: str, which: str) -> bytes:
    """The same bytes each time; of another length for each file."""
    return random.Random(f"{which}/{name}").randbytes(200 + 7 * FILES.index(name))


def write_files(folder: Path, which: str = "new") -> None:
    """What the ranks would write, in two pieces each, so that a kill can fall between them."""
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content(name, which)
        for mode, piece in (("wb", data[:90]), ("ab", data[90:])):
            with path.open(mode) as file:
                file.write(piece)


def save(checkpoints: Path, step: int, which: str = "new", **facts: object) -> Path:
    """Save a checkpoint as a trainer does; its path."""
    final = checkpoints / checkpoint_name(step)
    with staged(checkpoints, step) as folder:
        write_files(folder, which)
        commit(folder, final, {"which": which, "world_size": 2, **facts}, FILES)
    return final


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)
