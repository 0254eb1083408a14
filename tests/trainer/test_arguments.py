"""TRL's arguments: the owned ones are refused with the key to use, the others pass, and the sizes follow."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trl import GRPOConfig

from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.train import run_sizes
from rlvr.trainer.algorithm import named_algorithm
from rlvr.trainer.arguments import (
    ALGORITHM_OWNS,
    RUN_OWNS,
    TRL_FIELDS,
    check_model,
    check_trl_mapping,
    own_arguments,
    sizes_of,
    trl_arguments,
    unsupported,
)
from tests.trainer.tiny import make_qwen3

DATA = [{"prompt": "x"}]
OTHER_VALUES = {
    "loss_type": "grpo",
    "importance_sampling_level": "sequence",
    "multi_objective_aggregation": "normalize_then_sum",
}


def arguments(folder: Path, **changes: Any) -> GRPOConfig:
    sizes = {"per_device_train_batch_size": 4, "num_generations": 4, "gradient_accumulation_steps": 2}
    return GRPOConfig(str(folder), use_cpu=True, bf16=False, report_to="none", **{**sizes, **changes})


@pytest.mark.parametrize("name", [*ALGORITHM_OWNS, *RUN_OWNS])
def test_an_owned_field_is_refused_with_the_key_to_use(name: str) -> None:
    with pytest.raises(UserError) as refused:
        check_trl_mapping({name: None})
    assert f"trl.{name} " in str(refused.value)
    assert {**ALGORITHM_OWNS, **RUN_OWNS}[name] in str(refused.value)


def test_owned_fields_exist_in_trl_and_have_one_owner() -> None:
    assert {*ALGORITHM_OWNS, *RUN_OWNS} <= set(TRL_FIELDS)
    assert not set(ALGORITHM_OWNS) & set(RUN_OWNS)


def test_the_key_to_use_is_a_key() -> None:
    from rlvr.config.convert import to_mapping

    values = to_mapping(compose())
    keys = [owner for owner in {*ALGORITHM_OWNS.values(), *RUN_OWNS.values()} if "." in owner and " " not in owner]
    assert len(keys) > 20
    for key in keys:
        part: Any = values
        for name in key.replace("<name>", "accuracy").split("."):
            assert name in part, key
            part = part[name]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"adam_beta": 0.9}, "did you mean trl.adam_beta"),
        ({"zzzz": 1}, "trl.zzzz is not a field of TRL's GRPOConfig; see trl.GRPOConfig"),
        ({"use_vllm": True}, "trl.use_vllm is not taken here: rollouts.backend"),
        ({"adam_beta1": "x"}, "trl.adam_beta1 is 'x'; expected a number"),
        ({"save_total_limit": 2}, "trl.save_total_limit is not taken here: run.keep_last"),
        ({"dataloader_num_workers": 1.5}, "trl.dataloader_num_workers is 1.5; expected a whole number"),
    ],
)
def test_what_trl_does_not_have_or_take_is_refused(given: dict, message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_trl_mapping(given)
    assert message in str(refused.value)


def test_other_fields_pass_through_and_ours_stand_under_trls_names(tmp_path: Path) -> None:
    config = compose([
        "trl.adam_beta2=0.95", "trl.optim=adafactor", "rollouts.prompts=8", "rollouts.num_generations=4", "run.seed=3",
        "optimizer.updates_per_rollout=2", "optimizer.num_iterations=3", "optimizer.micro_batch_rows=4", "run.steps=7",
    ])  # fmt: skip
    args = trl_arguments(config, run_sizes(config), str(tmp_path))
    assert (args.adam_beta2, args.optim, args.seed, args.max_steps, args.save_steps) == (0.95, "adafactor", 3, 7, 7)
    assert args.per_device_train_batch_size == 4
    assert args.gradient_accumulation_steps == 8 * 4 // (2 * 4)
    assert args.steps_per_generation == 2 * args.gradient_accumulation_steps
    assert sizes_of(args, "group") == run_sizes(config)
    assert not args.bf16


def test_a_value_that_trl_refuses_is_one_line(tmp_path: Path) -> None:
    config = compose(["trl.optim=nope"])
    with pytest.raises(UserError, match=r"^TRL refuses these arguments: nope is not a valid OptimizerNames[^\n]*$"):
        trl_arguments(config, run_sizes(config), str(tmp_path))


def other(value: Any) -> Any:
    """A value that is not the given default."""
    return not value if isinstance(value, bool) else 0.5 if value is None else value + 0.25


@pytest.mark.parametrize("name", ALGORITHM_OWNS)
def test_what_the_algorithm_decides_must_be_left_at_trls_default(name: str, tmp_path: Path) -> None:
    args = arguments(tmp_path)
    given = OTHER_VALUES.get(name) or other(TRL_FIELDS[name].default) if name != "scale_rewards" else "batch"
    setattr(args, name, given)
    with pytest.raises(UserError, match=f"args.{name} is ") as refused:
        own_arguments(args, named_algorithm("dapo"), sizes_of(args, "group"), 8)
    assert ALGORITHM_OWNS[name] in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_completions": True}, "on_rollout="),
        ({"eval_strategy": "steps"}, "evaluate with a callback"),
    ],
)
def test_what_the_library_door_does_not_support_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    args = arguments(tmp_path)
    for name, value in change.items():
        setattr(args, name, value)
    with pytest.raises(UserError, match=message):
        own_arguments(args, named_algorithm("dapo"), sizes_of(args, "group"), 8)


@pytest.mark.parametrize(
    ("name", "given", "instead"),
    [
        ("vllm_importance_sampling_correction", False, "correct_sampler=False of RLVRTrainer"),
        ("shuffle_dataset", False, "the prompt stream shuffles, seeded by args.seed"),
        ("train_sampling_strategy", "sequential", "the prompt stream shuffles, seeded by args.seed"),
        ("data_seed", 3, "args.seed"),
        ("neftune_noise_alpha", 5.0, "noise in the embeddings"),
        ("sync_ref_model", True, "a reference that moves is in no checkpoint"),
        ("enable_jit_checkpoint", True, "saves at SIGTERM, after the step"),
    ],
)
def test_what_nobody_would_read_in_a_grpo_config_is_refused(
    name: str, given: Any, instead: str, tmp_path: Path
) -> None:
    args = arguments(tmp_path, **{name: given})
    with pytest.raises(UserError, match=rf"^args\.{name} is {given!r}; expected .*{instead}"):
        own_arguments(args, named_algorithm("dapo"), sizes_of(args, "group"), 8)
    with pytest.raises(UserError, match=f"^trl.{name} is not taken here"):
        check_trl_mapping({name: given})


def test_what_we_own_is_set(tmp_path: Path) -> None:
    from rlvr.advantages.grpo import GRPO
    from rlvr.objectives.clipped import Clipped
    from rlvr.selection.all_tokens import AllTokens
    from rlvr.trainer.algorithm import Algorithm

    args = arguments(tmp_path)
    own_arguments(args, Algorithm(GRPO(), AllTokens(), Clipped(beta=0.05)), sizes_of(args, "group"), 8)
    assert args.beta == 0.05
    assert args.disable_dropout
    for name in ("shuffle_dataset", "vllm_importance_sampling_correction", "ddp_find_unused_parameters"):
        assert getattr(args, name) is False


@pytest.mark.parametrize(("epochs", "prompts", "steps"), [(1, 8, 16), (1, 9, 20), (2.5, 8, 40), (3, 1, 8)])
def test_epochs_become_steps_of_whole_rollout_batches(epochs: float, prompts: int, steps: int, tmp_path: Path) -> None:
    """P = 2 prompts and W * num_iterations = 4 steps from each rollout batch."""
    args = arguments(tmp_path, num_train_epochs=epochs, num_iterations=4)
    own_arguments(args, named_algorithm("dapo"), sizes_of(args, "group"), prompts)
    assert args.max_steps == steps
    fixed = arguments(tmp_path, num_train_epochs=epochs, max_steps=5)
    own_arguments(fixed, named_algorithm("dapo"), sizes_of(fixed, "group"), prompts)
    assert fixed.max_steps == 5


def test_sizes_follow_from_trls_arguments(tmp_path: Path) -> None:
    sizes = sizes_of(arguments(tmp_path, steps_per_generation=6, num_iterations=2), "row")
    assert (sizes.prompts, sizes.num_generations, sizes.updates_per_rollout) == (6, 4, 3)
    assert (sizes.num_iterations, sizes.micro_batch_rows, sizes.slices_per_step) == (2, 4, 2)
    assert sizes.window == "row"


def test_accumulating_over_several_rollout_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="steps_per_generation is 1 and gradient_accumulation_steps 2"):
        sizes_of(arguments(tmp_path, steps_per_generation=1), "group")


@pytest.mark.parametrize("name", ["environment_factory", "eval_dataset", "rollout_func", "tools"])
def test_unsupported_features_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name}= is a TRL feature that RLVRTrainer does not support"):
        unsupported({name: []}, DATA)
    unsupported({name: None}, DATA)


def test_unknown_keywords_and_missing_data_are_refused() -> None:
    with pytest.raises(UserError, match="peft_confg= is not a keyword of RLVRTrainer; expected one of callbacks"):
        unsupported({"peft_confg": 1}, DATA)
    with pytest.raises(UserError, match="train_dataset= is missing"):
        unsupported({}, None)
    with pytest.raises(UserError, match="is a list_iterator; expected rows that can be counted"):
        unsupported({}, iter(DATA))


def test_models_whose_loss_would_be_wrong_are_refused() -> None:
    from peft import LoraConfig, PromptTuningConfig

    model = make_qwen3()
    check_model(model)
    model.peft_config = {"default": LoraConfig()}
    check_model(model)
    model.peft_config = {"default": PromptTuningConfig(num_virtual_tokens=2)}
    with pytest.raises(UserError, match="prepends virtual tokens"):
        check_model(model)
    text = SimpleNamespace(output_router_logits=True)
    moe = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    with pytest.raises(UserError, match="output_router_logits=true"):
        check_model(moe)
