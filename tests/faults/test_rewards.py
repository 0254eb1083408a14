"""A reward that is no number is an error of the reward; None, which says that there is none, is not."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from rlvr.errors import UserError
from rlvr.rewards.adapter import RewardFunction, check_finite, checked
from rlvr.rewards.base import Scored
from tests.faults.faulty import NAN
from tests.ranks import run_ranks
from tests.trainer.tiny_run import make_trainer, odd_sum


def test_none_and_finite_numbers_pass() -> None:
    check_finite("mine", [None, 1, 0.5, -3e38, True], None)
    check_finite("mine", [], None)


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_the_reward_the_row_and_the_value_are_named(value: float) -> None:
    expected = f"the reward mine gave {value} to a completion of prompt_id b; expected a finite number, or None"
    with pytest.raises(UserError, match=expected):
        check_finite("mine", [1.0, value, value], ["a", "b", "c"])
    with pytest.raises(UserError, match=f"gave {value} to a completion of row 1 of this process"):
        check_finite("mine", [None, value], None)


def test_rewards_of_the_package_are_checked() -> None:
    def reward(batch: Scored) -> list[float | None]:
        return [None, NAN]

    with pytest.raises(UserError, match="the reward mine gave nan to a completion of prompt_id q7"):
        RewardFunction("mine", reward)(["a", "b"], [[1], [2]], prompt_id=["q6", "q7"])  # type: ignore[arg-type]


def test_functions_keep_their_names_and_models_stay() -> None:
    class Model:
        def named_parameters(self) -> list[Any]:
            return []

    async def slow(completions: Any, **_: Any) -> list[float]:
        return [NAN]

    model, wrapped = Model(), RewardFunction("x", None)  # type: ignore[arg-type]
    assert checked("m", model) is model
    assert checked("x", wrapped) is wrapped
    assert checked("odd_sum", odd_sum).__name__ == "odd_sum"
    assert asyncio.iscoroutinefunction(checked("slow", slow))
    with pytest.raises(UserError, match="the reward slow gave nan"):
        asyncio.run(checked("slow", slow)(completions=["a"]))


def some_nan(folder: Path, bad_rank: int, ranks: int = 1) -> Any:
    def nobody_knows(completion_ids: Any, **_: Any) -> list[float | None]:
        return [None, *odd_sum(completion_ids)[1:-1], NAN if trainer.ranks.index == bad_rank else 1.0]

    rows = [{"prompt": f"t{index} t{index + 1}", "prompt_id": f"q{index}"} for index in range(2, 7)]
    trainer = make_trainer(folder, ranks=ranks, reward_funcs=nobody_knows, train_dataset=rows, max_steps=1)
    return trainer


def test_a_training_ends_before_anything_is_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the reward nobody_knows gave nan to a completion of prompt_id q\d"):
        some_nan(tmp_path, bad_rank=0).train()
    some_nan(tmp_path, bad_rank=1).train()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_one_rank_is_enough_to_end_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        run_ranks(2, lambda rank: some_nan(tmp_path / str(rank), bad_rank=1, ranks=2).train(), timeout=60)
    assert "the reward nobody_knows gave nan to a completion of prompt_id" in str(error.value)
    assert "rank 0" in str(error.value), "it has ended too, with an error"
    assert "did not finish" not in str(error.value)
