"""Pass rates of training prompts from samples to file, and the prompts chosen by them."""

import io
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rlvr.config.compose import compose
from rlvr.data.arithmetic import Arithmetic
from rlvr.data.base import Problem
from rlvr.data.files import Files
from rlvr.data.pass_rates import Rate, read_rates
from rlvr.data.templates import BOXED_INSTRUCTION, PAPER_8020
from rlvr.errors import UserError
from rlvr.evaluation import passrate as module
from rlvr.evaluation.backends.transformers import TransformersBackend
from rlvr.evaluation.ledger import Ledger
from rlvr.evaluation.passrate import METADATA, passrate, training_benchmark
from rlvr.evaluation.prompt_choice import Choice, Making, making_of, select_prompt, select_prompts, write_prompts
from rlvr.evaluation.requests import Request
from rlvr.rewards.grade import grade
from rlvr.sampling.settings import Sampling
from tests.evaluation.tiny import save_model
from tests.source import ROOT

SMALL = ["data.train_size=12", "data.heldout_size=4"]


def measure(*overrides: str) -> str:
    """Run the command; what was said."""
    console = Console(file=io.StringIO(), width=200)
    assert passrate(overrides, console) == 0
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_counts_are_those_of_the_samples_in_the_ledger(tmp_path: Path, drawn: list[Request]) -> None:
    output = tmp_path / "new" / "rates.parquet"
    said = measure(*SMALL, "k=6", f"output={output}")
    problems = Arithmetic(train_size=12, heldout_size=4).train()
    rows = pq.read_table(output).to_pylist()
    assert [(r["prompt_id"], r["prompt"], r["gold"], r["chat"]) for r in rows] == [
        (problem.prompt_id, problem.prompt, problem.gold, False) for problem in problems
    ]
    assert sorted({request.prompt for request in drawn}) == sorted(str(problem.prompt) for problem in problems)
    assert len(drawn) == 72
    (cell,) = Ledger(tmp_path / "new" / "rates.ledger").cells()
    samples = cell.samples.read().to_pylist()
    for row, problem in zip(rows, problems, strict=True):
        mine = [s for s in samples if s["problem_id"] == problem.prompt_id]
        cut = [s["finish_reason"] == "length" for s in mine]
        right = [grade(s["completion"], problem.gold, truncated=c).correct for s, c in zip(mine, cut, strict=True)]
        assert (row["n"], row["correct"], row["truncated"]) == (6, sum(right), sum(cut))
        assert row["tokens"] == pytest.approx(statistics.mean(s["token_count"] for s in mine))
    kept = sum(0.2 <= row["correct"] / 6 <= 0.8 for row in rows)
    assert f"data.filter.file={output} data.filter.pass_rate=[0.2,0.8] keeps {kept} of 12 prompts" in said
    total = sum(row["correct"] for row in rows)
    assert f"12 prompts, 72 answers, {total / 72:.1%} right" in said
    assert 0 < total < 72


def test_the_file_says_how_it_was_measured(tmp_path: Path) -> None:
    measure(*SMALL, "k=2", "limit=3", "temperature=0.5", "seed=7", f"output={tmp_path}/rates.parquet")
    told = json.loads(pq.read_schema(tmp_path / "rates.parquet").metadata[METADATA])
    assert (told["model"], told["k"], told["limit"], told["temperature"], told["seed"]) == ("builtin", 2, 3, 0.5, 7)
    assert told["protocol"]["sampling"] == {"temperature": 0.5, "top_p": 1.0, "top_k": 0, "max_tokens": 48}
    assert (told["protocol"]["template"], told["protocol"]["chat"]) == ("none", False)
    assert (told["data"]["name"], told["data"]["train_size"]) == ("arithmetic", 12)
    assert len(read_rates(tmp_path / "rates.parquet", "x")) == 3


def test_more_answers_and_more_prompts_add_to_those_there(tmp_path: Path, drawn: list[Request]) -> None:
    settings = [*SMALL, f"output={tmp_path}/rates.parquet"]
    measure(*settings, "k=2", "limit=5")
    assert len(drawn) == 10
    first = read_rates(tmp_path / "rates.parquet", "x")
    assert "0 samples to draw, 10 are there already" in measure(*settings, "k=2", "limit=5")
    measure(*settings, "k=5", "limit=5")
    assert len(drawn) == 25
    measure(*settings, "k=5", "limit=7")
    assert len(drawn) == 35
    grown = read_rates(tmp_path / "rates.parquet", "x")
    assert {rate.n for rate in grown.values()} == {5}
    assert all(rate.correct <= grown[name].correct <= rate.correct + 3 for name, rate in first.items())
    measure(*settings, "k=2", "limit=5")  # fewer: what a fresh measurement would give
    assert len(drawn) == 35
    assert read_rates(tmp_path / "rates.parquet", "x") == first


