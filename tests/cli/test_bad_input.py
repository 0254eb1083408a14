"""Bad input to `rlvr train`: one line on the terminal, exit code 2, and no folder of a run that never was."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.cli import main
from rlvr.config.compose import compose
from rlvr.preflight import SPARE_BYTES, needed_bytes
from rlvr.trainer.seam import RLVRTrainer
from tests.trainer.tiny import make_qwen3, make_tokenizer

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs `rlvr train` with settings that must be refused; gives back the one line it says."""

    def run(*arguments: str) -> str:
        runs = tmp_path / "runs"
        capfd.readouterr()  # what the test itself said
        code = main(["train", f"run.dir={runs}", "run.name=x", *arguments])
        said = capfd.readouterr().err
        assert code == 2
        assert len(said.splitlines()) == 1, said
        assert said.startswith("rlvr: ")
        assert not runs.exists()
        return said

    return run


def data_file(path: Path, *rows: dict[str, Any]) -> list[str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["data=files", f"data.train_files={path}"]


def command(folder: Path, *settings: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", **variables}
    arguments = [sys.executable, "-m", "rlvr.cli", "train", f"run.dir={folder / 'runs'}", "run.name=x", *settings]
    return subprocess.run(arguments, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("settings", "variables", "said"),
    [
        (["model.path=org/model"], {"HF_HUB_OFFLINE": "1"}, "model.path=org/model cannot be loaded; expected a folder"),
        (["launch.processes=3"], {}, "groups would straddle ranks; expected a multiple of 3: set it to 30"),
        (
            ["rollouts.prompts=33", "optimizer.micro_batch_rows=64", "launch.processes=3"],
            {},
            "optimizer.micro_batch_rows is 64, but a rank has 88 rows",
        ),
    ],
)
def test_what_depends_on_the_environment(
    settings: list[str], variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    caches = {"HF_HOME": str(tmp_path / "empty")}
    done = command(tmp_path, *settings, **{**caches, **variables})
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    lines = [line for line in done.stderr.splitlines() if "DeepSpeed" not in line]
    assert len(lines) == 1, done.stderr
    assert not (tmp_path / "runs").exists()


def test_files_that_are_not_there(refused: Refused, tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert f"model.path={missing} is not a folder" in refused(f"model.path={missing}")
    assert f"{missing}.jsonl" in refused("data=files", f"data.train_files={missing}.jsonl")
    assert "data.train_files" in refused("data=files")


def test_columns_that_nobody_can_map(refused: Refused, tmp_path: Path) -> None:
    data = data_file(tmp_path / "train.jsonl", {"foo": "1+1=", "bar": "2"})
    said = refused(*data)
    assert "has the columns foo, bar: no prompt among them" in said
    assert "data.prompt_column and data.gold_column" in said
    assert "data.gold_column is baz" in refused(*data, "data.prompt_column=foo", "data.gold_column=baz")


def test_empty_golds(refused: Refused, tmp_path: Path) -> None:
    rows = [{"problem": f"{index}+1=", "answer": str(index + 1) if index != 2 else " "} for index in range(4)]
    assert "1 of 4 rows" in refused(*data_file(tmp_path / "train.jsonl", *rows))
    assert "(line 3)" in refused(*data_file(tmp_path / "train.jsonl", *rows))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("optimizer.micro_batch_rows=100", "set it to 32 or 64 or 128"),
        ("optimizer.updates_per_rollout=5", "set it to 30 or 35, or optimizer.window=row"),
        ("rollouts.num_generations=1", "rollouts.num_generations is 1 with advantage=grpo, which compares"),
        ("launch.x=1", "launch.x is not a field of LaunchSection"),
        ("launch=slurn", "launch=slurn is unknown; did you mean slurm?"),
        ("trl.num_generations=4", "trl.num_generations is not taken here: rollouts.num_generations"),
        ("trl.loss_type=grpo", "trl.loss_type is not taken here: objective.reduction"),
        ("trl.use_liger_kernel=true", "trl.use_liger_kernel is not taken here: optimizer.sparse_head"),
    ],
)
def test_settings_that_do_not_fit(settings: str, said: str, refused: Refused) -> None:
    assert said in refused(settings)


def test_a_run_folder_that_is_not_empty_keeps_what_it_has(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/notes.txt").write_text("mine")
    assert main(["train", f"run.dir={tmp_path / 'runs'}", "run.name=x"]) == 2
    said = capfd.readouterr().err
    assert "exists and is not empty; choose another run.name" in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in (tmp_path / "runs/x").iterdir()] == ["notes.txt"]


def test_a_place_where_no_folder_can_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["train", f"run.dir={tmp_path / 'file'}", "run.name=x"]) == 2
    said = capfd.readouterr().err
    assert f"{tmp_path / 'file' / 'x'} cannot be made (Not a directory); set run.dir to a writable folder" in said
    assert len(said.splitlines()) == 1


def without_end(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


BERT = '{"model_type": "bert", "architectures": ["BertModel"]}'


def saved_model(folder: Path) -> str:
    make_qwen3().save_pretrained(folder)
    make_tokenizer(23).save_pretrained(folder)
    return str(folder)


def test_a_full_disk_is_refused_with_what_is_needed(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved_model(tmp_path / "model")
    asked: list[Path] = []

    def nearly_full(path: Path) -> Any:
        asked.append(Path(path))
        return shutil._ntuple_diskusage(1 << 40, 1 << 40, SPARE_BYTES)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    said = refused(f"model.path={model}")
    assert f"{tmp_path} has 64 MiB free, but the run needs about 65 MiB for its checkpoints" in said
    assert "set run.dir to a larger disk, raise run.save_steps, or set run.keep_last=1" in said
    assert asked == [tmp_path], "the nearest folder that is there"


@pytest.mark.parametrize(
    ("settings", "most", "trained_bytes", "checkpoints"),
    [
        ([], None, 4, 1),
        (["run.save_steps=30"], None, 4, 4),
        (["run.save_steps=30"], 2, 4, 2),
        (["run.save_steps=30", "model.dtype=bfloat16"], 9, 2, 4),
    ],
)
def test_room_for_three_copies_in_each_checkpoint_and_in_one_being_written(
    settings: list[str], most: int | None, trained_bytes: int, checkpoints: int, tmp_path: Path
) -> None:
    model = saved_model(tmp_path / "model")
    weights = make_qwen3().num_parameters()
    need = needed_bytes(compose(["run.steps=100", *settings]), model, most)
    assert need == 3 * weights * trained_bytes * (1 + checkpoints) + (64 << 20)


def test_adapters_need_room_for_themselves_alone_and_a_hub_id_for_nothing_known(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    # q 16+16, k 16+8, v 16+8, o 16+16, gate and up 16+32 each, down 32+16, in 2 layers
    adapters = 2 * 2 * (32 + 24 + 24 + 32 + 48 + 48 + 48)
    assert needed_bytes(compose(["model.lora.rank=2"]), model) == 3 * adapters * 4 * 2 + SPARE_BYTES
    assert needed_bytes(compose(), "org/name") == SPARE_BYTES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"damaged"), "cannot be read as safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be trained with these settings"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not a valid JSON file"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded; expected a folder or a hub id"),
        (
            lambda folder: (folder / "config.json").write_text(
                '{"model_type": "bert", "architectures": ["BertModel"]}'
            ),
            "architectures=['BertModel']; expected a causal language model",
        ),
        (without_end, "has no end-of-text token; set eos_token"),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text("{}"),
            "the tokenizer finds no token in the prompt '",
        ),
    ],
)
def test_a_model_folder_that_is_not_whole(
    change: Callable[[Path], Any], said: str, refused: Refused, tmp_path: Path
) -> None:
    folder = Path(saved_model(tmp_path / "model"))
    change(folder)
    assert said in refused(f"model.path={folder}")


@pytest.mark.parametrize("name", ["environment_factory", "rollout_func", "tools", "eval_dataset"])
def test_a_feature_of_trl_that_would_be_ignored_is_refused_by_the_trainer(name: str) -> None:
    from rlvr.errors import UserError

    with pytest.raises(UserError, match=rf"{name}= is a TRL feature that RLVRTrainer does not support"):
        RLVRTrainer("/nowhere", lambda **_: [], train_dataset=[{"prompt": "a"}], **{name: [1]})
