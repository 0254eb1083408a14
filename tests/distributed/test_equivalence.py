"""Every named algorithm makes the update of one process on two ranks: under DDP and every stage of ZeRO."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from rlvr.selection.select import TokenSelection
from rlvr.selection.top_entropy import TopEntropy
from tests.distributed.tape import Played, Recording, Setting, Tape, save_model, train
from tests.golden_update.test_zero import zero_config
from tests.ranks import run_ranks
from tests.source import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CASES = {
    "grpo": 0.5, "dapo": 0.5, "dapo_top20": 0.05, "dapo_dynamic": 0.4, "dr_grpo": 1.0, "rloo": 0.5, "ktae": 0.2,
    "ktae_dapo": 0.4, "em_rl_sequence": 0.4, "em_rl_token": 1.5, "em_ft": 0.01, "one_shot_em": 0.05,
    "dapo_top20 objective.beta=0.05 objective.mask_truncated=true selection.scope=group": 0.05,
    "one_shot_em selection=top_entropy selection.candidates=all": 0.05,
}  # fmt: skip
"""Learning rates with which four steps move the weights by some percent."""

DENSE = ["dapo_top20", "one_shot_em selection=top_entropy selection.candidates=all"]
"""Also with every token projected; these keep a fifth."""

METRICS = ("loss", "kl", "entropy", "selection/kept_fraction", "selection/threshold", "objective/entropy")
TOLERANCE = 1e-5

Result = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def settings() -> dict[str, Setting]:
    return {case: Setting.named(case) for case in CASES}


@pytest.fixture(scope="module")
def alone(
    settings: dict[str, Setting], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Tape, Result]]:
    """By case, what one process sampled and scored, and what it made of it."""
    made, out = {}, tmp_path_factory.mktemp("alone")
    for case, learning_rate in CASES.items():
        tape = Tape()
        made[case] = tape, train(Recording, settings[case], model, out, tape, learning_rate)
    return made


class OneRankTooStrong(Played):
    """A control that must fail: a loss that is one percent larger, on one of the ranks."""

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        return super()._compute_loss(model, inputs) * (1.01 if self.ranks.index else 1.0)


class EachForItself(TopEntropy):
    """A control that must fail: every rank keeps its own fifth."""

    def __call__(self, entropies: Tensor, candidates: Tensor, **words: Any) -> TokenSelection:
        return super().__call__(entropies, candidates, **{**words, "process_group": None})


def distance(result: Result, expected: Result) -> float:
    """Of the weights, as a share of how far training has moved them (L2)."""
    moved = np.linalg.norm(expected["after"] - expected["before"])
    return float(np.linalg.norm(result["after"] - expected["after"]) / moved)


def same_masks(results: list[Result], expected: Result) -> bool:
    """Whether the ranks together keep the same tokens of the same rows, in every rollout batch."""
    batches = [{row: kept for part in parts for row, kept in part.items()} for parts in
               zip(*(result["masks"] for result in results), strict=True)]  # fmt: skip
    return batches == expected["masks"]


def differing_metrics(result: Result, expected: Result) -> list[str]:
    """Metrics of any step that are not those of one process."""
    return [
        f"{name} of step {step}: {mine.get(name)}, expected {row[name]}"
        for step, (mine, row) in enumerate(zip(result["rows"], expected["rows"], strict=True), 1)
        for name in METRICS
        if name in row and mine.get(name) != pytest.approx(row[name], rel=TOLERANCE, abs=TOLERANCE)
    ]


def test_every_named_algorithm_is_among_the_cases_and_learns(alone: dict[str, tuple[Tape, Result]]) -> None:
    named = {path.stem for path in (ROOT / "configs" / "algorithm").glob("*.yaml")}
    assert named <= set(CASES)
    for case, (tape, result) in alone.items():
        change = np.linalg.norm(result["after"] - result["before"]) / np.linalg.norm(result["before"])
        assert 0.01 < change < 0.2, f"{case} moved the weights by {change:.2%}"
        assert len(result["rows"]) == 4
        assert len(tape.scores) == 2
    kept = [mask for rows in alone["dapo_top20"][1]["masks"] for row in rows.values() for mask in row]
    assert 0.05 < sum(kept) / len(kept) < 0.25
    assert len(alone["dapo_dynamic"][0].taken) > 2, "a batch takes several rounds"


@pytest.mark.parametrize("stage", [None, 1, 2, 3], ids=["ddp", "zero1", "zero2", "zero3"])
def test_two_ranks_make_the_update_of_one_process(
    stage: int | None, settings: dict[str, Setting], alone: dict[str, tuple[Tape, Result]], model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")

    def on_rank(rank: int) -> dict[str, Result]:
        engine = {} if stage is None else {"deepspeed": prepared_engine(stage)}

        def played(case: str, kind: type[Played] = Played, **changes: Any) -> Result:
            setting = changes.pop("setting", settings[case])
            return train(
                kind, setting, model, tmp_path / str(rank), alone[case][0], CASES[case], ranks=2, **changes, **engine
            )

        results = {case: played(case) for case in CASES}
        if stage in (2, 3):
            results |= {f"{case}, dense": played(case, sparse=False) for case in DENSE}
        results["control: one rank too strong"] = played("dapo", OneRankTooStrong)
        if stage is None:
            results["control: each for itself"] = played("dapo_top20", setting=each_for_itself(settings["dapo_top20"]))
        return results

    ranks = run_ranks(2, on_rank, timeout=280)
    for case in ranks[0]:
        assert ranks[0][case]["engine"] == ("DistributedDataParallel" if stage is None else "DeepSpeedEngine")
        expected = alone["dapo" if "strong" in case else "dapo_top20" if "itself" in case else case.split(",")[0]][1]
        results = [result[case] for result in ranks]
        distances = [distance(result, expected) for result in results]
        if "control" in case:
            assert min(distances) > 20 * TOLERANCE, f"the suite must see: {case}"
            assert same_masks(results, expected) == ("itself" not in case)
            continue
        assert max(distances) < TOLERANCE, f"{case}: {distances}"
        assert same_masks(results, expected), f"{case}: other tokens were kept"
        assert differing_metrics(results[0], expected) == [], case
    parts = [result["dapo_top20"] for result in ranks]
    assert sum(part["dummies"] for part in parts) > 0, "a rank without rows forwards a dummy"
    assert sorted(parts[0]["masks"][0]) != list(range(16)), "groups move to the rank that trains on them"


def prepared_engine(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration, after DeepSpeed was started."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    return zero_config(stage)


def each_for_itself(setting: Setting) -> Setting:
    """An algorithm without the agreement of the ranks about its tokens."""
    selection = EachForItself(**vars(setting.algorithm.selection))
    return replace(setting, algorithm=replace(setting.algorithm, selection=selection))
