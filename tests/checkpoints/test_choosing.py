"""Which checkpoint is used, and what refuses a resume."""

from pathlib import Path

import pytest

from rlvr.checkpoints.choosing import check_compatible, incompatible, newest_good
from rlvr.errors import UserError
from tests.checkpoints.folders import flip, save, write_files


def test_the_newest_is_the_highest_step_not_the_last_text(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        save(tmp_path, step)
    assert newest_good(tmp_path) == (tmp_path / "checkpoint-100", [])


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_good(tmp_path) == (None, [])
    assert newest_good(tmp_path / "no such folder") == (None, [])
    (tmp_path / "checkpoint-best").mkdir()
    write_files(tmp_path / ".staging" / "checkpoint-8")
    assert newest_good(tmp_path) == (None, [])


def test_what_is_passed_over_is_said_in_one_line(tmp_path: Path) -> None:
    good, damaged = save(tmp_path, 4), save(tmp_path, 6)
    write_files(tmp_path / "checkpoint-8")  # no manifest
    (tmp_path / "checkpoint-10").touch()
    (damaged / "optimizer.pt").unlink()
    flip(damaged / "scheduler.pt", 3)
    used, rejected = newest_good(tmp_path)
    assert used == good
    messages = [one.message(used) for one in rejected]
    assert messages[0] == (
        "checkpoint-10 is damaged and was rejected (MANIFEST.json: cannot be read (Not a directory)); "
        "using checkpoint-4 instead"
    )
    assert messages[1].startswith(
        "checkpoint-8 is damaged and was rejected (MANIFEST.json: missing: the checkpoint was"
    )
    assert messages[2] == (
        "checkpoint-6 is damaged and was rejected (optimizer.pt: missing and 1 more); using checkpoint-4 instead"
    )
    assert rejected[2].message(None).endswith("; no earlier checkpoint is whole")


def test_a_folder_under_the_name_of_another_step_is_rejected(tmp_path: Path) -> None:
    save(tmp_path, 4).rename(tmp_path / "checkpoint-40")
    used, rejected = newest_good(tmp_path)
    assert used is None
    assert rejected[0].reasons == ["MANIFEST.json: of step 4, but the folder's name says 40"]


THEN = {
    "world_size": 4, "config": "aa11", "dataset": "bb22", "packages": {"torch": "2.8", "trl": "1.16"},
    "heldout_accuracy": 0.5, "wandb_run": "x1",
}  # fmt: skip
NOW = {"world_size": 4, "config": "aa11", "dataset": "bb22", "packages": {"torch": "2.8", "trl": "1.16"}}


def test_equal_facts_and_those_that_only_the_checkpoint_has_are_no_difference() -> None:
    assert incompatible(THEN, NOW) == []
    assert incompatible({"shape": [2, 3]}, {"shape": (2, 3)}) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"world_size": 2}, "world_size: 2 (was 4)"),
        ({"config": "cc33"}, "config: cc33 (was aa11)"),
        ({"tokenizer": "dd44"}, "tokenizer: dd44 (was not recorded)"),
        ({"packages": {"torch": "2.9", "trl": "1.16"}}, "packages.torch: 2.9 (was 2.8)"),
        ({"packages": {"torch": "2.8"}}, "packages.trl: not recorded (was 1.16)"),
        ({"dataset": None}, "dataset: None (was bb22)"),
    ],
)
def test_a_difference_is_named_and_allowed_by_its_name_only(changed: dict[str, object], line: str) -> None:
    now, name = {**NOW, **changed}, line.split(":")[0]
    assert incompatible(THEN, now) == [line]
    assert incompatible(THEN, now, {name}) == []
    assert incompatible(THEN, now, {"world_size", "config", "dataset"} - {name}) == [line]


def test_a_group_is_allowed_as_a_whole_and_no_other_that_begins_alike() -> None:
    now = {**NOW, "packages": {"torch": "2.9", "trl": "1.17"}, "packages_lock": "zz"}
    assert incompatible(THEN, now, {"packages"}) == ["packages_lock: zz (was not recorded)"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("world-size", r"did you mean world_size\?"),
        ("packages.torhc", r"did you mean packages.torch\?"),
        ("zzz", "expected some of config, dataset, packages, world_size"),
        ("heldout_accuracy", "expected some of"),
        ("", "expected some of"),
    ],
)
def test_an_allowed_name_that_is_no_fact_is_refused(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=rf"^run.allow_changes has {name}, which is no fact of a checkpoint; {hint}"):
        incompatible(THEN, NOW, {name})


def test_a_resume_is_refused_with_every_difference_and_the_way_to_allow_them(tmp_path: Path) -> None:
    path = save(tmp_path, 4, dataset="bb22", code="v1")
    now = {"world_size": 1, "dataset": "bb22", "code": "v2"}
    with pytest.raises(UserError) as caught:
        check_compatible(path, now)
    assert str(caught.value) == (
        "checkpoint-4 was made by another run: code: v2 (was v1); world_size: 1 (was 2); go on as it was, or allow the "
        "difference with run.allow_changes=[code,world_size] and lose the promise of an exact resume"
    )
    check_compatible(path, now, ["code", "world_size"])
