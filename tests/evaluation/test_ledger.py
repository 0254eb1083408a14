"""The ledger: rows are kept whole or not at all, and what is damaged is never taken for whole."""

import multiprocessing
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.errors import UserError
from rlvr.evaluation import store as module
from rlvr.evaluation.ledger import ROW, SAMPLES, VERDICTS, Cell, Ledger, gold_text, gold_value
from rlvr.evaluation.store import STALE_SECONDS, Store


def sample(problem: int, index: int, completion: str | None = None) -> dict[str, Any]:
    text = f"Because of {problem}, \\boxed{{{index}}} é∑" if completion is None else completion
    return {
        "checkpoint": "runs/x", "checkpoint_hash": "ab" * 8, "benchmark": "aime24", "problem_id": f"p{problem:02}",
        "sample": index, "seed": 7, "draw_hash": "cd" * 8, "gold": "25", "completion": text,
        "token_count": 10 * problem + index, "finish_reason": "stop",
    }  # fmt: skip


def verdict(problem: int, index: int, protocol: str = "one") -> dict[str, Any]:
    return {
        "problem_id": f"p{problem:02}", "sample": index, "protocol_hash": protocol, "extracted": str(index),
        "answer_class": str(index), "correct": index == 25, "status": "wrong", "reason": "",
    }  # fmt: skip


SAMPLED = [sample(problem, index) for problem in range(6) for index in range(4)]


def filled(folder: Path, parts: int = 3) -> Store:
    store = Store(folder / "samples", SAMPLES)
    for part in range(parts):
        store.add(SAMPLED[part::parts])
    return store


def test_rows_come_back_sorted_each_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "samples", SAMPLES)
    assert (store.files(), len(store.read()), store.read(["gold"]).column_names) == ([], 0, ["gold"])
    store.add([])
    assert not store.folder.exists()
    shuffled = random.Random(0).sample(SAMPLED, len(SAMPLED))
    store.add(shuffled[:10])
    store.add(shuffled[5:20])
    store.add(shuffled[15:])
    assert store.read().to_pylist() == SAMPLED
    assert store.read().schema == SAMPLES
    some = store.read(["completion"], ["p03", "p01", "none"])
    assert some.to_pylist() == [{"completion": sample(p, i)["completion"]} for p in (1, 3) for i in range(4)]


def test_of_equal_keys_the_put_together_row_counts(tmp_path: Path) -> None:
    store = Store(tmp_path / "samples", SAMPLES)
    store.add([sample(0, 0, "first")])
    store.compact()
    store.add([sample(0, 0, "second"), sample(0, 1)])
    assert store.read(["completion"])["completion"].to_pylist() == ["first", sample(0, 1)["completion"]]


def test_putting_together_gives_the_same_bytes_however_rows_came(tmp_path: Path) -> None:
    files = []
    for name, parts in (("a", 1), ("b", 3), ("c", 24)):
        store = filled(tmp_path / name, parts)
        store.compact()
        (file,) = store.files()
        files.append((file.name, file.read_bytes()))
        assert store.read().to_pylist() == SAMPLED
        store.compact()
        assert store.files() == [file]
    assert len(set(files)) == 1
    assert files[0][0].startswith("rows-")


def test_many_row_groups_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 5)
    test_putting_together_gives_the_same_bytes_however_rows_came(tmp_path)
    (file,) = Store(tmp_path / "a" / "samples", SAMPLES).files()
    assert pq.ParquetFile(file).num_row_groups == 5


def repaired(store: Store, kept: list[dict[str, Any]]) -> None:
    """A damaged file is set aside, the others stay, and what is drawn again makes the same ledger."""
    (torn,) = store.repair()
    assert not torn.exists()
    assert torn.with_suffix(".torn").exists()
    assert store.repair() == []
    assert store.read().to_pylist() == kept
    store.add([row for row in SAMPLED if row not in kept])
    assert store.read().to_pylist() == SAMPLED


