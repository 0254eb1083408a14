"""Several processes on one ledger: readers beside a process that puts files together, two that would write one cell."""

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rlvr.errors import UserError
from rlvr.evaluation import store as module
from rlvr.evaluation.commands import grade_ledger
from rlvr.evaluation.ledger import SAMPLES, Cell, CellTaken, Ledger
from rlvr.evaluation.store import Store
from tests.evaluation.made_scores import made, written
from tests.evaluation.test_ledger import SAMPLED, filled, sample

FORK = multiprocessing.get_context("fork")
READINGS, FILES = 300, 40
"""At least so many readings, while the other process writes so many files."""


def put_together(folder: str) -> None:
    """Cut the store into parts and put them together, until killed; at any moment all rows are in some file."""
    store = Store(Path(folder) / "samples", SAMPLES)
    while True:
        for index, row in enumerate(SAMPLED):
            store.add([row])
            if index % 8 == 7:
                store.compact()


def ended(process: BaseProcess) -> None:
    process.kill()
    process.join()


def test_a_reader_sees_all_rows_while_another_process_puts_files_together(tmp_path: Path) -> None:
    filled(tmp_path).compact()
    store = Store(tmp_path / "samples", SAMPLES)
    writer = FORK.Process(target=put_together, args=(str(tmp_path),))
    writer.start()
    try:
        names, readings, deadline = set(), 0, time.monotonic() + 120
        while readings < READINGS or len(names) < FILES:
            names |= {path.name for path in store.files()}
            assert len(store.read(["completion"])) == len(SAMPLED)
            readings += 1
            assert writer.is_alive()
            assert time.monotonic() < deadline, f"the other process has written {len(names)} files only"
    finally:
        ended(writer)


def lost_listing(store: Store, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Path]], list[Path]]) -> None:
    """Let the next list of files be another one, as a folder that changes meanwhile may give it."""
    listed, seen = Store.files, list[int]()

    def files(self: Store) -> list[Path]:
        seen.append(1)
        return change(listed(self)) if len(seen) == 1 else listed(self)

    monkeypatch.setattr(Store, "files", files)


def test_files_that_went_after_they_were_listed_are_no_torn_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path)

    def compacted(files: list[Path]) -> list[Path]:
        monkeypatch.undo()
        store.compact()
        return files

    lost_listing(store, monkeypatch, compacted)
    assert store.read().to_pylist() == SAMPLED


def test_a_list_without_the_file_that_parts_went_into_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is listed in pieces: it may have lost a part already, and not show the new file yet."""
    store = filled(tmp_path)
    store.compact()
    store.add([sample(9, 9)])
    lost_listing(store, monkeypatch, lambda files: [path for path in files if path.name.startswith("part-")])
    assert store.read().to_pylist() == [*SAMPLED, sample(9, 9)]


def test_a_store_that_never_rests_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path)
    gone = store.folder / "part-1-abc.parquet"
    monkeypatch.setattr(Store, "files", lambda self: [gone])
    with pytest.raises(UserError, match=f"during each of {module.TRIES} readings; expected a moment without that"):
        store.read()


def test_two_that_put_the_same_files_together_both_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, written_first = filled(tmp_path), module.write_durably

    def overtaken(table: pa.Table, folder: Path, name: str) -> Path:
        monkeypatch.undo()
        store.compact()
        return written_first(table, folder, name)

    monkeypatch.setattr(module, "write_durably", overtaken)
    store.compact()
    assert [path.name.split("-")[0] for path in store.files()] == ["rows"]
    assert store.read().to_pylist() == SAMPLED


def hold(cell: Cell, held: Any) -> None:
    with cell.claimed():
        held.set()
        time.sleep(600)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return written(tmp_path, [made([[1, 0]], benchmark="sums"), made([[1, 1]], benchmark="terms")])


@pytest.fixture
def taken(ledger: Path) -> Any:
    """The first cell of the ledger, and a process that writes it."""
    cell, held = Ledger(ledger).cells()[0], FORK.Event()
    writer = FORK.Process(target=hold, args=(cell, held))
    writer.start()
    assert held.wait(60)
    yield cell, writer
    ended(writer)


def test_a_second_writer_of_a_cell_is_refused_until_the_first_is_gone(taken: Any) -> None:
    cell, writer = taken
    said = r"is being written by another `rlvr evaluate` or `rlvr grade`; wait for it to end and run this again"
    with pytest.raises(CellTaken, match=said), cell.claimed():
        pass
    assert len(cell.samples.read()) == 2  # reading needs no right
    ended(writer)  # without a chance to clear up
    assert writer.exitcode == -signal.SIGKILL
    for _ in range(2):
        with cell.claimed():
            pass


def test_other_cells_are_graded_while_one_is_written(
    ledger: Path, taken: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, writer = taken
    before = cell.describe()
    with pytest.raises(UserError, match=f"1 cells are being written by .* the first is {cell.folder}; all others are"):
        grade_ledger(ledger, {"extract": "last_number"})
    assert cell.describe() == before
    assert capsys.readouterr().out.count("2 samples graded") == 1
    ended(writer)
    grade_ledger(ledger, {"extract": "last_number"})
    assert all(len(one.describe()["protocols"]) == 2 for one in Ledger(ledger).cells())


def test_a_file_system_without_locks_is_one_line(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refused)
    said = r"cannot be locked \(Operation not supported\); expected a file system with flock"
    with pytest.raises(UserError, match=said), Ledger(ledger).cells()[0].claimed():
        pass
