"""`rlvr evaluate` from settings to ledger: all benchmarks, what is drawn again, what is refused, watching a run."""

import io
import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from rlvr import cli
from rlvr.config.evaluation import compose_evaluation
from rlvr.errors import UserError
from rlvr.evaluation import evaluate as module
from rlvr.evaluation.backends.transformers import TransformersBackend
from rlvr.evaluation.benchmarks import load_benchmark
from rlvr.evaluation.evaluate import Evaluation, Task
from rlvr.evaluation.ledger import ROW, Ledger
from rlvr.evaluation.requests import Request
from rlvr.evaluation.scores import read_ledger
from rlvr.sampling.settings import Sampling
from tests.evaluation.tiny import (
    BENCHMARKS,
    COUNTS,
    ledger_files,
    ledger_rows,
    make_model,
    make_tokenizer,
    save_checkpoint,
    save_model,
    write_benchmarks,
)  # fmt: skip
from tests.source import ROOT

REAL = ROOT.parent / "shared" / "data" / "benchmarks"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    save_model(folder / "model")
    write_benchmarks(folder / "files")
    return folder


def evaluate(place: Path, ledger: Path, *more: str) -> tuple[list[Task], str]:
    """The cells, and what was said."""
    config = compose_evaluation([
        f"model={place}/model", f"benchmarks_dir={place}/files", "benchmarks=[aime24,gsm8k]", "samples=2",
        "max_tokens=8", f"ledger={ledger}", *more,
    ])  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    tasks = Evaluation(config, console).execute()
    return tasks, console.file.getvalue()  # type: ignore[attr-defined]


def check_rows(ledger: Path, names: dict[str, int], files: Path, samples: int) -> None:
    """Every problem of every benchmark has its samples, with the gold of the file."""
    cells = {cell.describe()["benchmark"]["name"]: cell for cell in Ledger(ledger).cells()}
    assert set(cells) == set(names)
    for name, count in names.items():
        loaded = load_benchmark(name, files)
        problems = {problem.problem_id: problem.gold for problem in loaded.problems[:count]}
        described = cells[name].describe()
        (protocol,) = described["protocols"]
        rows = cells[name].rows(protocol).to_pylist()
        assert tuple(rows[0]) == ROW
        keys = [(row["problem_id"], row["sample"]) for row in rows]
        assert keys == sorted((problem, sample) for problem in problems for sample in range(samples))
        assert all(row["gold"] == problems[row["problem_id"]] for row in rows)
        assert {row["benchmark"] for row in rows} == {name}
        assert all(1 <= row["token_count"] <= (48 if name == "arithmetic" else 8) for row in rows)
        assert described["problems"] == len(loaded.problems)


def test_all_eight_benchmarks_end_to_end(place: Path, tmp_path: Path) -> None:
    tasks, said = evaluate(place, tmp_path, f"benchmarks=[{','.join(BENCHMARKS)}]", "limit=3")
    assert [task.benchmark.name for task in tasks] == list(BENCHMARKS)
    check_rows(tmp_path, dict.fromkeys(BENCHMARKS, 3), place / "files", samples=2)
    assert f"{place}/model on minerva: 6 samples to draw" in said
    scores = read_ledger(tmp_path)
    assert [(s.benchmark, s.samples, s.total) for s in scores] == [
        (name, 2, 512 if name == "arithmetic" else 3) for name in sorted(BENCHMARKS)
    ]
    assert len({s.protocol_hash for s in scores}) == 8


@pytest.mark.skipif(not REAL.is_dir(), reason="the benchmarks' own files are not here")
def test_the_real_files_end_to_end(place: Path, tmp_path: Path) -> None:
    tasks, _ = evaluate(place, tmp_path, f"benchmarks=[{','.join(BENCHMARKS)}]", f"benchmarks_dir={REAL}", "limit=4",
                        "samples=1", "max_tokens=4")  # fmt: skip
    assert {task.benchmark.name: len(task.benchmark.problems) for task in tasks} == COUNTS
    check_rows(tmp_path, dict.fromkeys(BENCHMARKS, 4), REAL, samples=1)


def test_what_is_there_is_not_drawn_again(place: Path, tmp_path: Path, drawn: list[Request]) -> None:
    evaluate(place, tmp_path)
    assert len(drawn) == 12
    before, files = ledger_rows(tmp_path), ledger_files(tmp_path)
    drawn.clear()
    _, said = evaluate(place, tmp_path)
    assert drawn == []
    assert said.count("0 samples to draw, 6 are there already") == 2
    assert ledger_files(tmp_path) == files
    evaluate(place, tmp_path, "samples=4")
    assert sorted(request.key for request in drawn) == sorted(
        (task, problem, sample)
        for cell in before.values() for task, problem in {(r["benchmark"], r["problem_id"]) for r in cell}
        for sample in (2, 3)
    )  # fmt: skip
    after = ledger_rows(tmp_path)
    for name, rows in before.items():
        assert [row for row in after[name] if row["sample"] < 2] == rows
    # Two and then two more are what four at once are.
    evaluate(place, tmp_path / "once", "samples=4")
    assert ledger_rows(tmp_path / "once") == after
    assert ledger_files(tmp_path / "once") == {k: v for k, v in ledger_files(tmp_path).items() if "once" not in k}


