"""A process killed, or refused by the disk, before every one of its operations on files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.folders import FILES
from tests.source import ROOT

NO_SPACE, REFUSED = "no_space", 3


def interruptions(action: str, how: str, place: Path) -> list[dict[str, Any]]:
    """A row per interruption; the last one came to its end."""
    command = [sys.executable, "-m", "tests.checkpoints.killing", action, how, str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert not rows[-1]["killed"]
    assert rows[-1]["code"] == 0
    return rows


def check_whole(rows: list[dict[str, Any]], damaged: set[str], whichs: tuple[str, ...] = ("old", "new")) -> None:
    """Old or new, whole; nothing half looks like a checkpoint; a restart finds a clean folder."""
    for row in rows:
        before, after = row["before_sweep"], row["after_sweep"]
        assert before["which"] in whichs, row
        assert {*before["rejected"], *before["broken"]} <= damaged, row
        assert after["which"] == before["which"], row
        assert [name for name in after["names"] if not name.startswith("checkpoint-")] == [], row
    assert {row["before_sweep"]["which"] for row in rows} == set(whichs)


@pytest.mark.parametrize("action", ["new", "replace", "replace_damaged", "prune"])
def test_killed_anywhere_the_old_or_the_new_one_is_whole(action: str, tmp_path: Path) -> None:
    rows = interruptions(action, "kill", tmp_path)
    assert all(row["killed"] for row in rows[:-1])
    operations = [row["operation"].split(" ", 1)[0] for row in rows[:-1]]
    assert operations.count("open") >= 2 * len(FILES) + 1  # both pieces of each file, and the manifest
    assert operations.count("fsync") >= len(FILES) + 4  # files, manifest, two folders, their parent
    assert operations.count("os.rename") >= 2  # manifest and folder
    # The damaged one may be passed over under its own name or, for a moment, under the other.
    check_whole(rows, {"checkpoint-6", ".replaced-checkpoint-6"} if action == "replace_damaged" else set())
    order = [row["before_sweep"]["which"] == "new" for row in rows]
    assert order == sorted(order)
    expected = {"prune": ["checkpoint-6"], "replace": ["checkpoint-6"]}.get(action, ["checkpoint-4", "checkpoint-6"])
    assert rows[-1]["after_sweep"]["names"] == expected


def test_a_sweep_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    rows = interruptions("sweep", "kill", tmp_path)
    assert len(rows) > 2 * len(FILES)  # half a save and a deleted one, file by file
    check_whole(rows, set(), ("old",))
    assert all(row["after_sweep"]["names"] == ["checkpoint-6"] for row in rows)


def test_the_kills_see_a_replacement_that_is_not_safe(tmp_path: Path) -> None:
    rows = interruptions("unsafe", "kill", tmp_path)
    assert any(row["before_sweep"]["which"] is None for row in rows)
    with pytest.raises(AssertionError):
        check_whole(rows, set())


@pytest.mark.parametrize("action", ["new", "replace"])
def test_whatever_the_disk_refuses_the_save_ends_in_one_line_and_leaves_nothing(action: str, tmp_path: Path) -> None:
    rows = interruptions(action, NO_SPACE, tmp_path)
    for row in rows[:-1]:
        assert row["code"] in (0, REFUSED), row
        if row["code"] == 0:  # a folder that was there already, and the empty one around what is written
            assert row["operation"].startswith(("os.mkdir /.staging/", "os.rmdir /.staging")), row
    check_whole(rows, set())
    written = [row for row in rows[:-1] if row["operation"].startswith(("open", "fsync /.staging/"))]
    assert len(written) > 3 * len(FILES)
    for row in written:
        assert row["code"] == REFUSED
        assert row["before_sweep"]["which"] == "old"
        assert [name for name in row["before_sweep"]["names"] if name.startswith(".")] == []
