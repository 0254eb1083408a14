"""`rlvr grade`: every row in order, whole lines only, resumed exactly, and errors that teach."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet
import pytest

from rlvr.cli import main
from rlvr.errors import UserError
from rlvr.rewards import graded_file, version
from rlvr.rewards.graded_file import ADDED, grade_file, output_path
from rlvr.rewards.policy import Policy
from rlvr.rewards.rows import Columns


def rows_of(count: int) -> list[dict[str, Any]]:
    completions = [r"so \boxed{%d}", r"so \boxed{%dx}", "no box %d", r"\boxed{}%d"]
    return [
        {"id": n, "completion": completions[n % 4] % n, "gold": str(n), "task": f"t{n % 2}", "extra": [n, None]}
        for n in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return write(tmp_path / "outputs.jsonl", rows_of(10))


def test_rows_come_out_in_order_with_their_verdicts(outputs: Path) -> None:
    tally = grade_file(outputs)
    graded = read(output_path(outputs))
    assert output_path(outputs).name == "outputs.jsonl.graded.jsonl"
    assert [{name: row[name] for name in row if name not in ADDED} for row in graded] == rows_of(10)
    assert all(set(ADDED) <= row.keys() for row in graded)
    assert [row["status"] for row in graded] == ["correct", "wrong", "no_answer", "unparseable"] * 2 + [
        "correct", "wrong",
    ]  # fmt: skip
    assert [row["correct"] for row in graded] == [row["status"] == "correct" for row in graded]
    assert graded[0]["extracted"] == "0"
    assert tally.statuses["t0"] == {"correct": 3, "no_answer": 2}
    assert tally.rows == 10


def test_parquet_nested_golds_truncation_and_odd_values(tmp_path: Path) -> None:
    path = tmp_path / "outputs.parquet"
    table = {
        "response": [r"\boxed{1}", r"\boxed{2}", r"\boxed{3}", None],
        "answer": [["1", " one "], ["7"], ["3"], ["4"]],
        "truncated": [False, False, True, None],
        "score": [0.5, float("nan"), float("inf"), 1.0],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    grade_file(path, columns=Columns(completion="response", gold="answer"))
    graded = read(output_path(path))
    assert [row["status"] for row in graded] == ["correct", "wrong", "wrong", "no_answer"]
    assert graded[2]["reason"] == "truncated"
    assert [row["score"] for row in graded] == [0.5, None, None, 1.0]
    assert grade_file(path, columns=Columns(completion="response", gold="answer")).resumed == 4


def test_chats_numbers_and_texts_that_no_encoding_likes(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(
        '\ufeff{"completion": [{"role": "assistant", "content": "\\\\boxed{5}"}], "gold": 5}\n\n'
        '{"completion": "\\ud800 \\u2028 \\\\boxed{5}", "gold": 5.0}\n'
    )
    grade_file(path)
    assert [row["correct"] for row in read(output_path(path))] == [True, True]


@pytest.mark.parametrize("cut", [0, 1, 200, -1, -40])
def test_a_resume_goes_on_after_the_last_whole_line(outputs: Path, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graded_file, "CHUNK_ROWS", 3)
    whole = grade_file(outputs)
    output = output_path(outputs)
    expected = [{**row, "seconds": 0} for row in read(output)]
    data = output.read_bytes()
    output.write_bytes(data[:cut])
    tally = grade_file(outputs)
    assert [{**row, "seconds": 0} for row in read(output)] == expected
    assert tally.statuses == whole.statuses
    assert tally.resumed == data[:cut].count(b"\n")


def test_an_output_of_other_rows_is_refused(outputs: Path) -> None:
    grade_file(outputs)
    rows = rows_of(10)
    for changed in ([*rows[:4], {**rows[4], "gold": "9"}, *rows[5:]], rows[:9], [rows[1], rows[0], *rows[2:]]):
        write(outputs, changed)
        with pytest.raises(UserError, match=r"was made from another input.*--overwrite"):
            grade_file(outputs)
    assert grade_file(outputs, overwrite=True).resumed == 0
    write(outputs, [rows[1], rows[0], *rows[2:], *rows])
    assert grade_file(outputs).resumed == 10  # rows that were added


def test_an_output_by_other_rules_is_refused(outputs: Path) -> None:
    grade_file(outputs)
    with pytest.raises(UserError, match="was graded with extract=boxed, now extract=last_number"):
        grade_file(outputs, policy=Policy(extract="last_number"))
    assert grade_file(outputs, policy=Policy(extract="last_number"), overwrite=True).rows == 10


def _rules(outputs: Path) -> Path:
    return output_path(outputs).with_name(f"{output_path(outputs).name}.rules.json")


def test_an_output_by_another_grader_is_refused(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grade_file(outputs)
    before = output_path(outputs).read_bytes()
    monkeypatch.setattr(version, "GRADER_VERSION", version.GRADER_VERSION + 1)
    expected = (
        f"was graded with grader={version.GRADER_VERSION - 1} .*, now grader={version.GRADER_VERSION} .*--overwrite"
    )
    with pytest.raises(UserError, match=expected):
        grade_file(outputs)
    assert output_path(outputs).read_bytes() == before
    assert grade_file(outputs, overwrite=True).resumed == 0
    assert grade_file(outputs).resumed == 10


@pytest.mark.parametrize("rules", ['{"extract": "boxed"}', "[]", '{"extract": "bo', None])
def test_an_output_that_names_no_grader_is_refused(outputs: Path, rules: str | None) -> None:
    grade_file(outputs)
    _rules(outputs).unlink() if rules is None else _rules(outputs).write_text(rules)
    with pytest.raises(UserError, match=r"was graded with grader=unknown, now grader=.*add --overwrite to grade anew"):
        grade_file(outputs)


def test_an_output_has_one_writer(outputs: Path) -> None:
    """A second start in the middle of the first is refused, and harms nothing, even with `overwrite`."""
    refused: list[bool] = []

    def second(rows: int, done: int, total: int) -> None:
        for overwrite in (False, True):
            with pytest.raises(UserError, match=r"is being written by another process; wait for it, or set --output"):
                grade_file(outputs, overwrite=overwrite)
            refused.append(overwrite)

    assert grade_file(outputs, progress=second).rows == 10
    assert refused == [False, True]
    assert len(read(output_path(outputs))) == 10
    assert grade_file(outputs).resumed == 10  # free again


def test_an_output_that_its_holder_removed_is_not_written(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, the process before may have ended with a mistake and left nothing behind."""
    flock = fcntl.flock

    def late(file: IO[bytes], how: int) -> None:
        output_path(outputs).unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="is being written by another process"):
        grade_file(outputs)


