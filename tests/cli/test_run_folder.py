"""A run folder is made, kept, continued or replaced, and never by accident."""

import errno
import json
import os
from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.run_folder import RunFolder, full_disk


@pytest.fixture
def used(tmp_path: Path) -> RunFolder:
    """A folder with a run in it."""
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.prepare(resume=False, overwrite=False)
    folder.config.write_text("run: {}\n")
    folder.metrics.write_text("{}\n")
    return folder


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a" / "b").prepare(resume=False, overwrite=False)
    assert (tmp_path / "a" / "b").is_dir()


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    RunFolder(tmp_path).prepare(resume=False, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_refused_with_the_ways_out(used: RunFolder) -> None:
    with pytest.raises(UserError, match=r"run\.name.*run\.resume=true.*run\.overwrite=true"):
        used.prepare(resume=False, overwrite=False)
    assert used.metrics.exists()


def test_resuming_keeps_what_is_there(used: RunFolder) -> None:
    used.prepare(resume=True, overwrite=False)
    assert used.metrics.read_text() == "{}\n"


def test_overwriting_removes_a_run(used: RunFolder) -> None:
    used.prepare(resume=False, overwrite=True)
    assert list(used.path.iterdir()) == []


def test_overwriting_leaves_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is no run folder"):
        RunFolder(tmp_path).prepare(resume=False, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "x").prepare(resume=True, overwrite=False)


def checkpoint(folder: RunFolder, name: str, complete: bool = True) -> Path:
    path = folder.checkpoints / name
    path.mkdir(parents=True)
    if complete:
        (path / "rlvr_state_0.pt").write_bytes(b"")
    return path


def test_the_newest_checkpoint_has_the_highest_step(used: RunFolder) -> None:
    assert used.newest_checkpoint() is None
    checkpoint(used, "checkpoint-9")
    newest = checkpoint(used, "checkpoint-10")
    assert used.newest_checkpoint() == newest


def test_half_a_checkpoint_is_passed_over(used: RunFolder) -> None:
    complete = checkpoint(used, "checkpoint-2")
    checkpoint(used, "checkpoint-3", complete=False)
    checkpoint(used, "checkpoint-best")
    assert used.newest_checkpoint() == complete


def test_the_summary_is_written_whole(used: RunFolder) -> None:
    used.write_summary({"steps": 3})
    assert json.loads(used.summary.read_text()) == {"steps": 3}
    with pytest.raises(TypeError):
        used.write_summary({"steps": object()})
    assert json.loads(used.summary.read_text()) == {"steps": 3}
    assert sorted(path.name for path in used.path.iterdir()) == ["config.yaml", "metrics.jsonl", "summary.json"]


def test_what_the_disk_refuses_is_one_line_and_other_errors_pass(tmp_path: Path) -> None:
    with (
        pytest.raises(
            UserError, match=r"could not be written to \(\[Errno 28\] No space left.* go on with run\.resume"
        ),
        full_disk(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for other in (ValueError("a mistake"), UserError("mend this"), OSError(errno.ENOENT, "no such file")):
        with pytest.raises(type(other)) as raised, full_disk(tmp_path):
            raise other
        assert raised.value is other
