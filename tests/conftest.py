"""What every test shares: torch on few threads that do not spin, hypothesis without a deadline."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as `rlvr` sets it; read when torch loads its threads

import torch
from hypothesis import settings

torch.set_num_threads(min(2, torch.get_num_threads()))
settings.register_profile("tests", deadline=None, derandomize=True, database=None)  # the same cases on every run
settings.load_profile("tests")
