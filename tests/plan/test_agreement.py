"""What a plan says is what training then does, on random configurations of the built-in task and policy."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlvr.config.algebra import divisors
from rlvr.config.compose import compose
from rlvr.maths.masked import last_true
from rlvr.plan import make_plan
from rlvr.preflight import run_sizes
from rlvr.rollouts.record import read_record
from rlvr.train import Run

CASES = 20
TRAIN_SIZE = 24
INSIDE_LOSS = ("micro_batch", "micro_batch_all_ranks")


def drawn(seed: int) -> list[str]:
    """A valid configuration: every size is drawn among those that divide."""
    draw = random.Random(seed)
    updates, generations = draw.choice([1, 1, 2, 3]), draw.choice([2, 4, 6])
    window = draw.choice(["group", "row"]) if generations % updates == 0 else "group"
    prompts = draw.randint(1, 5) if window == "row" else updates * draw.randint(1, 2)
    rows = prompts * generations // updates
    algorithm = draw.choice(["grpo", "dapo", "dapo_top20", "dapo_top20", "dapo_top20", "dr_grpo", "rloo"])
    settings = [
        f"algorithm={algorithm}", f"rollouts.prompts={prompts}", f"rollouts.num_generations={generations}",
        f"optimizer.updates_per_rollout={updates}", f"optimizer.num_iterations={draw.choice([1, 1, 2])}",
        f"optimizer.micro_batch_rows={draw.choice(divisors(rows))}", f"optimizer.window={window}",
        f"run.steps={draw.randint(1, 5)}", f"rollouts.max_completion_length={draw.choice([8, 24, 40])}",
    ]  # fmt: skip
    if algorithm == "dapo_top20":
        rule = draw.choice(["top_entropy", "bottom_entropy", "random"])
        scope = draw.choice(["rollout", "rollout", "group", "sequence", *INSIDE_LOSS])
        settings += [
            f"selection={rule}", f"selection.keep={draw.choice([0.05, 0.2, 0.37, 1.0])}", f"selection.scope={scope}",
            f"selection.candidates={draw.choice(['all', 'informative'])}",
        ]  # fmt: skip
    return settings


class Trained:
    """A run that trained as configured, and what it left."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        fixed = [
            f"run.dir={folder}", "run.name=x", "logging.progress=none", f"data.train_size={TRAIN_SIZE}",
            "data.heldout_size=0", "rollouts.record.every=1", "rollouts.record.max_completions=1000",
        ]  # fmt: skip
        self.config = compose([*fixed, *settings])
        run = Run(self.config, Console(quiet=True))
        run.execute()
        self.trainer = run.trainer
        self.rows: list[dict[str, Any]] = [
            json.loads(line) for line in (folder / "x/metrics.jsonl").read_text().splitlines()
        ]
        self.records = [read_record(path) for path in sorted((folder / "x/rollouts").iterdir())]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CASES))
def test_training_does_what_the_plan_says(seed: int, tmp_path: Path) -> None:
    trained = Trained(tmp_path, drawn(seed))
    config, trainer = trained.config, trained.trainer
    sizes = run_sizes(config)
    plan = make_plan(config, sizes, None, TRAIN_SIZE, 5)
    assert (trainer.state.global_step, len(trained.rows)) == (plan.steps, plan.steps)
    assert (trainer.rollouts_made, len(trained.records)) == (plan.rollouts, plan.rollouts)
    assert trainer._step == plan.slices
    assert sum(len(record) for record in trained.records) == plan.completions
    assert trained.rows[-1]["epoch"] == pytest.approx(plan.epochs)
    slices = trainer.rollout.plan
    assert (len(slices), {len(step) for step in slices}) == (sizes.updates_per_rollout, {sizes.slices_per_step})
    batch = trainer.rollout
    lengths = (batch.sampled.tokens.prompt_mask.sum(dim=1) + last_true(batch.projected())).tolist()
    for step in slices:  # no slice holds more tokens than `micro_batch_rows` rows of the step's longest
        room = sizes.micro_batch_rows * max((lengths[row] for part in step for row in part), default=0)
        assert all(len(part) * max((lengths[row] for row in part), default=0) <= room for part in step)
    assert sum(step.kept for step in trainer.rollout.step_counts) <= plan.kept_at_most
    first = [row for row in trained.rows if "reward" in row]
    for record, row in zip(trained.records, first, strict=True):
        assert sum(len(completion["token_ids"]) for completion in record) <= plan.tokens_at_most
        check_selection(record, row, config, plan)


def check_selection(record: list[dict[str, Any]], row: dict[str, Any], config: Any, plan: Any) -> None:
    """The tokens that a rollout batch kept are exactly a share of those that voted, and within the plan's bounds."""
    marked = sum(sum(completion["kept"]) for completion in record)
    scope, rule = config.selection.scope, config.selection.name
    if scope in INSIDE_LOSS:  # the record marks the candidates, since the loss decides later
        assert marked <= plan.voting_at_most
        return
    candidates = row["selection/candidates"]
    assert candidates <= plan.voting_at_most
    assert marked <= plan.kept_at_most
    assert row["selection/kept_fraction"] * candidates == pytest.approx(marked)
    if scope == "rollout":
        keep = config.selection.keep
        if rule == "bottom_entropy":
            assert marked == math.floor(round(keep * candidates, 6))
        else:
            assert marked == math.ceil(round(keep * candidates, 6))


@pytest.mark.slow
def test_the_drawn_configurations_differ_where_it_matters() -> None:
    configs = [compose(drawn(seed)) for seed in range(CASES)]
    assert {config.optimizer.window for config in configs} == {"group", "row"}
    assert {config.optimizer.updates_per_rollout for config in configs} == {1, 2, 3}
    assert {config.optimizer.num_iterations for config in configs} == {1, 2}
    assert {config.run.algorithm for config in configs} == {"grpo", "dapo", "dapo_top20", "dr_grpo", "rloo"}
    assert len({(config.selection.name, config.selection.scope) for config in configs}) >= 6