def test_a_file_cut_anywhere_is_set_aside(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole", 2).files()[0].read_bytes()
    for cut in range(0, len(whole), 37):
        store = filled(tmp_path / str(cut), 2)
        store.files()[0].write_bytes(whole[:cut])
        repaired(store, SAMPLED[1::2])


def test_a_file_with_any_byte_changed_is_set_aside(tmp_path: Path) -> None:
    """Each byte: those of pages, of their headers, and of the footer, which Parquet's own checksums leave out."""
    store = filled(tmp_path, 1)
    file = store.files()[0]
    whole = file.read_bytes()
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << index % 8
        file.write_bytes(damaged)
        assert store.repair() == [file]
        assert len(store.read()) == 0
    file.write_bytes(whole)
    assert store.repair() == []
    repaired_at = range(0, len(whole), 997)
    for index in repaired_at:
        other = filled(tmp_path / str(index), 2)
        first = other.files()[0]
        first.write_bytes(first.read_bytes()[:index] + b"~" + first.read_bytes()[index + 1 :] + b"~")
        repaired(other, SAMPLED[1::2])


def test_a_torn_file_is_not_read(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    file = store.files()[0]
    whole = file.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"part-.* is torn; run the evaluation again: it sets the file aside"):
            store.read()


def test_killed_between_writing_and_removing_rows_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 3)
    removed: list[Path] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        store.compact()
    monkeypatch.undo()
    assert len(store.files()) == 3
    assert store.repair() == []
    assert store.read().to_pylist() == SAMPLED
    store.compact()
    assert [file.name.split("-")[0] for file in store.files()] == ["rows"]
    assert store.read().to_pylist() == SAMPLED


def test_killed_while_writing_nothing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 3)

    def killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.add([sample(9, 9)])
    with pytest.raises(KeyboardInterrupt):
        store.compact()
    monkeypatch.undo()
    assert store.read().to_pylist() == SAMPLED
    assert len(list(store.folder.glob(".*.partial"))) == 2


def test_only_old_partial_files_are_removed(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    old, new = store.folder / ".part-1.99.partial", store.folder / ".part-2.99.partial"
    for path, age in ((old, STALE_SECONDS + 60), (new, STALE_SECONDS / 2)):
        path.write_bytes(b"half")
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    store.repair()
    assert not old.exists()
    assert new.exists()
    assert store.read().to_pylist() == SAMPLED


@given(st.one_of(st.text(), st.lists(st.text(), min_size=1).map(tuple)))
def test_golds_come_back(gold: str | tuple[str, ...]) -> None:
    assert gold_value(gold_text(gold)) == gold


@pytest.mark.parametrize("text", ['["1", "2"]', '["a"]', '["', '[""]'])
def test_a_text_that_looks_like_a_list_of_golds_is_one_gold(text: str) -> None:
    found = gold_value(gold_text(text))
    assert found in (text, (text,))


@pytest.mark.parametrize("text", ["25", "[0, 1]", '["1", 2]', "[1, 2)", r"\left[\frac12\right]"])
def test_texts_stay_as_they_are(text: str) -> None:
    assert gold_text(text) == text
    assert gold_value(text) == text


def write_many(folder: str, first: int) -> None:
    store = Store(Path(folder) / "samples", SAMPLES)
    for index in range(25):
        store.add([sample(problem, first + index) for problem in range(2)])


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(str(tmp_path), first)) for first in (0, 15)]
    for writer in writers:
        writer.start()
    store = Store(tmp_path / "samples", SAMPLES)
    while any(writer.is_alive() for writer in writers):
        seen = store.read().to_pylist()  # a reader sees whole rows at any moment
        assert all(row == sample(int(row["problem_id"][1:]), row["sample"]) for row in seen)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(store.files()) == 50
    expected = [sample(problem, index) for problem in range(2) for index in range(40)]  # 15-24 from both
    assert store.read().to_pylist() == expected
    store.compact()
    assert store.read().to_pylist() == expected


def make_cell(folder: Path) -> Cell:
    cell = Ledger(folder).cell("aime24", "ab" * 8, "cd" * 8, 7)
    cell.samples.add(reversed(SAMPLED))
    cell.verdicts.add(verdict(problem, index) for problem in range(6) for index in range(3))
    cell.verdicts.add([verdict(0, 0, "two")])
    return cell


