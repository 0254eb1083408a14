"""A checkpoint as a folder that `from_pretrained` loads: the weights bit for bit, and nothing half or damaged."""

import shutil
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr.checkpoints.manifest import read_manifest
from rlvr.errors import UserError
from rlvr.export import checkpoint_of, export
from tests.ranks import run_ranks
from tests.trainer.tiny_run import assert_equal_weights, make_trainer, train, weights

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}


class Saved:
    def __init__(self, folder: Path) -> None:
        self.weights = weights(train(folder, **SAVING))
        self.checkpoint = folder / "checkpoint-2"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"))


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_policy_and_its_tokenizer_load_and_nothing_else_is_there(saved: Saved, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    checkpoint, names = export(saved.checkpoint, out)
    assert checkpoint == saved.checkpoint
    assert_equal_weights(loaded(out), saved.weights)
    assert AutoTokenizer.from_pretrained(out)("t2 t3")["input_ids"] == [2, 3]
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(names)
    assert not [name for name in names if name.startswith(("opt", "rng", "rlvr", "sched", "train", "MANIFEST"))]
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_a_damaged_checkpoint_is_refused_and_leaves_nothing(saved: Saved, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(saved.checkpoint, tmp_path / "checkpoint-2"))
    with (bad / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(UserError, match=r"is no whole checkpoint \(model\.safetensors: digest differs"):
        export(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(saved.checkpoint, tmp_path / "out")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        export(saved.checkpoint, tmp_path / "out")
    with pytest.raises(UserError, match="nowhere is not a folder"):
        export(tmp_path / "nowhere", tmp_path / "other")


def test_a_run_stands_for_its_newest_whole_checkpoint(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="has no whole checkpoint; name another folder"):
        checkpoint_of(tmp_path)
    kept = Path(shutil.copytree(saved.checkpoint, tmp_path / "checkpoints/checkpoint-2"))
    torn = Path(shutil.copytree(saved.checkpoint, tmp_path / "checkpoints/checkpoint-3"))
    (torn / "optimizer.pt").unlink()
    assert checkpoint_of(tmp_path) == kept


def on_rank(rank: int, folder: str, stage: int, gather: bool) -> Any:
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    settings = {
        "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "train_batch_size": "auto",
        "gradient_clipping": "auto", "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage, "overlap_comm": False, "stage3_param_persistence_threshold": 0,
            "stage3_gather_16bit_weights_on_model_save": gather,
        },
    }  # fmt: skip
    trainer = make_trainer(Path(folder), ranks=2, deepspeed=settings, **SAVING)
    trainer.train()
    parameters = list(trainer.model.parameters())
    with deepspeed.zero.GatheredParameters(parameters, enabled=stage == 3):
        return {name: values.detach().clone() for name, values in trainer.model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "gather"), [(2, True), (3, True), (3, False)])
def test_the_shares_of_ranks_are_put_together(
    stage: int, gather: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    trained = run_ranks(2, on_rank, str(tmp_path / "run"), stage, gather)[0]
    checkpoint = tmp_path / "run/checkpoint-2"
    assert ("model.safetensors" in read_manifest(checkpoint).files) == gather
    _, names = export(checkpoint, tmp_path / "out")
    found = loaded(tmp_path / "out")
    assert [name for name in trained if not torch.equal(found[name], trained[name])] == []
    assert not [name for name in names if name.startswith(("global_step", "zero", "latest", "rlvr"))]