def test_killed_half_way_it_goes_on_to_the_file_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    settings = [*SMALL, "k=4", "batch_size=8"]
    measure(*settings, f"output={whole}")
    generate = TransformersBackend.generate

    def killed(self: TransformersBackend, requests: list[Request], sampling: Sampling) -> Iterator[Any]:
        for count, samples in enumerate(generate(self, requests, sampling)):
            if count == 3:
                raise KeyboardInterrupt
            yield samples

    monkeypatch.setattr(TransformersBackend, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(*settings, f"output={other}")
    assert not other.exists()
    monkeypatch.setattr(TransformersBackend, "generate", generate)
    assert "are there already" in measure(*settings, f"output={other}")
    assert pq.read_table(other).equals(pq.read_table(whole))
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_a_model_and_data_of_ones_own_are_asked_as_in_training(tmp_path: Path, drawn: list[Request]) -> None:
    model = save_model(tmp_path / "model")
    lines = [{"problem": f"What is {index}?" + " Long." * (index % 3), "answer": str(index)} for index in range(9)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    of_data = ["data=files", f"data.train_files={tmp_path}/train.jsonl", "data.template=paper_8020"]
    of_data += ["data.max_prompt_tokens=110", "data.heldout_size=2"]
    said = measure(*of_data, "k=2", f"model={model}", "max_tokens=8", f"output={tmp_path}/r.parquet")
    problems = compose(of_data).data.train()
    short = [problem for problem in problems if len(str(problem.prompt)) + 1 <= 110]  # a token a character, and <bos>
    assert 0 < len(short) < len(problems) == 7
    assert f"{len(problems) - len(short)} prompts of more than 110 tokens left out" in said
    assert {request.prompt for request in drawn} == {problem.prompt for problem in short}
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert [row["prompt_id"] for row in table] == [problem.prompt_id for problem in short]
    assert making_of(tmp_path / "r.parquet") == Making("paper_8020")
    (cell,) = Ledger(tmp_path / "r.ledger").cells()
    assert max(cell.samples.read()["token_count"].to_pylist()) <= 8


def test_the_filter_reads_what_was_measured(tmp_path: Path) -> None:
    measure(*SMALL, "k=4", f"output={tmp_path}/r.parquet")
    rates = read_rates(tmp_path / "r.parquet", "x")
    config = compose([*SMALL, f"data.filter.file={tmp_path}/r.parquet", "data.filter.pass_rate=[0,0.5]"])
    kept = {problem.prompt_id for problem in config.data.train()}
    assert kept == {name for name, rate in rates.items() if rate.correct <= 2}
    assert 0 < len(kept) < 12


def test_equal_prompts_are_asked_once_and_any_change_of_a_gold_is_another_benchmark() -> None:
    problems = [Problem("a", "1"), Problem("b", "2"), Problem("a", "3")]
    loaded = training_benchmark("files", problems)
    assert [(problem.question, problem.gold) for problem in loaded.problems] == [("a", "1"), ("b", "2")]
    assert loaded.name == "training-files"
    assert loaded.digest == training_benchmark("files", problems[:2]).digest
    assert loaded.digest != training_benchmark("files", [Problem("a", "1"), Problem("b", "4")]).digest


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["k=0"], "k is 0; expected at least 1 answer"),
        (["k=some"], "k is 'some'; expected a whole number"),
        (["output=rates.csv"], r"output=rates\.csv ends in \.csv; expected a name that ends in \.parquet"),
        (["samples=4"], r"samples is not a setting of `rlvr passrate`; did you mean k\?"),
        (["template=none"], "template is not a setting of `rlvr passrate`: prompts are asked as in training"),
        (["temprature=1"], "temprature is not a setting of this command; did you mean temperature"),
        (["data.train_sice=3"], "data.train_sice is not a field of Arithmetic; did you mean train_size"),
        (["model=[builtin,/no/such/folder]"], "/no/such/folder does not exist"),
        (["temperature=-1"], "temperature is -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides: list[str], said: str, tmp_path: Path) -> None:
    place = [] if any(text.startswith("output") for text in overrides) else [f"output={tmp_path}/r.parquet"]
    with pytest.raises(UserError, match=said):
        measure(*SMALL, *place, *overrides)
    assert list(tmp_path.iterdir()) == []


def test_one_model_is_measured(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"stands for 2 models; expected one"):
        measure(*SMALL, f"model=[builtin,{model}]", f"output={tmp_path}/r.parquet")


def test_several_processes_start_the_command_again(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[int, list[str]]] = []

    def start(count: int, command: list[str]) -> int:
        started.append((count, command))
        return 3

    monkeypatch.setattr(module, "start_processes", start)
    assert passrate(["k=2", "processes=2"], Console(file=io.StringIO())) == 3
    assert started == [(2, ["passrate", "k=2", "processes=2", "processes=1"])]


def write_file(path: Path, rates: dict[str, tuple[int, int]], problems: dict[str, Problem] | None = None) -> Path:
    """A file of rates as from elsewhere, or with prompts."""
    columns: dict[str, list[Any]] = {
        "prompt_id": list(rates), "n": [n for n, _ in rates.values()], "correct": [c for _, c in rates.values()],
    }  # fmt: skip
    if problems is not None:
        columns |= {
            "prompt": [problems[name].prompt for name in rates], "chat": [False] * len(rates),
            "gold": [problems[name].gold for name in rates],
        }  # fmt: skip
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("n", [2, 3, 8, 17])
def test_the_variance_is_the_unbiased_one_of_the_samples(n: int) -> None:
    for correct in range(n + 1):
        expected = statistics.variance([1] * correct + [0] * (n - correct))
        assert Choice("a", Rate(n, correct)).variance == pytest.approx(expected, abs=1e-15)


def test_the_most_varied_prompts_come_first_and_ties_by_id(tmp_path: Path) -> None:
    rates = {"e": (8, 3), "b": (8, 5), "c": (8, 4), "a": (8, 8), "d": (8, 0), "f": (1, 1), "g": (8, 1), "h": (8, 4)}
    path = write_file(tmp_path / "r.parquet", rates)
    assert [choice.prompt_id for choice in select_prompts(path)] == ["c"]
    assert [choice.prompt_id for choice in select_prompts(path, 99)] == ["c", "h", "b", "e", "g"]
    # 1 of 2 varies more than 4 of 8: 1/2 against 16/56.
    path = write_file(tmp_path / "r.parquet", {"a": (8, 4), "b": (2, 1)})
    assert [(choice.prompt_id, choice.variance) for choice in select_prompts(path, 2)] == [("b", 0.5), ("a", 16 / 56)]


def test_prompts_of_given_data_only(tmp_path: Path) -> None:
    problems = [Problem("p", "1"), Problem("q", "2")]
    path = write_file(tmp_path / "r.parquet", {"0" * 16: (4, 2), problems[0].prompt_id: (4, 1)})
    (chosen,) = select_prompts(path, 5, problems)
    assert chosen.problem == problems[0]
    with pytest.raises(UserError, match="has no prompt with two answers or more that is a prompt of the data"):
        select_prompts(path, 1, problems[1:])


def test_where_nothing_varies_nothing_is_chosen(tmp_path: Path) -> None:
    path = write_file(tmp_path / "r.parquet", {"a": (4, 4), "b": (4, 0)})
    with pytest.raises(UserError, match=r"each of the 2 prompts of .* was solved always or never"):
        select_prompts(path)
    with pytest.raises(UserError, match="has no prompt with two answers or more; run `rlvr passrate` with k=16"):
        select_prompts(write_file(tmp_path / "s.parquet", {"a": (1, 1)}))
    with pytest.raises(UserError, match="--top is 0; expected at least 1 prompt"):
        select_prompts(path, 0)


def choices_of(*problems: Problem) -> list[Choice]:
    return [Choice(problem.prompt_id, Rate(4, 2), problem) for problem in problems]


def chat(*contents: str, roles: Sequence[str] = ("system", "user")) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


@pytest.mark.parametrize(
    ("problems", "making", "used"),
    [
        ([Problem("7+4*2-3=", "12"), Problem("1+1=", ("2", "2.0"))], Making(), Making()),
        ([Problem(PAPER_8020.replace("{question}", "What?"), "$x$")], Making("paper_8020"), Making("paper_8020")),
        ([Problem("Q: a {b} A: ", "1/2")], Making("Q: {question} A: "), Making("Q: {question} A: ")),
        ([Problem(chat("Be brief.", "1+1?"), "2")], Making("chat", "Be brief."), Making("chat", "Be brief.")),
        ([Problem(chat("1+1?", roles=["user"]), "2")], Making("chat"), Making("chat")),
        ([Problem(chat(BOXED_INSTRUCTION, "1+1?"), "2")], Making("qwen_boxed"), Making("qwen_boxed")),
        # What the template does not make of one text stands there whole.
        ([Problem(chat("Be brief.", "1+1?\n"), "2")], Making("chat", "Be brief."), Making()),
        ([Problem(chat("Be brief.", "1+1?"), "2")], Making("chat"), Making()),
        ([Problem(chat("1?", "2?", roles=["user", "user"]), "2")], Making("chat"), Making()),
        ([Problem("1+1=", "2")], Making("paper_8020"), Making()),
    ],
)
def test_written_prompts_come_back_as_they_were(
    problems: list[Problem], making: Making, used: Making, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "one.jsonl"
    assert write_prompts(choices_of(*problems), path, making) == used
    assert Files(train_files=[str(path)], template=used.template, system=used.system).train() == problems
    assert [path.name for path in path.parent.iterdir()] == ["one.jsonl"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["prompt_id"] for line in lines] == [problem.prompt_id for problem in problems]
    assert isinstance(lines[0]["prompt"], str) == (isinstance(problems[0].prompt, str) or used.template != "none")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (Problem("1+1= ", "2"), "has blanks around it"),
        (Problem("1+1=", "it is \\boxed{2}"), "would be read from a file as '2'"),
    ],
)
def test_prompts_that_would_not_come_back_are_refused(problem: Problem, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        write_prompts(choices_of(problem), tmp_path / "one.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_prompts_without_a_text_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the text of prompt a is not known; give the settings of its data"):
        write_prompts([Choice("a", Rate(4, 2))], tmp_path / "one.jsonl")
    with pytest.raises(UserError, match=r"ends in \.json; expected a name that ends in \.jsonl"):
        write_prompts(choices_of(Problem("1", "1")), tmp_path / "one.json")


def test_from_a_measurement_to_a_file_to_train_on(tmp_path: Path) -> None:
    rates, output = tmp_path / "r.parquet", tmp_path / "one.jsonl"
    measure(*SMALL, "k=4", f"output={rates}")
    console = Console(file=io.StringIO(), width=200)
    chosen = select_prompt(rates, 2, output, [], console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{output}: data=files data.train_files={output}\n" in said
    assert all(choice.prompt_id in said and str(choice.problem and choice.problem.prompt) in said for choice in chosen)
    best = max(rate.correct * (4 - rate.correct) for rate in read_rates(rates, "x").values())
    assert chosen[0].variance == best / 12
    train = compose(["data=files", f"data.train_files={output}"]).data.train()
    assert train == [choice.problem for choice in chosen]
    assert {problem.prompt_id for problem in train} <= {
        p.prompt_id for p in Arithmetic(train_size=12, heldout_size=4).train()
    }


def test_prompts_of_a_file_from_elsewhere_are_found_in_the_data(tmp_path: Path) -> None:
    problems = Arithmetic(train_size=12, heldout_size=4).train()
    path = write_file(
        tmp_path / "r.parquet", {problem.prompt_id: (4, index % 3) for index, problem in enumerate(problems)}
    )
    console = Console(file=io.StringIO(), width=200)
    assert select_prompt(path, 1, None, [], console)[0].problem is None
    (chosen,) = select_prompt(path, 1, tmp_path / "one.jsonl", SMALL, console)
    expected = min(problem.prompt_id for index, problem in enumerate(problems) if index % 3 == 2)
    assert chosen.prompt_id == expected
    assert Files(train_files=[str(tmp_path / "one.jsonl")]).train() == [chosen.problem]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_ends_with_the_same_file(tmp_path: Path) -> None:
    code = "import sys; from rich.console import Console; from rlvr.evaluation.passrate import passrate; "
    code += "sys.exit(passrate(sys.argv[1:], Console()))"
    settings = ["data.train_size=96", "data.heldout_size=1", "k=16"]

    def command(name: str, *more: str) -> list[str]:
        return [sys.executable, "-c", code, *settings, *more, f"output={tmp_path}/{name}.parquet"]

    subprocess.run(command("whole"), check=True, cwd=ROOT, timeout=300)
    parts = "killed.ledger/cells/*/*/samples/part-*.parquet"
    for count in range(3):  # as soon as it draws, after its first part, after its second
        process = subprocess.Popen(
            command("killed", "batch_size=4"), cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        assert "samples to draw" in process.stdout.readline()
        while len(list(tmp_path.glob(parts))) < count and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert len(list(tmp_path.glob(parts))) >= 2
    subprocess.run(command("killed"), check=True, cwd=ROOT, timeout=300)
    assert pq.read_table(tmp_path / "killed.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