def test_an_output_without_locks_or_in_no_folder_is_refused(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot be written \(No such file or directory\); set --output"):
        grade_file(outputs, outputs.parent / "nowhere" / "x.jsonl")

    def none(file: IO[bytes], how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(UserError, match=r"cannot be locked \(No locks available\)"):
        grade_file(outputs)


def test_rows_before_a_bad_one_are_kept(outputs: Path) -> None:
    with outputs.open("a") as file:
        file.write('{"id": 10, "completion": "x"}\n')
    with pytest.raises(UserError, match=r"line 11 has no column gold; found are id, completion: set --gold-column"):
        grade_file(outputs)
    assert len(read(output_path(outputs))) == 10


MISTAKES = {
    "not json\n": "line 1 is not JSON",
    "[1]\n": "line 1 is a list; expected an object",
    '{"completion": "a", "answer": "b"}\n': "has no column gold; found are completion, answer",
    '{"completions": "a", "gold": "b"}\n': "set --completion-column, e.g. --completion-column completions",
    '{"completion": 5, "gold": "b"}\n': "line 1 has a int in completion; expected a text",
    '{"completion": "a", "gold": {"b": 1}}\n': "expected a text, a number or a list",
    '{"completion": "a", "gold": "b", "truncated": "yes"}\n': "truncated='yes'; expected true or false",
}  # fmt: skip


@pytest.mark.parametrize("content", MISTAKES)
def test_mistakes_are_one_line(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    assert main(["grade", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rlvr: ")
    assert len(said.splitlines()) == 1
    assert MISTAKES[content] in said


def test_other_mistakes(tmp_path: Path, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.csv").write_text("a")
    (tmp_path / "x.parquet").write_text("a")
    for arguments, message in (
        (["nowhere.jsonl"], "is not a file"),
        ([str(tmp_path / "x.csv")], "ends in .csv"),
        ([str(tmp_path / "x.parquet")], "is not a Parquet file"),
        ([str(outputs), "--output", str(outputs)], "is the input"),
        ([str(outputs), "--extract", "box"], "extract is 'box'"),
        ([str(outputs), "--workers", "0"], "workers is 0"),
        ([str(outputs), "--task-column", "subject"], "has no column subject"),
    ):
        assert main(["grade", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert outputs.read_text()
    assert not output_path(outputs).exists()
    assert len(list(tmp_path.iterdir())) == 3  # a mistake leaves nothing behind


def test_the_command_prints_a_table_a_task(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(outputs), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    for text in ("t0", "t1", "all", "60.0%", "no_answer", "unparseable", "10 rows graded"):
        assert text in said
    assert main(["grade", str(outputs)]) == 0
    assert "10 rows graded (10 of them before)" in capsys.readouterr().out


def test_grading_loads_no_torch(outputs: Path) -> None:
    code = (
        f"import sys; from rlvr.cli import main; main(['grade', {str(outputs)!r}])\n"
        "sys.exit(bool({'torch', 'sympy', 'math_verify', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_killed_command_is_resumed(tmp_path: Path) -> None:
    path = write(tmp_path / "many.jsonl", [
        {"id": n, "completion": rf"\boxed{{{n}x+{n}}}", "gold": f"{n}(x+1)"} for n in range(3000)
    ])  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr.cli", "grade", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    output = output_path(path)
    end = time.monotonic() + 60
    while not (output.exists() and output.stat().st_size) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = output.read_bytes().count(b"\n")  # the last line may be torn
    write(path, read(path)[: first + 500])
    tally = grade_file(path)
    assert tally.resumed == first >= graded_file.CHUNK_ROWS
    assert [row["id"] for row in read(output)] == list(range(tally.rows))
    assert set(tally.statuses[""]) == {"correct"}


@pytest.mark.slow
def test_a_large_file_takes_constant_memory(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as file:
            for n in range(rows):
                file.write(json.dumps({"id": n, "completion": "word " * 50 + rf"\boxed{{{n}}}", "gold": str(n)}) + "\n")
        code = (
            f"from rlvr.cli import main; main(['grade', {str(path)!r}])\n"
            "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return int(done.stdout.split()[-1])

    assert peak(300_000) < peak(3_000) + 16_000  # KiB
