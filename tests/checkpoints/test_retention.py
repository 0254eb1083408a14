"""Which checkpoints stay, and how much room the next one needs."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.checkpoints.layout import committed
from rlvr.checkpoints.retention import prune, to_delete
from rlvr.checkpoints.space import bytes_needed, check_space, last_size
from rlvr.errors import UserError
from tests.checkpoints.folders import FILES, content, flip, save

METRICS = {10: 0.3, 20: 0.9, 30: None, 40: 0.9, 50: float("nan"), 60: 0.1}
MIB = 1 << 20


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "gone"),
    [
        (1, 0, [10, 20, 30, 40, 50]),
        (2, 0, [10, 20, 30, 40]),
        (1, 1, [10, 20, 30, 50]),  # of two with 0.9 the later
        (1, 2, [10, 30, 50]),
        (1, 9, [30, 50]),  # without a number none is a best
        (2, 3, [30]),
        (6, 0, []),
        (None, 0, []),
        (None, 2, []),
    ],
)
def test_the_last_and_the_best_stay(keep_last: int | None, keep_best: int, gone: list[int]) -> None:
    assert to_delete(METRICS, keep_last, keep_best) == gone


def test_checkpoints_later_than_the_newest_good_one_neither_go_nor_count() -> None:
    # 60 was rejected as damaged; the run went on from 40 and saved 50. Counting 60 would delete the only good one.
    assert to_delete(METRICS, 1, 0, newest_good=50) == [10, 20, 30, 40]
    assert to_delete(METRICS, 2, 1, newest_good=50) == [10, 20, 30]


@pytest.mark.parametrize(("last", "best", "name"), [(0, 0, "keep_last"), (-1, 0, "keep_last"), (1, -1, "keep_best")])
def test_keeping_none_is_refused(last: int, best: int, name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name} is {min(last, best)}; expected"):
        to_delete(METRICS, last, best)


numbers = st.one_of(st.none(), st.floats(allow_infinity=False))


@given(st.dictionaries(st.integers(0, 99), numbers, min_size=1), st.integers(1, 9), st.integers(0, 9), st.data())
def test_whatever_is_kept_the_newest_good_one_is(
    metrics: dict[int, float | None], keep_last: int, keep_best: int, data: st.DataObject
) -> None:
    good = data.draw(st.sampled_from(sorted(metrics)))
    gone = to_delete(metrics, keep_last, keep_best, good)
    assert gone == sorted(set(gone))
    assert all(step < good for step in gone)
    within = [step for step in metrics if step <= good]
    stay = [step for step in within if step not in gone]
    assert min(keep_last, len(within)) <= len(stay) <= keep_last + keep_best
    for step in gone:
        value = metrics[step]
        if value is not None and value == value:
            better = [other for other in within if (metrics[other] or -1e400, other) > (value, step)]
            assert len(better) >= keep_best


def test_pruning_reads_the_metric_from_the_manifests(tmp_path: Path) -> None:
    for step, accuracy in ((2, 0.5), (4, 0.8), (6, None), (8, 0.1)):
        newest = save(tmp_path, step, heldout_accuracy=accuracy)
    save(tmp_path, 9)
    flip(tmp_path / "checkpoint-2" / "MANIFEST.json", 5)  # nobody knows how good it was
    assert prune(tmp_path, newest, keep_last=1, keep_best=1) == [tmp_path / "checkpoint-2", tmp_path / "checkpoint-6"]
    assert list(committed(tmp_path)) == [4, 8, 9]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-8", "checkpoint-9"]


@pytest.mark.parametrize(
    ("keep", "present", "need"),
    [(1, 0, 2200), (1, 1, 1100), (1, 5, 1100), (3, 0, 4400), (3, 2, 2200), (3, 3, 1100)],
)
def test_room_is_for_those_kept_and_the_one_being_written(keep: int, present: int, need: int) -> None:
    assert bytes_needed(1000, keep, present) == pytest.approx(need, abs=1)


Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes free on every disk, to be set."""
    cell = [0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, cell[0]))
    return cell


def test_the_first_checkpoint_needs_an_estimate_and_room_for_two(tmp_path: Path, free: list[int]) -> None:
    folder = tmp_path / "runs" / "x" / "checkpoints"  # not made yet
    free[0] = 22 * MIB + 1
    check_space(folder, estimate=10 * MIB)
    free[0] = 21 * MIB
    with pytest.raises(UserError) as caught:
        check_space(folder, estimate=10 * MIB)
    assert str(caught.value) == (
        f"{folder} has 21 MiB free, but room for 2 more of 10 MiB each takes 22 MiB; make room, keep fewer "
        "checkpoints, or set run.dir to a larger disk"
    )
    with pytest.raises(ValueError, match="give an estimate"):
        check_space(folder)


def test_the_last_checkpoint_says_how_large_the_next_is(tmp_path: Path, free: list[int]) -> None:
    save(tmp_path, 4)
    size = sum(len(content(name, "new")) for name in FILES)
    assert last_size(tmp_path) == size
    free[0] = int(1.1 * size) + 1
    check_space(tmp_path, estimate=10**15)
    free[0] = int(1.1 * size) - 1
    with pytest.raises(UserError, match="room for 1 more"):
        check_space(tmp_path)
    (tmp_path / "checkpoint-6").mkdir()  # no manifest: the one before it says
    assert last_size(tmp_path) == size


def test_the_real_disk_has_room_for_little(tmp_path: Path) -> None:
    check_space(tmp_path, estimate=1)
    with pytest.raises(UserError, match="MiB free"):
        check_space(tmp_path, estimate=1 << 60)