def test_whole_rows_have_the_contract_columns_and_types(tmp_path: Path) -> None:
    rows = make_cell(tmp_path).rows("one")
    assert ROW == (
        "checkpoint", "checkpoint_hash", "benchmark", "problem_id", "sample", "seed", "protocol_hash", "gold",
        "completion", "token_count", "finish_reason", "extracted", "answer_class", "correct", "status",
    )  # fmt: skip
    assert tuple(rows.column_names) == ROW
    numbers = {"sample": pa.int32(), "token_count": pa.int32(), "seed": pa.int64(), "correct": pa.bool_()}
    assert {field.name: field.type for field in rows.schema} == {name: numbers.get(name, pa.string()) for name in ROW}
    expected = [{**sample(p, i), **verdict(p, i)} for p in range(6) for i in range(3)]
    assert rows.to_pylist() == [{name: row[name] for name in ROW} for row in expected]


def test_gradings_stand_side_by_side(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    assert (len(cell.rows("one")), len(cell.rows("two")), len(cell.rows("three"))) == (18, 1, 0)
    assert cell.rows("one", ["sample", "correct"]).column_names == ["sample", "correct"]


def test_verdicts_of_lost_samples_go_with_them(tmp_path: Path) -> None:
    """What is drawn again may be another answer, from a server or on a GPU."""
    cell = make_cell(tmp_path)
    cell.samples.add([sample(9, 0)])
    cell.verdicts.add([verdict(9, 0), verdict(9, 0, "two")])
    large, small = cell.samples.files()
    small.write_bytes(small.read_bytes()[:-1])
    assert cell.mend() == [small]
    assert (len(cell.rows("one")), len(cell.rows("two"))) == (18, 1)
    cell.samples.add([sample(9, 0, "another")])
    assert "p09" not in cell.verdicts.read()["problem_id"].to_pylist()
    large.write_bytes(b"")
    assert cell.mend() == [large]
    assert len(cell.verdicts.read()) == 0
    assert cell.mend() == []


def test_killed_between_setting_samples_aside_and_dropping_their_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start finds nothing torn, and must not keep old verdicts for the answers that are drawn anew."""
    cell = make_cell(tmp_path)
    cell.samples.add([sample(9, 0)])
    cell.verdicts.add([verdict(9, 0), verdict(9, 0, "two")])
    small = cell.samples.files()[1]
    small.write_bytes(small.read_bytes()[:-1])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cell.mend()
    monkeypatch.undo()
    assert not small.exists()
    assert cell.mend() == []
    cell.samples.add([sample(9, 0, "another")])
    assert "p09" not in cell.rows("one")["problem_id"].to_pylist()
    assert (len(cell.rows("one")), len(cell.rows("two"))) == (18, 1)
    files = cell.verdicts.files()
    assert cell.mend() == []
    assert cell.verdicts.files() == files  # nothing to drop, nothing to write


def test_lost_verdicts_lose_no_sample(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    torn = cell.verdicts.files()[0]
    torn.write_bytes(torn.read_bytes()[:100])
    assert cell.mend() == [torn]
    assert cell.samples.read().to_pylist() == SAMPLED
    assert len(cell.rows("one")) + len(cell.rows("two")) == 1


def test_cells_are_those_that_were_described(tmp_path: Path) -> None:
    made = Ledger(tmp_path)
    cells = [made.cell("math500", "b", "d", 0), made.cell("aime24", "a", "d", 1), made.cell("aime24", "a", "d", 0)]
    for index, cell in enumerate(cells[:2]):
        cell.write_description({"benchmark": {"name": "é"}, "index": index})
    cells[2].samples.add([sample(0, 0)])
    assert made.cells() == [cells[1], cells[0]]
    assert cells[1].describe() == {"benchmark": {"name": "é"}, "index": 1}
    assert len({cell.folder for cell in cells}) == 3
    assert Ledger(tmp_path / "none").cells() == []


def test_columns_of_the_schemas_name_each_thing_once() -> None:
    assert set(SAMPLES.names) & set(VERDICTS.names) == {"problem_id", "sample"}
    assert set(ROW) == (set(SAMPLES.names) | set(VERDICTS.names)) - {"draw_hash", "reason"}
