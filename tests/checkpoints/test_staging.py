"""A checkpoint that is written aside, synced, committed and swept."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlvr.checkpoints.choosing import newest_good
from rlvr.checkpoints.layout import remove, step_of
from rlvr.checkpoints.manifest import NAME, Manifest, verify
from rlvr.checkpoints.staging import commit, disk_reason, staged, sweep
from rlvr.errors import UserError
from tests.checkpoints.folders import FILES, save, write_files


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def save_by(checkpoints: Path, write: Callable[[Path], object], expected: Iterable[str] = ()) -> Manifest:
    """Save checkpoint-6 with whatever `write` does to its folder."""
    with staged(checkpoints, 6) as folder:
        write(folder)
        return commit(folder, checkpoints / "checkpoint-6", {}, expected)


def test_everything_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []

    def record(kind: str, path: Path | str) -> None:
        events.append((kind, os.path.relpath(path, tmp_path)))

    fsync, rename, replace = os.fsync, os.rename, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (record("sync", os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda old, new: (rename(old, new), record("rename", new)))
    monkeypatch.setattr(os, "replace", lambda old, new: (replace(old, new), record("rename", new)))
    save(tmp_path, 6)
    staging = ".staging/checkpoint-6"
    manifest, final = events.index(("rename", f"{staging}/{NAME}")), events.index(("rename", "checkpoint-6"))
    assert manifest < final
    files = {("sync", f"{staging}/{name}") for name in [*FILES, f"{NAME}.partial", "global_step4"]}
    assert files <= set(events[:manifest])
    assert ("sync", staging) in events[manifest:final]
    assert events[final + 1 :] == [("sync", "."), ("sync", ".staging")]
    assert names(tmp_path) == ["checkpoint-6"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 6, "old")
    final = save(tmp_path, 6, "new")
    assert verify(final) == []
    assert names(tmp_path) == ["checkpoint-6"]
    assert newest_good(tmp_path) == (final, [])


def test_a_replacement_after_one_that_was_cut_off_and_not_swept(tmp_path: Path) -> None:
    save(tmp_path, 6, "old").rename(tmp_path / ".replaced-checkpoint-6")
    assert newest_good(tmp_path)[0] == tmp_path / ".replaced-checkpoint-6"
    save(tmp_path, 6)
    assert newest_good(tmp_path) == (tmp_path / "checkpoint-6", [])
    assert names(tmp_path) == ["checkpoint-6"]


@pytest.mark.parametrize("missing", [["rlvr_state_1.pt"], ["rlvr_state_1.pt", "rng_state_1.pth"]])
def test_a_rank_that_wrote_elsewhere_is_noticed(missing: list[str], tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_files(folder)
        for name in missing:
            (folder / name).unlink()

    more = " and 1 more" if len(missing) > 1 else ""
    with pytest.raises(UserError, match=rf"^checkpoint-6 lacks rlvr_state_1.pt{more}; .* that all nodes share$"):
        save_by(tmp_path, write, FILES)
    assert names(tmp_path) == []


def test_an_error_of_the_trainer_passes_and_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_files(folder)
        raise KeyError("weights")

    save(tmp_path, 4)
    with pytest.raises(KeyError, match="weights"):
        save_by(tmp_path, write)
    assert names(tmp_path) == ["checkpoint-4"]


def test_a_half_folder_of_a_killed_save_is_not_mixed_in(tmp_path: Path) -> None:
    write_files(tmp_path / ".staging" / "checkpoint-6")
    assert list(save_by(tmp_path, lambda folder: (folder / "only.pt").touch()).files) == ["only.pt"]


def test_another_rank_neither_makes_nor_empties_the_folder(tmp_path: Path) -> None:
    with staged(tmp_path, 6) as folder:
        (folder / "rank_0").touch()
        with staged(tmp_path, 6, lead=False) as same:
            assert same == folder
            (same / "rank_1").touch()
        assert sorted(commit(folder, tmp_path / "checkpoint-6", {}).files) == ["rank_0", "rank_1"]


def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pipe is neither a file nor a folder"):
        save_by(tmp_path, lambda folder: os.mkfifo(folder / "pipe"))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name", [*(f"checkpoint{end}" for end in ("-x", "-06", "-", "--1", "-²", "", "-6.tmp")), "step-6"]
)
def test_a_name_without_a_step_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is no name of a checkpoint; expected checkpoint-STEP"):
        step_of(Path("runs/x") / name)


def test_a_sweep_says_what_is_gone_and_touches_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 4)
    for name in (".replaced-checkpoint-4", ".trash-checkpoint-2", ".staging/checkpoint-6"):
        write_files(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert sweep(tmp_path) == [".replaced-checkpoint-4", ".staging", ".trash-checkpoint-2"]
    assert names(tmp_path) == ["checkpoint-4", "notes.txt"]
    assert verify(tmp_path / "checkpoint-4") == []
    assert sweep(tmp_path) == []
    assert sweep(tmp_path / "no such folder") == []


def test_a_link_to_a_checkpoint_is_removed_without_what_it_leads_to(tmp_path: Path) -> None:
    target = save(tmp_path / "elsewhere", 4)
    (tmp_path / "checkpoint-4").symlink_to(target)
    remove(tmp_path / "checkpoint-4")
    assert names(tmp_path) == ["elsewhere"]
    assert verify(target) == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """`ulimit -f`, in bytes; Python ignores the signal, so writes fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "python": lambda path: path.write_bytes(bytes(400_000)),
    "torch": lambda path: torch.save(torch.zeros(400_000), path),
    "safetensors": lambda path: save_file({"weight": torch.zeros(400_000)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_limit_on_file_sizes_is_one_line_and_the_last_checkpoint_is_intact(writer: str, tmp_path: Path) -> None:
    save(tmp_path, 4)
    expected = r"^checkpoint-6 could not be written to .*MiB free\); checkpoint-4 was not touched; .*ulimit -f"
    with largest_file(50_000), pytest.raises(UserError, match=expected) as caught:
        save_by(tmp_path, lambda folder: WRITERS[writer](folder / "large"))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["checkpoint-4"]
    assert newest_good(tmp_path) == (tmp_path / "checkpoint-4", [])


def test_a_manifest_that_does_not_fit_leaves_nothing_either(tmp_path: Path) -> None:
    # The files have 200 to 300 bytes, the manifest about 2000.
    with largest_file(1000), pytest.raises(UserError, match=r"File too large.*there is no other checkpoint"):
        save_by(tmp_path, write_files)
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_room_for_the_next(writer: str, small_disk: Path) -> None:
    save(small_disk, 4)
    with pytest.raises(UserError, match=r"^checkpoint-6 could not be written.*checkpoint-4 was not touched"):
        save_by(small_disk, lambda folder: WRITERS[writer](folder / "large"))
    assert names(small_disk) == ["checkpoint-4"]
    assert newest_good(small_disk) == (small_disk / "checkpoint-4", [])
    assert verify(save(small_disk, 6)) == []  # what failed left no byte behind


def test_the_reason_is_looked_for_in_causes_too() -> None:
    error = RuntimeError("the save failed")
    error.__cause__ = OSError(28, "No space left on device")
    assert disk_reason(error) == "No space left on device"
    assert disk_reason(RuntimeError("shapes differ")) is None
    assert disk_reason(FileNotFoundError(2, "No such file or directory")) is None


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"could not be written to .*/not/made \(Permission denied, .* MiB free\)"):
        save_by(tmp_path / "not" / "made", write_files)
