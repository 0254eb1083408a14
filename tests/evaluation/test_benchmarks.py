"""Benchmarks: every file format, ids and digests, sources, and the real files where they are at hand."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from huggingface_hub.errors import OfflineModeIsEnabled

from rlvr.config.compose import configs_dir
from rlvr.data.arithmetic import Arithmetic
from rlvr.data.base import Problem
from rlvr.errors import UserError
from rlvr.evaluation.benchmarks import Loaded, benchmark_names, load_benchmark, read_benchmark
from rlvr.rewards.grade import grade
from rlvr.rewards.preflight import examine
from tests.source import ROOT

FILES = Path(os.environ.get("RLVR_BENCHMARKS", ROOT.parent / "shared" / "data" / "benchmarks"))
"""The seven files; a clone without them tests their formats on `ROWS` alone."""

PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

COUNTS = {
    "aime24": 30, "aime25": 30, "amc23": 40, "math500": 500, "minerva": 272, "olympiadbench": 675, "gsm8k": 1319,
}  # fmt: skip

ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "aime24": (
        {"id": 60, "problem": "How long?", "solution": r"\boxed{25}", "answer": "025", "question": "How long?"},
        "How long?", "025",
    ),
    "aime25": ({"problem": "What angle?", "answer": r"336^\circ"}, "What angle?", r"336^\circ"),
    "amc23": ({"id": 0, "problem": "How far?", "answer": 27.0, "url": "u", "question": "How far?"}, "How far?", "27"),
    "math500": (
        {"problem": " Who? ", "solution": r"It is \boxed{\text{Evelyn}}.", "answer": r"\text{Evelyn}", "level": 2},
        "Who?", r"\text{Evelyn}",
    ),
    "minerva": (
        {"problem": "How bright?", "solution": "So\n\\[\nL=\\boxed{4.5e33} \\mathrm{erg}\n\\]", "type": "t", "idx": 0},
        "How bright?", "4.5e33",
    ),
    "olympiadbench": (
        {"id": 1, "context": None, "question": "Which?", "solution": ["long"], "final_answer": ["$-2,0,2$"],
         "is_multiple_answer": True, "unit": None, "error": None},
        "Which?", "$-2,0,2$",
    ),
    "gsm8k": (
        {"question": "How many?", "answer": "2*35,000=<<2*35000=70000>>70,000\n#### 70,000", "idx": 2},
        "How many?", "70000",
    ),
}  # fmt: skip
"""One row in the format of each file, with the question and the gold that it holds."""


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    file = folder / str(read_benchmark(name)[0].file)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_the_format_of_each_file(name: str, tmp_path: Path) -> None:
    row, question, gold = ROWS[name]
    loaded = load_benchmark(name, written(tmp_path, name, [row]))
    identity = hashlib.sha256(question.encode()).hexdigest()[:16]
    assert [tuple(problem) for problem in loaded.problems] == [(identity, question, gold)]
    assert identity == Problem(question, gold).prompt_id
    assert (loaded.name, loaded.template, loaded.extract, loaded.max_tokens) == (name, None, None, None)
    assert grade(f"\\boxed{{{gold}}}", gold).correct


def test_the_minerva_file_has_another_name() -> None:
    assert [read_benchmark(name)[0].file for name in COUNTS if name != "minerva"] == [
        f"{name}.jsonl" for name in COUNTS if name != "minerva"
    ]
    assert read_benchmark("minerva")[0].file == "minerva_math.jsonl"


def test_the_benchmarks_of_the_package() -> None:
    assert benchmark_names() == sorted([*COUNTS, "arithmetic"])
    for name in benchmark_names():
        assert read_benchmark(name)[0].name == name
        revision = read_benchmark(name)[0].revision
        assert revision is None or (len(revision) == 40 and int(revision, 16))


@pytest.mark.skipif(not FILES.is_dir(), reason=f"{FILES} is not there; set RLVR_BENCHMARKS to the folder of the files")
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_files_load_as_they_are_and_every_gold_grades_itself(name: str) -> None:
    loaded = load_benchmark(name, FILES)
    assert len(loaded.problems) == COUNTS[name]
    assert len({problem.problem_id for problem in loaded.problems}) == COUNTS[name]
    found = examine([Problem(problem.question, problem.gold) for problem in loaded.problems], workers=1)
    assert [check.answer for check, _ in found.failed] == []
    assert found.graded["itself"] == found.graded["itself boxed"] == COUNTS[name]
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | {COUNTS[name]:,} |"))
    assert loaded.digest[:16] in row, "the digest on the page is of other data"


def test_arithmetic_is_what_a_run_holds_out_by_default() -> None:
    loaded = load_benchmark("arithmetic")
    assert (loaded.template, loaded.max_tokens, len(loaded.problems)) == ("none", 48, 512)
    data = Arithmetic()
    assert [Problem(problem.question, problem.gold) for problem in loaded.problems] == data.heldout()
    trained_on = {problem.prompt for problem in data.train()}
    assert not any(problem.question in trained_on for problem in loaded.problems)
    assert loaded == load_benchmark("arithmetic", Path("/no/such/folder"))


def digest_of(folder: Path, rows: list[dict[str, Any]]) -> str:
    return load_benchmark("aime25", written(folder, "aime25", rows)).digest


def test_the_digest_stands_for_ids_questions_golds_and_order(tmp_path: Path) -> None:
    rows = [{"problem": "a?", "answer": "1"}, {"problem": "b?", "answer": "2"}]
    digest = digest_of(tmp_path, rows)
    ids = [hashlib.sha256(text).hexdigest()[:16] for text in (b"a?", b"b?")]
    lines = f'["{ids[0]}", "a?", "1"]\n["{ids[1]}", "b?", "2"]\n'
    assert digest == hashlib.sha256(lines.encode()).hexdigest()
    assert digest == digest_of(tmp_path, [{**row, "note": 5, "id": 9} for row in rows])
    others = [
        rows[::-1],
        rows[:1],
        [rows[0], {"problem": "b?", "answer": "3"}],
        [rows[0], {"problem": "c?", "answer": "2"}],
    ]
    assert len({digest, *(digest_of(tmp_path, other) for other in others)}) == 5


def test_equal_questions_are_all_kept_and_told_apart(tmp_path: Path) -> None:
    rows = [{"problem": text, "answer": gold} for text, gold in (("a?", "1"), ("a?", "2"), ("a?", "1"), ("b?", "1"))]
    problems = load_benchmark("aime25", written(tmp_path, "aime25", rows)).problems
    assert [(problem.question, problem.gold) for problem in problems] == [
        (row["problem"], row["answer"]) for row in rows
    ]
    ids = [problem.problem_id for problem in problems]
    assert len(set(ids)) == 4
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in ids)
    assert ids[3] == Problem("b?", "1").prompt_id
    swapped = load_benchmark("aime25", written(tmp_path, "aime25", [rows[1], rows[0], rows[3], rows[2]])).problems
    assert {(p.question, p.gold, p.problem_id) for p in swapped} == {
        (p.question, p.gold, p.problem_id) for p in problems
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "b?", "answer": None}, r"1 of 2 rows of .* have no gold answer in `answer` \(line 2\)"),
        ({"problem": "  ", "answer": "1"}, r"1 of 2 rows of .* have no question in `problem` \(line 2\)"),
        ({"problem": [{"role": "user"}], "answer": "1"}, r"line 2, is a list; expected a text or a list of"),
    ],
)
def test_rows_without_question_or_gold_are_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_benchmark("aime25", written(tmp_path, "aime25", [{"problem": "a?", "answer": "1"}, row]))


def test_a_missing_column_names_those_that_exist(tmp_path: Path) -> None:
    written(tmp_path, "aime25", [{"problm": "a?", "answer": "1"}])
    with pytest.raises(
        UserError, match=r"aime25: prompt_column is problem, .* columns problm, answer; did you mean problm"
    ):
        load_benchmark("aime25", tmp_path)


def own(folder: Path, **values: Any) -> str:
    (folder / "sub").mkdir(exist_ok=True)
    path = folder / "sub" / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_a_yaml_of_ones_own(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2?"}]
    (tmp_path / "mine.json").write_text(json.dumps([{"q": "1+1?", "a": {"value": 2}}, {"q": chat, "a": {"value": 4}}]))
    path = own(
        tmp_path, version=3, file="../mine.json", prompt_column="q", gold_column="a.value",
        template="Q: {question}", extract="last_number", max_tokens=9,
    )  # fmt: skip
    loaded = load_benchmark(path, tmp_path / "nowhere")  # benchmarks_dir is for the benchmarks of the package
    assert (loaded.name, loaded.version, loaded.template) == ("mine", 3, "Q: {question}")
    assert (loaded.extract, loaded.max_tokens) == ("last_number", 9)
    assert [tuple(problem)[1:] for problem in loaded.problems] == [("1+1?", "2"), (chat, "4")]
    assert loaded.problems[1].problem_id == Problem(chat, "4").prompt_id


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fil": "a.jsonl"}, "benchmark mine.fil is not a field of Benchmark; did you mean file?"),
        ({}, "mine has neither path, file nor data"),
        ({"file": "a.jsonl", "data": {"name": "arithmetic"}}, "mine has both data and path or file"),
        ({"file": "a.jsonl", "path": "org/a"}, "has both path and file; .* remove one"),
        ({"file": "a.jsonl", "version": 0}, "version is 0; expected a whole number of at least 1"),
        ({"file": "a.jsonl", "max_tokens": "many"}, "max_tokens is 'many'; expected"),
        ({"file": "a.jsonl", "template": "qwen"}, "template is 'qwen'; expected none, paper_8020"),
        ({"file": "a.jsonl", "extract": "box"}, "extract is 'box'; expected one of boxed"),
        ({"file": "a.jsonl", "name": "a/b"}, "name 'a/b' is not made of letters"),
        ({"file": "a.jsonl"}, "benchmark mine: file=.*a.jsonl does not exist"),
        ({"data": {"name": "arithmetics"}}, "data.name is arithmetics; expected one of arithmetic"),
        ({"data": {"name": "arithmetic", "sed": 1}}, "data.sed is not a field of Arithmetic; did you mean seed"),
        ({"data": {"name": "arithmetic", "heldout_size": 0}}, "holds no problems out; set data.heldout_size"),
    ],
)
def test_a_yaml_that_does_not_fit_is_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_benchmark(own(tmp_path, **values))


def test_unknown_benchmarks_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"benchmark aime26 is unknown; did you mean aime2\d\? known are aime24, aime25, amc23"
    ):
        load_benchmark("aime26")
    with pytest.raises(UserError, match=r"benchmark .*none.yaml cannot be read \(.*No such file"):
        load_benchmark(str(tmp_path / "none.yaml"))
    (tmp_path / "aime_2024.jsonl").write_text("")
    with pytest.raises(UserError, match=r"has no aime24.jsonl for the benchmark aime24; it has aime_2024.jsonl: put"):
        load_benchmark("aime24", tmp_path)
    with pytest.raises(UserError, match=r"benchmarks_dir=.*no is not a folder; expected one with aime24.jsonl"):
        load_benchmark("aime24", tmp_path / "no")


def test_the_hub_is_asked_for_the_pinned_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def load(path: str, subset: str | None, split: str, revision: str | None) -> datasets.Dataset:
        calls.append((path, subset, split, revision))
        return datasets.Dataset.from_list([ROWS["gsm8k"][0]])

    monkeypatch.setattr(datasets, "load_dataset", load)
    loaded = load_benchmark("gsm8k")
    assert calls == [("openai/gsm8k", "main", "test", "740312add88f781978c0658806c59bc2815b9866")]
    assert loaded.source == "openai/gsm8k main test at 740312add88f781978c0658806c59bc2815b9866"
    local = load_benchmark("gsm8k", written(tmp_path, "gsm8k", [ROWS["gsm8k"][0]]))
    assert (local.digest, local.problems) == (loaded.digest, loaded.problems)
    assert isinstance(local, Loaded)
    assert local.source != loaded.source


def test_a_hub_out_of_reach_points_to_local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"benchmark math500 .* hub .* or benchmarks_dir=FOLDER with math500.jsonl"):
        load_benchmark("math500")


def test_loading_imports_no_torch() -> None:
    code = "import sys, rlvr.evaluation.benchmarks, rlvr.evaluation.contamination_table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_every_yaml_says_where_its_problems_come_from_if_nothing_is_pinned() -> None:
    for path in (configs_dir() / "benchmark").glob("*.yaml"):
        benchmark = read_benchmark(path.stem)[0]
        if benchmark.path and benchmark.revision is None:
            assert "No revision" in path.read_text()


def test_the_page_names_source_revision_and_file_of_each_benchmark() -> None:
    for name in benchmark_names():
        benchmark = read_benchmark(name)[0]
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | "))
        assert all(f"`{value}`" in row for value in (benchmark.path, benchmark.revision, benchmark.file) if value)
        assert ("not pinned" in row) == (benchmark.path is not None and benchmark.revision is None)
    assert load_benchmark("arithmetic").digest[:16] in PAGE


def test_the_example_of_the_page(tmp_path: Path) -> None:
    example = PAGE.split("```yaml\n")[1].split("```")[0]
    row = PAGE.split("with rows such as `")[1].split("`")[0]
    (tmp_path / "mine.jsonl").write_text(row)
    (tmp_path / "mine.yaml").write_text(example)
    loaded = load_benchmark(str(tmp_path / "mine.yaml"))
    assert (loaded.name, loaded.version, loaded.extract, loaded.max_tokens) == ("mine", 1, "last_number", 256)
    assert loaded.template == "Question: {question}\nAnswer:"
    assert [tuple(problem)[1:] for problem in loaded.problems] == [("What is 6 * 7?", "42")]
    data = yaml.safe_load(PAGE.split("and `data: ")[1].split("`")[0])
    assert len(load_benchmark(own(tmp_path, data=data)).problems) == 512


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("(0,4]", "$t(0,4]$", False),
        ("90", r"$\angle B E A_{1}=90$,$\angle A E B_{1}=90$", False),
        ("0,-2,2", "$-2,0,2$", True),
        ("0,2", "$-2,0,2$", False),
        (r"4.2\%", "4.2", True),
        (r"\arcsin(10/13)", "np.arcsin(10/13)", True),
        ("336", r"336^\circ", True),
        ("25", "025", True),
    ],
)
def test_the_golds_that_the_page_has_a_word_about(answer: str, gold: str, right: bool) -> None:
    assert gold in PAGE
    assert grade(f"\\boxed{{{answer}}}", gold).correct is right