def test_a_limit_asks_the_first_problems(place: Path, tmp_path: Path, drawn: list[Request]) -> None:
    evaluate(place, tmp_path, "limit=1", "benchmarks=[gsm8k]")
    problems = load_benchmark("gsm8k", place / "files").problems
    assert {request.key.problem_id for request in drawn} == {problems[0].problem_id}
    drawn.clear()
    evaluate(place, tmp_path, "limit=2", "benchmarks=[gsm8k]")
    assert {request.key.problem_id for request in drawn} == {problems[1].problem_id}
    (scores,) = read_ledger(tmp_path)
    assert (len(scores.problems), scores.total) == (2, 3)


def test_another_protocol_seed_or_model_is_another_cell(place: Path, tmp_path: Path, drawn: list[Request]) -> None:
    settings = [(), ("temperature=0.5",), ("seed=1",), ("dtype=bfloat16",), ("decoding=fork_temperature",)]
    for more in settings:
        drawn.clear()
        evaluate(place, tmp_path, "benchmarks=[aime24]", *more)
        assert len(drawn) == 6
    drawn.clear()
    evaluate(place, tmp_path, "benchmarks=[aime24]", "extract=last_number")  # another grading of the same samples
    assert drawn == []
    assert len(Ledger(tmp_path).cells()) == len(settings)
    assert len(ledger_rows(tmp_path)) == len(settings) + 1
    save_model(tmp_path / "other", seed=1)
    evaluate(place, tmp_path, "benchmarks=[aime24]", f"model={tmp_path}/other")
    assert len(Ledger(tmp_path).cells()) == len(settings) + 1


def test_a_damaged_ledger_is_mended(place: Path, tmp_path: Path, drawn: list[Request]) -> None:
    evaluate(place, tmp_path)
    files = ledger_files(tmp_path)
    first, second = Ledger(tmp_path).cells()
    for file, lost in (
        (first.samples.files()[0], 6), (second.verdicts.files()[0], 0), (second.folder / "cell.json", 0)
    ):  # fmt: skip
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        drawn.clear()
        _, said = evaluate(place, tmp_path)
        assert f"{file} was torn" in said
        assert len(drawn) == lost
        assert ledger_files(tmp_path) == files


