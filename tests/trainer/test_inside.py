"""Looking first: the same update as one pass, with only the kept tokens in the gradient pass, where that pays."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.advantages.grpo import GRPO
from rlvr.objectives.clipped import Clipped
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.inside import looks_first, pays
from rlvr.trainer.seam import RLVRTrainer
from tests.trainer.tiny_run import history, largest_difference, make_trainer, weights


@pytest.mark.parametrize(
    ("trunk", "head", "keep", "worth"),
    [
        (22, 10, 0.2, False),  # 2.2 heads saved, 2.2 heads of trunk paid
        (21, 10, 0.2, True),
        (1, 10, 0.75, False),  # nothing is saved where three quarters are kept
        (4_718_592, 8_388_608, 0.2, True),  # the benchmark's shape: 6 layers of 256, vocabulary 32 768
        (6_945_767_424, 622_329_856, 0.2, False),  # Qwen3-8B: its trunk is dearer than its head
    ],
)
def test_a_second_pass_is_made_where_it_saves_more_than_it_costs(
    trunk: int, head: int, keep: float, worth: bool
) -> None:
    assert pays(trunk, head, keep) is worth


def algorithm(scope: str, **changes: Any) -> Algorithm:
    return Algorithm(GRPO(), TopEntropy(keep=0.2, scope=scope), Clipped(**changes))


def test_the_model_decides(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, algorithm("micro_batch"))
    head, embeddings = trainer.model.get_output_embeddings().weight, trainer.model.get_input_embeddings().weight
    assert head is not embeddings, "untied: neither counts as trunk"
    trunk = sum(weight.numel() for weight in trainer.model.parameters()) - head.numel() - embeddings.numel()
    assert looks_first(trainer) is pays(trunk, head.numel(), 0.2)
    trainer.algorithm = algorithm("rollout")
    assert not looks_first(trainer)


@pytest.mark.parametrize("scope", ["micro_batch", "micro_batch_all_ranks"])
def test_looking_first_makes_the_same_training(scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, projected = RLVRTrainer._forward, []

    def counted(trainer: Any, model: Any, tokens: Any, where: Any) -> Any:
        if torch.is_grad_enabled():
            projected.append(int(where.sum()))
        return forward(trainer, model, tokens, where)

    monkeypatch.setattr(RLVRTrainer, "_forward", counted)
    found = {}
    for looks in (False, True):
        projected.clear()
        trainer = make_trainer(tmp_path / str(looks), algorithm(scope), max_steps=4)
        trainer.faults._looks = looks
        trainer.train()
        names = ("selection/kept_fraction", "selection/entropy_kept", "selection/entropy_dropped", "loss")
        found[looks] = weights(trainer), [[row[name] for name in names] for row in history(trainer)], sum(projected)
    (one, rows, every), (two, others, kept) = found[False], found[True]
    assert largest_difference(one, two) < 1e-5
    assert others == [pytest.approx(row, rel=1e-4, abs=1e-6) for row in rows]
    assert 0.2 <= kept / every < 0.35
