"""Folders in memory: a thousand files are synced here, and a slow disk would show nothing more."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.folders import MEMORY


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where the system has such a folder."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)