def test_what_came_before_an_error_is_kept(
    place: Path, tmp_path: Path, drawn: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, calls = TransformersBackend._advance, []

    def broken(self: TransformersBackend, rows: list[Any], sampling: Sampling) -> None:
        calls.append(1)
        if len(calls) > 8:
            raise RuntimeError("the machine is gone")
        advance(self, rows, sampling)

    monkeypatch.setattr(TransformersBackend, "_advance", broken)
    with pytest.raises(RuntimeError, match="gone"):
        evaluate(place, tmp_path, "batch_size=1")
    kept = sum(len(cell.samples.read(["sample"])) for cell in Ledger(tmp_path).cells())
    assert 0 < kept < 12
    monkeypatch.setattr(TransformersBackend, "_advance", advance)
    drawn.clear()
    evaluate(place, tmp_path)
    assert len(drawn) == 12 - kept
    evaluate(place, tmp_path / "whole")
    expected = ledger_files(tmp_path / "whole")
    assert {name: data for name, data in ledger_files(tmp_path).items() if "whole" not in name} == expected


def test_an_adapter_is_evaluated_with_its_base(place: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_model()
    base.name_or_path = base.config._name_or_path = str(place / "model")
    torch.manual_seed(0)
    adapter = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapter.peft_config["default"].base_model_name_or_path = str(place / "model")
    adapter.save_pretrained(tmp_path / "adapter")
    make_tokenizer().save_pretrained(tmp_path / "adapter")
    sampling = ["benchmarks=[aime24]", "samples=4"]
    evaluate(place, tmp_path / "adapted", *sampling, f"model={tmp_path}/adapter")
    evaluate(place, tmp_path / "bare", *sampling)
    merged = adapter.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    make_tokenizer().save_pretrained(tmp_path / "merged")
    evaluate(place, tmp_path / "joined", *sampling, f"model={tmp_path}/merged")

    def completions(name: str) -> list[str]:
        (rows,) = ledger_rows(tmp_path / name).values()
        return [row["completion"] for row in rows]

    assert completions("adapted") == completions("joined")
    assert completions("adapted") != completions("bare")


@pytest.mark.parametrize("watch", [False, True])
def test_every_checkpoint_of_a_run(watch: bool, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (10, 9):
        save_checkpoint(run, step)
    save_checkpoint(run, 11, complete=False)
    (run / "summary.json").write_text("{}")
    tasks, _ = evaluate(place, tmp_path / "l", f"model={run}", "benchmarks=[aime24]", f"watch={watch}", "poll=0.01")
    assert [task.checkpoint.step for task in tasks] == [9, 10]
    assert [scores.step for scores in read_ledger(tmp_path / "l")] == [9, 10]


@pytest.mark.parametrize("given", ["run", "r*"])
def test_watching_scores_checkpoints_as_they_appear_until_the_run_ends(given: str, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    seen: list[list[int | None]] = []
    config = compose_evaluation([
        f"model={tmp_path}/{given}", f"benchmarks_dir={place}/files", "benchmarks=[aime24]", "samples=1",
        "max_tokens=4", f"ledger={tmp_path}/l", "watch=true", "poll=0.05",
    ])  # fmt: skip

    def train() -> None:
        for step in (1, 2):
            time.sleep(0.3)
            save_checkpoint(run, step, complete=False)
            time.sleep(0.2)  # half a checkpoint is there for a while
            (run / "checkpoints" / f"checkpoint-{step}" / "rlvr_state_0.pt").touch()
            while len(seen) < step:
                time.sleep(0.02)
        save_checkpoint(run, 3)
        (run / "summary.json").write_text("{}")

    training = threading.Thread(target=train)
    training.start()
    tasks = Evaluation(config, Console(file=io.StringIO())).execute(
        lambda tasks: seen.append([task.checkpoint.step for task in tasks])
    )
    training.join()
    assert seen == [[1], [1, 2], [1, 2, 3]]
    assert [task.checkpoint.step for task in tasks] == [1, 2, 3]


def test_a_checkpoint_saved_just_before_the_end_is_not_missed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint and the summary come between the search for checkpoints and the look at the run."""
    run = tmp_path / "run"
    save_checkpoint(run, 1)
    find, finds = module.find_checkpoints, []

    def found(*given: Any) -> Any:
        checkpoints = find(*given)
        finds.append(1)
        if len(finds) == 2:
            save_checkpoint(run, 2)
            (run / "summary.json").write_text("{}")
        return checkpoints

    monkeypatch.setattr(module, "find_checkpoints", found)
    tasks, _ = evaluate(place, tmp_path / "l", f"model={run}", "benchmarks=[aime24]", "watch=true", "poll=0.01")
    assert [task.checkpoint.step for task in tasks] == [1, 2]


@pytest.mark.parametrize("moment", ["before its turn", "while it is hashed", "while it is loaded", "once it is loaded"])
def test_a_watch_leaves_out_what_its_run_removes(
    moment: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    folders = {step: save_checkpoint(run, step) for step in (1, 2, 3)}
    (run / "summary.json").write_text("{}")
    hashed, opened = module.checkpoint_hash, module.open_backend

    def hash_of(path: str, revision: str | None) -> str:
        if moment == "before its turn" and path == str(folders[1]):
            shutil.rmtree(folders[2])
        if moment == "while it is hashed" and path == str(folders[2]):
            found = hashed(path, revision)
            shutil.rmtree(path)  # its hash may be of a part only
            return found
        return hashed(path, revision)

    def open_of(config: Any, checkpoint: Any) -> Any:
        if moment.endswith("loaded") and checkpoint.step == 2:
            found = opened(config, checkpoint) if moment == "once it is loaded" else None
            shutil.rmtree(folders[2])
            return found or opened(config, checkpoint)
        return opened(config, checkpoint)

    monkeypatch.setattr(module, "checkpoint_hash", hash_of)
    monkeypatch.setattr(module, "open_backend", open_of)
    ledger, reports = tmp_path / "l", []
    config = compose_evaluation([
        f"model=[{run},{folders[1]},{folders[2]}]", f"benchmarks_dir={place}/files", "benchmarks=[aime24]", "samples=1",
        "max_tokens=4", f"ledger={ledger}", "watch=true", "poll=0.01",
    ])  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    tasks = Evaluation(config, console).execute(lambda found: reports.append([task.checkpoint.step for task in found]))
    assert [task.checkpoint.step for task in tasks] == [1, 3]
    assert [scores.step for scores in read_ledger(ledger)] == [1, 3]
    assert reports[-1] == [1, 3]
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{folders[2]} was removed by its run before it was read, and is left out" in said


def test_without_a_watch_a_removed_checkpoint_is_an_error(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = save_checkpoint(tmp_path / "run", 1), module.open_backend

    def open_of(config: Any, checkpoint: Any) -> Any:
        shutil.rmtree(folder)
        return opened(config, checkpoint)

    monkeypatch.setattr(module, "open_backend", open_of)
    with pytest.raises(UserError, match="cannot be"):
        evaluate(place, tmp_path / "l", f"model={tmp_path}/run", "benchmarks=[aime24]")


def test_a_cell_that_another_process_writes_is_refused(place: Path, tmp_path: Path, drawn: list[Request]) -> None:
    (task, *_), _ = evaluate(place, tmp_path, "benchmarks=[aime24]")
    drawn.clear()
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        with task.cell.claimed():
            held.set()
            time.sleep(600)

    other = context.Process(target=hold)
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(UserError, match=f"{task.cell.folder} is being written by another"):
            evaluate(place, tmp_path, "benchmarks=[aime24]", "samples=4")
        evaluate(place, tmp_path, "benchmarks=[gsm8k]")  # another cell of the same ledger
    finally:
        other.kill()
        other.join()
    assert {request.key.benchmark for request in drawn} == {"gsm8k"}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error that a user can mend."""
    assert cli.main(["evaluate", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("rlvr: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model={place}/none"], "does not exist; expected a folder, a glob"),
        (["model={place}/files"], "is neither a model nor a run"),
        (["benchmarks=[aime2024]"], "benchmark aime2024 is unknown; did you mean aime24?"),
        (["benchmarks_dir={place}/none"], "is not a folder"),
        (["benchmarks_dir={place}"], "has no aime24.jsonl for the benchmark aime24"),
        (["ledger={place}/file"], "is a file; expected a folder, made if it does not exist"),
        (["ledger={place}/file/below"], "file is a file; expected a folder"),
        (["samples=0"], "samples is 0; expected at least 1"),
        (["template='no place'"], "template is 'no place'"),
        (["model={place}/lost"], "lacks 1 weights, the first is model.layers.0.mlp.up_proj.weight; expected a whole"),
        (["model={place}/torn"], "cannot be loaded"),
        (["model={place}/blank"], "holds no weights"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    more: list[str], message: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "file").write_text("not a ledger")
    for name in ("lost", "torn", "blank"):
        if f"{place}/{name}" in more[0].format(place=place):
            file = save_model(tmp_path / name) / "model.safetensors"
            weights = load_file(file)
            del weights["model.layers.0.mlp.up_proj.weight"]
            save_file(weights, file, metadata={"format": "pt"})
            if name == "torn":
                file.write_bytes(file.read_bytes()[:-100])
            if name == "blank":
                file.unlink()
            more = [f"model={tmp_path}/{name}"]
    settings = [f"model={place}/model", f"benchmarks_dir={place}/files", "benchmarks=[aime24]", "max_tokens=4",
                f"ledger={tmp_path}/ledger"]  # fmt: skip
    assert message in refused([*settings, *(text.format(place=place) for text in more)], capsys)
    assert not list(tmp_path.rglob("*.parquet"))
    assert (place / "file").read_text() == "not a ledger"


def test_a_prompt_longer_than_the_models_positions(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "short", max_position_embeddings=128)
    settings = [f"model={model}", f"benchmarks_dir={place}/files", "benchmarks=[aime24]", "max_tokens=4",
                f"ledger={tmp_path}/l"]  # fmt: skip
    said = refused(settings, capsys)
    assert "but the model reads 128 at most; leave the benchmark out or take a model with more positions" in said
    assert not list((tmp_path / "l").rglob("*.parquet"))


def test_a_chat_protocol_on_a_base_model(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "base")
    (model / "chat_template.jinja").unlink()
    settings = [f"model={model}", f"benchmarks_dir={place}/files", "benchmarks=[aime24]", f"ledger={tmp_path}/l"]
    assert "the model's tokenizer has no chat template" in refused([*settings, "protocol=r1"], capsys)
    assert not list((tmp_path / "l").rglob("*.parquet"))


def test_named_protocols_end_to_end(place: Path, tmp_path: Path, drawn: list[Request]) -> None:
    for name in ("paper_8020", "dapo", "qwen_greedy", "r1"):
        evaluate(place, tmp_path, "benchmarks=[aime24]", f"protocol={name}")
    assert len({json.dumps(request.prompt) for request in drawn}) == 12
    assert len(ledger_rows(tmp_path)) == 4
    greedy = next(s for s in read_ledger(tmp_path) if s.protocol["name"].startswith("qwen_greedy"))
    assert [len(set(tokens.tolist())) for tokens in greedy.tokens] == [1, 1, 1]  # greedy samples are all alike
