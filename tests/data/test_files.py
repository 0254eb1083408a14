"""Files of every suffix, what is held out of them, and messages that say where a file is wrong."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rlvr.config.compose import compose
from rlvr.data.base import Problem
from rlvr.data.files import Files
from rlvr.errors import UserError

ROWS = [{"problem": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(20)]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".csv":
        path.write_text("problem,answer\n" + "".join(f'"{row["problem"]}",{row["answer"]}\n' for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def prompts(problems: list[Problem]) -> list[Any]:
    return [problem.prompt for problem in problems]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv", ".JSONL"])
def test_every_suffix_gives_the_same_problems(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "train.x"
    Path(write(path.with_suffix(suffix.lower()))).rename(path.with_suffix(suffix))
    expected = [Problem(row["problem"], row["answer"]) for row in ROWS]
    assert Files(train_files=[str(path.with_suffix(suffix))]).train() == expected


def test_nested_values_in_parquet_and_json_lines(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "What is 6*7?"}]
    row = {"prompt": chat, "reward_model": {"ground_truth": "42", "style": "rule"}, "extra_info": {"index": "a"}}
    for name in ("train.parquet", "train.jsonl"):
        path = write(tmp_path / name, [row])
        assert Files(train_files=[path]).train() == [Problem(chat, "42")]
        paths = {"prompt_column": "prompt.0.content", "gold_column": "reward_model.ground_truth"}
        assert Files(train_files=[path], **paths).train() == [Problem("What is 6*7?", "42")]


def test_json_lines_under_the_suffix_of_json(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    Path(write(tmp_path / "train.jsonl", ROWS[:2])).rename(path)
    assert len(Files(train_files=[str(path)]).train()) == 2
    Path(write(tmp_path / "train.jsonl", ROWS[:1])).rename(path)
    assert len(Files(train_files=[str(path)]).train()) == 1


def test_blank_lines_a_byte_order_mark_and_line_separators_inside_texts(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        '\ufeff{"problem": "a\u2028b", "answer": "1"}\r\n\r\n{"problem": "c", "answer": " "}\n', encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"\(line 3\)"):
        Files(train_files=[str(path)]).train()
    assert prompts(Files(train_files=[str(path)], drop_empty=True).train()) == ["a\u2028b"]


def test_csv_cells_stay_as_written(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('problem,answer\n"a, ""b""\nc?",007\nd?,1/2\n' + "e" * 200_000 + ",3.10\n", encoding="utf-8-sig")
    problems = Files(train_files=[str(path)]).train()
    assert [problem.gold for problem in problems] == ["007", "1/2", "3.10"]
    assert problems[0].prompt == 'a, "b"\nc?'


def test_a_folder_a_glob_and_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    write(folder / "b.jsonl", ROWS[5:10])
    write(folder / "a.parquet", ROWS[:5])
    write(folder / "deep" / "c.csv", ROWS[10:])
    (folder / "README.md").write_text("not data")
    expected = [row["problem"] for row in ROWS]
    assert prompts(Files(train_files=[str(folder)]).train()) == expected[:10]
    assert prompts(Files(train_files=[f"{folder}/*.jsonl"]).train()) == expected[5:10]
    assert prompts(Files(train_files=[f"{folder}/**/*"]).train()) == expected
    both = [str(folder / "b.jsonl"), str(folder / "a.parquet"), str(folder)]
    assert prompts(Files(train_files=both).train()) == expected[5:10] + expected[:5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"problem": "a", "answer": "1"}\n{"problem": \n', "a.jsonl line 2 is not JSON"),
        ("a.jsonl", "[1, 2]\n", "a.jsonl line 1 is a list; expected an object"),
        ("a.json", '[{"problem": "a",\n "answer" "1"}]', "a.json line 2 is not JSON"),
        ("a.json", '{\n"problem": ["a"]}', "a.json holds a dict; expected a list of objects"),
        ("a.json", "[1]", "a.json row 1 is a int"),
        ("a.csv", 'problem,answer\na,1\n"b",2,3\n', "a.csv line 3 does not have 2 cells"),
        ("a.csv", "problem,answer\na\n", "a.csv line 2 does not have 2 cells"),
        ("a.csv", 'problem,answer\n"a"b,1\n', "a.csv line 2 is not CSV"),
        ("a.parquet", "PAR", "a.parquet is not a Parquet file"),
        ("a.jsonl", "\n", "holds no rows"),
        ("a.txt", "a", "ends in .txt; expected .jsonl, .json, .parquet, .csv"),
    ],
)
def test_a_broken_file_is_named_with_its_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        Files(train_files=[str(path)]).train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_another_encoding_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes("problem,answer\ncaf\u00e9,1\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        Files(train_files=[str(path)]).train()


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    with pytest.raises(UserError, match=r"data.train_files=.*trian.jsonl does not exist; .* mean .*train.jsonl\?"):
        Files(train_files=[str(tmp_path / "trian.jsonl")]).train()
    with pytest.raises(UserError, match=r"data.heldout_files=.*\*.csv matches no file"):
        Files(train_files=[str(tmp_path)], heldout_files=[f"{tmp_path}/*.csv"]).train()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a folder without"):
        Files(train_files=[str(tmp_path / "empty")]).train()
    with pytest.raises(UserError, match=r"data.train_files is empty"):
        Files().train()


def test_what_is_held_out_depends_on_the_seed_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl")

    def data(**settings: Any) -> Files:
        return Files(train_files=[path], **settings)

    split = data(heldout_size=5)
    assert (len(split.train()), len(split.heldout())) == (15, 5)
    assert not set(prompts(split.train())) & set(prompts(split.heldout()))
    order = [row["problem"] for row in ROWS]
    assert prompts(split.train()) == sorted(prompts(split.train()), key=order.index)
    assert data(heldout_size=5).heldout() == split.heldout()
    assert data(heldout_size=5, limit=4).heldout() == split.heldout()
    assert data(heldout_size=5, seed=1).heldout() != split.heldout()
    few, more = data(heldout_size=5, limit=4).train(), data(heldout_size=5, limit=8).train()
    assert (len(few), len(more), len(data(limit=99).train())) == (4, 8, 20)
    assert set(prompts(few)) < set(prompts(more)) < set(prompts(split.train()))
    with pytest.raises(UserError, match=r"data.heldout_size is 20 but there are only 20 different problems"):
        data(heldout_size=20).train()


def test_a_held_out_prompt_is_never_trained_on(tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.jsonl", [{"problem": f" {row['problem']}\n", "answer": row["answer"]} for row in ROWS]
    )
    heldout = write(tmp_path / "other.jsonl", [*ROWS[:3], ROWS[0], {"problem": "new?", "answer": "1"}])
    data = Files(train_files=[train], heldout_files=[heldout], template="paper_8020")
    assert len(data.train()) == 17
    assert len(data.heldout()) == 4
    assert not set(prompts(data.train())) & set(prompts(data.heldout()))
    assert "training: 3 prompts are also held out and were left out" in data.notes()
    assert data.notes()[-1] == "training on 17 problems, 4 held out"
    assert len(Files(train_files=[train], heldout_files=[heldout], limit=2).train()) == 2
    with pytest.raises(UserError, match="every one of the 20 training prompts is also held out"):
        Files(train_files=[train], heldout_files=[train]).train()


def test_held_out_files_from_elsewhere_have_columns_of_their_own(tmp_path: Path) -> None:
    rows = [{"q": f"Solve. {row['problem']}", "a": row["answer"]} for row in ROWS]
    other = write(
        tmp_path / "other.jsonl",
        [{"question": "6*7?", "final_answer": ["42"]}, {"question": ROWS[0]["problem"], "final_answer": "0"}],
    )
    data = Files(
        train_files=[write(tmp_path / "train.jsonl", rows)], heldout_files=[other],
        prompt_column="q", gold_column="a", strip_prefix="Solve.",
    )  # fmt: skip
    assert len(data.train()) == 19  # the overlap is found under the instruction
    assert sorted(prompts(data.heldout())) == ["6*7?", ROWS[0]["problem"]]
    assert any("held out: 2 of 2 prompts lack data.strip_prefix" in note for note in data.notes())


def test_an_instruction_that_no_prompt_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.strip_suffix is 'Be brief.', but no prompt of"):
        Files(train_files=[write(tmp_path / "train.jsonl")], strip_suffix="Be brief.").train()


def test_without_anything_held_out_people_are_told(tmp_path: Path) -> None:
    data = Files(train_files=[write(tmp_path / "train.jsonl")], max_prompt_tokens=7)
    assert data.heldout() == []
    assert "nothing is held out" in data.notes()[-1]
    assert data.prompt_limit() == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "data.limit is 0"),
        ({"heldout_size": -1}, "data.heldout_size is -1"),
        ({"max_prompt_tokens": 0}, "data.max_prompt_tokens is 0"),
        ({"heldout_size": 1, "heldout_files": ["x.jsonl"]}, "data.heldout_files says what is held out"),
        ({"template": "boxed_qwen"}, "data.template is 'boxed_qwen'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Files(**settings)


def test_from_the_command_line(tmp_path: Path) -> None:
    train, heldout = write(tmp_path / "train.jsonl", ROWS[:15]), write(tmp_path / "other.csv", ROWS[15:])
    settings = ["data=files", f"data.train_files={tmp_path}/*.jsonl", f"data.heldout_files=[{heldout}]", "data.limit=3"]
    data = compose([*settings, 'data.template="Q: {question}\nA: \\boxed{"']).data
    assert data == Files(
        train_files=[train.replace("train", "*")],
        heldout_files=[heldout],
        limit=3,
        template="Q: {question}\nA: \\boxed{",
    )
    assert str(data.train()[0].prompt).endswith("?\nA: \\boxed{")
    assert len(data.heldout()) == 5


def test_training_problems_without_golds_are_read_where_that_is_said(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"problem": f"What is {n}+{n}?"} for n in range(6)])
    heldout = write(tmp_path / "heldout.jsonl", ROWS[4:8])
    with pytest.raises(UserError, match="no gold answer among them"):
        Files(train_files=[train]).train()
    data = Files(train_files=[train], heldout_files=[heldout], unlabelled=True)
    assert {(problem.prompt, problem.gold) for problem in data.train()} == {(f"What is {n}+{n}?", "") for n in range(4)}
    assert {problem.gold for problem in data.heldout()} == {"8", "10", "12", "14"}
    assert "training: 6 problems, prompts from `problem` without golds" in data.notes()
    labelled = Files(train_files=[write(tmp_path / "golds.jsonl")], unlabelled=True)
    assert {problem.gold for problem in labelled.train()} == {""}
    with pytest.raises(UserError, match=r"data\.unlabelled=true with data\.heldout_size=2"):
        Files(train_files=[train], unlabelled=True, heldout_size=2)


def test_a_reward_that_grades_needs_golds(tmp_path: Path) -> None:
    from rlvr.preflight import with_golds

    train = write(tmp_path / "train.jsonl", [{"problem": "1+1?"}])
    settings = ["data=files", f"data.train_files=[{train}]", "data.unlabelled=true", "algorithm=em_ft"]
    config = compose(settings)
    with pytest.raises(UserError, match=r"data\.unlabelled=true with reward\.accuracy"):
        with_golds(config.data.train(), config)
    config = compose([*settings, "reward=none"])
    assert with_golds(config.data.train(), config) == []
    known = Problem("1+1?", "2")
    assert with_golds([known, *config.data.train()], config) == [known]
