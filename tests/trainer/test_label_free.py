"""Training without rewards: one completion per prompt, no reward logged, adapters, scopes, ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.advantages.constant import Constant
from rlvr.advantages.em_rl import EMRL
from rlvr.errors import UserError
from rlvr.objectives.clipped import Clipped
from rlvr.objectives.entropy import Entropy
from rlvr.rewards.accuracy import Accuracy
from rlvr.rewards.adapter import RewardFunction
from rlvr.rewards.format import Format
from rlvr.rewards.length import Length
from rlvr.rewards.none import NoReward
from rlvr.rewards.random import Random
from rlvr.rewards.self_consistency import SelfConsistency
from rlvr.selection.all_tokens import AllTokens
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm, named_algorithm
from rlvr.trainer.label_free import check_rewards
from tests.ranks import run_ranks
from tests.trainer.tiny_run import (
    STEPS,
    Recorded,
    assert_equal_weights,
    history,
    largest_difference,
    make_trainer,
    recorder,
    train,
    weights,
)

DISTINCT = [{"prompt": f"t{index} t{index + 1}"} for index in range(2, 18)]
REWARDS = ("reward", "reward_std", "frac_reward_zero_std", "rewards/none/mean", "rewards/none/std")


def none() -> RewardFunction:
    return RewardFunction("none", NoReward())


def entropy_at(selection: Any = None, **changes: Any) -> Algorithm:
    return Algorithm(Constant(), AllTokens() if selection is None else selection, Entropy(**changes))


def test_one_completion_per_prompt_gives_each_row_its_own_prompt_and_lowers_the_entropy(tmp_path: Path) -> None:
    calls: Recorded = []
    trainer = train(
        tmp_path, "em_ft", group_size=1, train_dataset=DISTINCT, on_rollout=recorder(calls), reward_funcs=none(),
        max_steps=STEPS * 2,
    )  # fmt: skip
    assert (trainer.sizes.prompts, trainer.sizes.num_generations, trainer.args.num_generations) == (16, 1, 4)
    for batch, prompts in calls:
        assert len({prompt["prompt"] for prompt in prompts}) == len(prompts) == 16
        for row, prompt in enumerate(prompts):
            ids, mask = batch.sampled.tokens.prompt_ids[row], batch.sampled.tokens.prompt_mask[row].bool()
            assert trainer.processing_class.convert_ids_to_tokens(ids[mask]) == prompt["prompt"].split()
        assert torch.equal(batch.advantages, torch.ones(16, 1))
    rows = history(trainer)
    assert [name for row in rows for name in REWARDS if name in row] == []
    entropies = [row["entropy"] for row in rows if "entropy" in row]
    assert entropies[-1] < 0.7 * entropies[0]
    assert rows[0]["objective/entropy"] == pytest.approx(entropies[0], rel=0.2), "half of the batch, before any step"
    assert "clip_ratio/low_mean" not in rows[0]


def test_a_reward_beside_it_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    silent = train(tmp_path, "em_rl_token", reward_funcs=none())
    logged = train(tmp_path, "em_rl_token")
    assert_equal_weights(weights(silent), weights(logged))
    row = history(logged)[0]
    assert "rewards/odd_sum/mean" in row
    assert "reward" in row
    assert "frac_reward_zero_std" not in row, "nobody compares rewards, so equal ones are no alarm"
    assert "frac_reward_zero_std" in history(train(tmp_path, "dapo", max_steps=1))[0]


def test_rewards_that_say_nothing_are_refused_where_they_are_learned_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reward=none with advantage=grpo"):
        make_trainer(tmp_path, "dapo", reward_funcs=none())
    informative = entropy_at(TopEntropy(candidates="informative"))
    with pytest.raises(UserError, match=r"reward=none with selection\.candidates=informative"):
        make_trainer(tmp_path, informative, reward_funcs=[none()])


@pytest.mark.parametrize("name", ["ktae", "ktae_dapo"])
def test_a_verdict_that_is_not_two_sided_is_refused_where_groups_are_split_by_it(name: str) -> None:
    algorithm, right = named_algorithm(name), RewardFunction("accuracy", Accuracy())
    shares = RewardFunction("self_consistency", SelfConsistency())
    for reward in (shares, RewardFunction("length", Length()), RewardFunction("format", Format(absent=0.5))):
        with pytest.raises(UserError, match=f"advantage=ktae with reward.{reward.__name__} first, whose values do not"):
            check_rewards([reward, right], algorithm)
    check_rewards([right, shares], algorithm)
    for reward in (SelfConsistency(majority=True), Format(), Random()):
        check_rewards([RewardFunction("x", reward)], algorithm)
    check_rewards([lambda completions, **_: [1.0] * len(completions)], algorithm)  # nobody knows: taken at its word
    check_rewards([shares, right], named_algorithm("grpo"))


def test_group_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="num_generations is 1 with advantage=grpo"):
        make_trainer(tmp_path, "dapo", group_size=1)
    with pytest.raises(UserError, match=r"group_size is 2 and args\.num_generations 4"):
        make_trainer(tmp_path, "em_ft", group_size=2)
    with pytest.raises(UserError, match="cast_lm_head_to_fp32"):
        make_trainer(tmp_path, "em_ft", cast_lm_head_to_fp32=True)


@pytest.mark.parametrize("scope", ["sequence", "micro_batch", "micro_batch_all_ranks"])
def test_entropy_composes_with_every_scope(scope: str, tmp_path: Path) -> None:
    trainer = train(tmp_path, entropy_at(TopEntropy(keep=0.3, scope=scope), temperature=0.5), max_steps=4)
    rows = history(trainer)
    assert all(row["grad_norm"] > 0 for row in rows)
    kept = [row["selection/kept_fraction"] for row in rows if "selection/kept_fraction" in row]
    assert kept
    assert all(0.3 <= share < 0.45 for share in kept)


def test_keeping_the_most_uncertain_tokens_with_a_kl_term_and_an_adapter(tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    algorithm = entropy_at(TopEntropy(keep=0.2), beta=0.05)
    start = weights(make_trainer(tmp_path, algorithm, peft_config=config))
    trainer = train(tmp_path, algorithm, peft_config=config, learning_rate=0.1)
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, start[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    rows = history(trainer)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["kl"] > 0


def test_the_dense_head_gives_the_same_weights(tmp_path: Path) -> None:
    algorithm = entropy_at(TopEntropy(keep=0.2), temperature=0.5)
    sparse, full = (
        train(tmp_path, algorithm, sparse_head=value, optim="sgd", learning_rate=0.1) for value in (True, False)
    )
    assert largest_difference(weights(sparse), weights(full)) < 1e-5
    assert largest_difference(weights(sparse), weights(make_trainer(tmp_path, algorithm))) > 1e-2


def test_a_resumed_run_is_the_run_bit_for_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"group_size": 1, "train_dataset": DISTINCT, "reward_funcs": none()}
    whole = train(tmp_path, "one_shot_em", save_strategy="steps", save_steps=3, **settings)
    resumed = train(tmp_path, "one_shot_em", resume=tmp_path / "checkpoint-3", **settings)
    assert_equal_weights(weights(whole), weights(resumed))


@pytest.mark.parametrize("name", ["em_ft", "em_rl"])
def test_two_ranks_train_and_end_with_equal_weights(name: str, tmp_path: Path) -> None:
    alone = name == "em_ft"
    algorithm = "em_ft" if alone else Algorithm(EMRL(), AllTokens(), Clipped())
    settings: dict[str, Any] = {"group_size": 1, "train_dataset": DISTINCT} if alone else {}

    def on_rank(rank: int) -> Any:
        trainer = train(tmp_path / str(rank), algorithm, ranks=2, **settings)
        return weights(trainer), history(trainer)[0]["loss"]

    (first, loss), (second, _) = run_ranks(2, on_rank, timeout=200)
    assert_equal_weights(first, second)
    assert loss != 0


def test_the_confidence_that_is_rewarded_rises(tmp_path: Path) -> None:
    trainer = train(tmp_path, "em_rl_token", max_steps=STEPS * 4, reward_funcs=none())
    entropies = [row["entropy"] for row in history(trainer) if "entropy" in row]
    assert entropies[-1] < entropies[0]
    assert isinstance(named_algorithm("em_rl_token").objective, Clipped)
