"""Which models a setting stands for, and that a hash stands for all that answers depend on."""

import json
import shutil
from pathlib import Path
from typing import IO, Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from rlvr.assets import base_policy_path
from rlvr.errors import UserError
from rlvr.evaluation.checkpoints import Checkpoint, checkpoint_hash, find_checkpoints, find_runs, is_model, is_run
from tests.evaluation.tiny import save_checkpoint, save_model


def folder(path: Path) -> Path:
    """What looks like a model."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def run_folder(path: Path, steps: list[int], half: list[int] | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").touch()
    for step in steps:
        (folder(path / "checkpoints" / f"checkpoint-{step}") / "rlvr_state_0.pt").touch()
    for step in half or []:
        folder(path / "checkpoints" / f"checkpoint-{step}")
    return path


def test_a_run_stands_for_its_complete_checkpoints_by_step(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "x", [100, 20, 3], half=[120])
    found = find_checkpoints([str(run)])
    assert [(c.step, c.run, c.label == c.path) for c in found] == [(step, run, True) for step in (3, 20, 100)]
    assert found[0].label == f"{run}/checkpoints/checkpoint-3"
    assert find_checkpoints([f"{run}/"]) == found
    assert is_run(run)
    assert not is_model(run)


def test_globs_are_in_numeric_order_and_leave_half_checkpoints_out(tmp_path: Path) -> None:
    for name in ("b", "a"):
        run_folder(tmp_path / name, [9, 10, 100], half=[110])
    (tmp_path / "a" / "checkpoints" / "notes").mkdir()
    found = find_checkpoints([f"{tmp_path}/*/checkpoints/*"])
    order = [(name, step) for name in ("a", "b") for step in (9, 10, 100)]
    assert [(c.run.name, c.step) for c in found if c.run] == order
    assert find_checkpoints([f"{tmp_path}/*"]) == found
    assert [c.step for c in find_checkpoints([f"{tmp_path}/a/checkpoints/checkpoint-1*"])] == [10, 100]


def test_each_model_counts_once_in_the_order_given(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "x", [1, 2])
    last = f"{run}/checkpoints/checkpoint-2"
    found = find_checkpoints([last, str(run), "builtin", last, "org/model"])
    assert [c.label for c in found] == [last, f"{run}/checkpoints/checkpoint-1", "builtin", "org/model"]
    assert found[2] == Checkpoint("builtin", str(base_policy_path()))
    assert found[3] == Checkpoint("org/model", "org/model")


def test_a_folder_of_the_name_of_a_hub_id_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "org" / "model-7")
    assert find_checkpoints(["org/model-7"]) == [Checkpoint("org/model-7", "org/model-7")]


def test_a_mistyped_run_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("keep_20", "keep_80", "control"):
        run_folder(tmp_path / "runs" / name, [1])
    (tmp_path / "runs" / "notes").mkdir()
    run_folder(tmp_path / "runs" / "sweep" / "all-seed0", [1])
    with pytest.raises(UserError) as error:
        find_checkpoints(["runs/keep20"])
    assert str(error.value) == (
        "model=runs/keep20 does not exist; expected a folder, a glob, a run folder, a hub id or builtin; runs has "
        "keep_20, keep_80, control, sweep"
    )
    run_folder(tmp_path / "sweeps" / "s" / "all-seed0", [1])
    with pytest.raises(UserError, match=r"model=sweeps/x does not exist; .*; sweeps has s$"):
        find_checkpoints(["sweeps/x"])
    folder(tmp_path / "org" / "model-7")  # a copy of a model of the hub: its owner may have others
    assert find_checkpoints(["org/model-8"]) == [Checkpoint("org/model-8", "org/model-8")]


def test_checkpoints_that_their_run_has_removed_are_not_found_again(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "x", [1, 2])
    first, second = (run / "checkpoints" / f"checkpoint-{step}" for step in (1, 2))
    given = [str(first), f"{run}/checkpoints/*1", str(run)]
    assert len(find_checkpoints(given, watch=True)) == 2
    shutil.rmtree(first)
    with pytest.raises(UserError, match="does not exist"):
        find_checkpoints(given, watch=True)
    assert [one.path for one in find_checkpoints(given, watch=True, again=True)] == [str(second)]
    with pytest.raises(UserError, match="does not exist"):
        find_checkpoints([f"{tmp_path}/y"], watch=True, again=True)


def test_a_model_that_goes_while_it_is_hashed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder(tmp_path / "x")
    (place / "model.safetensors").write_bytes(b"weights")
    opened = Path.open

    def gone(path: Path, *given: str) -> IO[Any]:
        if path.name == "config.json":
            shutil.rmtree(place)
        return opened(path, *given)

    monkeypatch.setattr(Path, "open", gone)
    with pytest.raises(UserError, match=r"model=.*/x lost config.json while it was read; expected a folder that stays"):
        checkpoint_hash(str(place))


def test_models_outside_a_run(tmp_path: Path) -> None:
    base, adapter = folder(tmp_path / "Base"), tmp_path / "step_5"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert find_checkpoints([str(base), str(adapter)]) == [
        Checkpoint(str(base), str(base)), Checkpoint(str(adapter), str(adapter), 5)
    ]  # fmt: skip


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = run_folder(tmp_path / "run", [], half=[5])
    for given, message in (
        (f"{tmp_path}/none", "does not exist; expected a folder, a glob, a run folder, a hub id or builtin"),
        ("gpt2", "model=gpt2 does not exist"),
        ("a/b/c", "model=a/b/c does not exist"),
        (f"{tmp_path}/empty", "is neither a model nor a run; expected config.json or config.yaml in it"),
        (f"{tmp_path}/n*", "matches no model; expected folders that from_pretrained loads, or run folders"),
        (f"{run}/checkpoints/*", "matches no model"),
        (str(run), "has no complete checkpoint yet; wait for one, or add watch=true"),
    ):
        with pytest.raises(UserError) as error:
            find_checkpoints([given])
        assert message in str(error.value)
    assert find_checkpoints([str(run)], watch=True) == []


def test_the_runs_that_are_watched(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / name, [1]) for name in ("a", "b")]
    folder(tmp_path / "c")
    assert find_runs([f"{tmp_path}/*"]) == runs
    assert find_runs([str(runs[1]), str(tmp_path / "c"), "org/model", "builtin"]) == runs[1:]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def test_the_hash_is_of_the_contents_and_not_of_the_place(model: Path, tmp_path: Path) -> None:
    before = checkpoint_hash(str(model))
    assert len(before) == 16
    assert checkpoint_hash(str(model)) == before
    model.rename(tmp_path / "elsewhere")
    assert checkpoint_hash(str(tmp_path / "elsewhere")) == before
    assert checkpoint_hash(str(save_model(tmp_path / "other", seed=1))) != before


def test_one_bit_of_a_weight_changes_the_hash(model: Path) -> None:
    before, file = checkpoint_hash(str(model)), model / "model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[0]
    weights[name].view(torch.int32).view(-1)[-1] ^= 1  # the last bit of the last number
    save_file(weights, file, metadata={"format": "pt"})
    assert checkpoint_hash(str(model)) != before


def test_files_of_training_change_no_hash(model: Path) -> None:
    before = checkpoint_hash(str(model))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json",
                 "rlvr_state_0.pt", "optimizer.bin", "README.md"):  # fmt: skip
        (model / name).write_bytes(b"state")
    (model / "global_step5").mkdir()
    (model / "global_step5" / "zero.pt").write_bytes(b"state")
    assert checkpoint_hash(str(model)) == before


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_configuration_and_tokenizer_are_in_the_hash(model: Path, name: str) -> None:
    before, file = checkpoint_hash(str(model)), model / name
    file.write_text(json.dumps({**json.loads(file.read_text()), "more": 1}))
    changed = checkpoint_hash(str(model))
    assert changed != before
    file.unlink()
    assert checkpoint_hash(str(model)) not in (before, changed)


def test_a_new_chat_template_changes_the_hash(model: Path) -> None:
    before = checkpoint_hash(str(model))
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert checkpoint_hash(str(model)) != before


def test_bytes_that_move_from_file_to_file_change_the_hash(tmp_path: Path) -> None:
    hashes = set()
    for cut in range(4):
        place = tmp_path / str(cut)
        place.mkdir()
        (place / "a.safetensors").write_bytes(b"abc"[:cut])
        (place / "b.safetensors").write_bytes(b"abc"[cut:])
        hashes.add(checkpoint_hash(str(place)))
    assert len(hashes) == 4


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no weights; expected \*\.safetensors or \*\.bin files"):
        checkpoint_hash(str(folder(tmp_path / "x")))


def test_a_hub_model_is_hashed_by_its_files(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def snapshot(path: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(path=path, revision=revision, patterns=allow_patterns)
        return str(model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert checkpoint_hash("org/model", "v1") == checkpoint_hash(str(model))
    assert (asked["path"], asked["revision"]) == ("org/model", "v1")
    assert {"*.safetensors", "config.json", "tokenizer*"} <= set(asked["patterns"])


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **named: object) -> str:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError) as error:
        checkpoint_hash("org/model")
    assert str(error.value) == (
        "model=org/model is no folder here, and the hub does not give it (no network); expected a folder, or a hub id "
        "and a network"
    )


def test_checkpoints_of_one_run_have_hashes_of_their_own(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "run", step)
    found = find_checkpoints([str(tmp_path / "run")])
    assert len({checkpoint_hash(checkpoint.path) for checkpoint in found}) == 2
