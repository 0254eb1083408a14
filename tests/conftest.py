"""What every test shares: torch on few threads that do not spin, hypothesis without a deadline, a browser."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as `rlvr` sets it; read when torch loads its threads

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests.browser import CHROMIUM, QUIET

torch.set_num_threads(min(2, torch.get_num_threads()))
settings.register_profile("tests", deadline=None, derandomize=True, database=None)  # the same cases on every run
settings.load_profile("tests")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a network of its own, for the tests of a file."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing; install it: apt-get update && apt-get install -y chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield opened
        opened.close()
