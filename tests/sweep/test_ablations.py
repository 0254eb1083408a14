"""The ablations that come with the package: they compose, and arms differ in what they say they do."""

from typing import Any

from rlvr.config.compose import compose, configs_dir
from rlvr.config.convert import to_mapping
from rlvr.rollouts.stream import PromptStream
from rlvr.sweep.ablation import read_ablation
from rlvr.sweep.plan import flat
from rlvr.train import prompt_rows
from rlvr.trainer.sampling import RolloutSampler


def arms(name: str, *settings: str) -> dict[str, dict[str, Any]]:
    """Each arm's configuration, flat, with seed 3."""
    ablation = read_ablation(name)
    return {
        arm: flat(to_mapping(compose([*ablation.settings, *settings, *overrides, "run.seed=3"])))
        for arm, overrides in ablation.arms.items()
    }


def test_the_arms_of_entropy_percentile_change_only_what_is_kept() -> None:
    found = arms("entropy_percentile")
    base = found["keep_1.0"]
    assert base["selection.keep"] == 1.0
    assert (base["selection.candidates"], base["selection.normalizer"]) == ("informative", "kept")
    changes = {
        arm: {key: value for key, value in values.items() if base.get(key) != value} for arm, values in found.items()
    }
    assert changes == {
        "keep_0.05": {"selection.keep": 0.05}, "keep_0.1": {"selection.keep": 0.1}, "keep_0.2": {"selection.keep": 0.2},
        "keep_0.5": {"selection.keep": 0.5}, "keep_1.0": {},
        "bottom_80": {"selection.name": "bottom_entropy", "selection.keep": 0.8},
        "random_20": {"selection.name": "random", "selection.keep": 0.2},
        "random_reward": changes["random_reward"],
    }  # fmt: skip
    reward = changes["random_reward"]
    assert reward.pop("selection.keep") == 0.2
    assert {key.split(".")[0] for key in reward} == {"reward"}
    assert reward["reward.random.seed"] == 3, "another coin for each seed"
    ablation = read_ablation("entropy_percentile")
    assert (ablation.baseline, ablation.seeds) == ("keep_1.0", [0, 1, 2, 3, 4])


def test_the_arms_of_algorithms_are_all_there_are() -> None:
    ablation = read_ablation("algorithms")
    assert sorted(ablation.arms) == sorted(path.stem for path in (configs_dir() / "algorithm").glob("*.yaml"))
    found = arms("algorithms")
    assert all(values["run.algorithm"] == arm for arm, values in found.items())
    assert {arm: values["data.train_size"] for arm, values in found.items() if values["data.train_size"] != 8192} == {
        "one_shot_em": 1
    }
    assert (ablation.baseline, ablation.seeds) == ("dapo", [0, 1, 2])


def test_arms_with_the_same_seed_ask_the_same_prompts_with_the_same_random_numbers() -> None:
    ablation = read_ablation("entropy_percentile")
    asked = []
    for overrides in ablation.arms.values():
        config = compose([*ablation.settings, *overrides, "run.seed=4", "data.train_size=64"])
        stream = PromptStream(prompt_rows(config.data.train()), config.run.seed)
        draws = []
        for _ in range(4):  # 128 prompts: two epochs
            first = stream.taken
            prompts = [row["prompt"] for row in stream.take(config.rollouts.prompts)]
            rows = config.rollouts.prompts * config.rollouts.num_generations
            sampler = RolloutSampler(None, False, first)  # type: ignore[arg-type]
            draws.append((prompts, sampler.seeds(config.run.seed, rows, config.rollouts.num_generations)))
        asked.append(draws)
    assert all(draws == asked[0] for draws in asked)
    assert asked[0][0] != asked[0][2], "the second epoch has another order"
